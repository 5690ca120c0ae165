"""A subscriber as a separate process: writes each image, camera_info and imu as a JSON line, and answers each image.

Arguments: output file, number of images to wait for, and options as JSON: history depth
(0 keeps all), and delay_s per image.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, Imu

_RECEIVE_S = 60
KEEP_ALL = QoSProfile(history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE)


class Receiver(Node):
    """Notes what arrives, in the order of arrival."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__("receiver")
        self.received: list[dict[str, Any]] = []
        self.images = 0
        self._delay_s = float(options.get("delay_s", 0))
        depth = int(options.get("depth", 0))
        profile = QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE) if depth else KEEP_ALL
        self._answers = self.create_publisher(CameraInfo, "answers", KEEP_ALL)
        self.create_subscription(CameraInfo, "camera_info", self._take_camera_info, profile)
        self.create_subscription(Imu, "imu", self._take_imu, KEEP_ALL)
        self.create_subscription(Clock, "/clock", self._take_clock, KEEP_ALL)
        # The last, as in the node: a player that finds it begins, and what is not there by then misses the beginning.
        self.create_subscription(Image, "image", self._take_image, profile)

    def _note(self, kind: str, stamp: Any, **fields: Any) -> None:
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        self.received.append({"kind": kind, "stamp_ns": stamp_ns, "at_s": time.monotonic(), **fields})

    def _take_image(self, message: Image) -> None:
        self._note(
            "image",
            message.header.stamp,
            frame_id=message.header.frame_id,
            encoding=message.encoding,
            size=[message.height, message.width, message.step],
            sha256=hashlib.sha256(message.data).hexdigest(),
        )
        self.images += 1
        time.sleep(self._delay_s)
        self._answers.publish(CameraInfo(header=message.header))

    def _take_camera_info(self, message: CameraInfo) -> None:
        size = [message.height, message.width]
        self._note("camera_info", message.header.stamp, frame_id=message.header.frame_id, size=size, k=list(message.k))

    def _take_imu(self, message: Imu) -> None:
        rate, acceleration = message.angular_velocity, message.linear_acceleration
        self._note(
            "imu",
            message.header.stamp,
            frame_id=message.header.frame_id,
            values=[*(rate.x, rate.y, rate.z), *(acceleration.x, acceleration.y, acceleration.z)],
            orientation_covariance=list(message.orientation_covariance),
            covariances=[list(message.angular_velocity_covariance), list(message.linear_acceleration_covariance)],
        )

    def _take_clock(self, message: Clock) -> None:
        self._note("clock", message.clock)


def main(output: str, count: str, options: str = "{}") -> None:
    """Receives until `count` images are there and half a second passed without more, or for a minute."""
    # A hang in DDS ends too, and says where, instead of as a time-out that says nothing.
    faulthandler.dump_traceback_later(_RECEIVE_S + 20, exit=True)
    rclpy.init()
    node = Receiver(json.loads(options))
    print("listening", flush=True)
    end_s = time.monotonic() + _RECEIVE_S
    quiet_s = time.monotonic()
    while time.monotonic() < end_s and (node.images < int(count) or time.monotonic() - quiet_s < 0.5):
        before = len(node.received)
        rclpy.spin_once(node, timeout_sec=0.1)
        quiet_s = time.monotonic() if len(node.received) > before else quiet_s
    Path(output).write_text("\n".join(map(json.dumps, node.received)))
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
