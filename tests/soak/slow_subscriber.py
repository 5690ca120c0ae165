"""`python -m tests.soak.slow_subscriber NAMESPACE ...`: receives all results of front-ends, but slowly."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

import rclpy
from feature_frontend_msgs.msg import Features, Tracks
from rclpy.executors import ExternalShutdownException

from feature_frontend.ros.qos import qos_profile

__all__ = ["SLEEP_S"]

SLEEP_S = 2.0


def _sleep(_message: object) -> None:
    time.sleep(SLEEP_S)


def _main(namespaces: list[str]) -> None:
    rclpy.init()
    node = rclpy.create_node("slow_subscriber")
    for namespace in namespaces:
        # Of one camera, or of the left one of two.
        for kind, topic in ((Features, "features"), (Features, "left/features"), (Tracks, "tracks")):
            node.create_subscription(kind, f"/{namespace}/{topic}", _sleep, qos_profile("reliable", 10))
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    _main(sys.argv[1:])
