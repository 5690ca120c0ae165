"""Runs the node: `ros2 run feature_frontend frontend`, or `feature_frontend frontend`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import rclpy
from rclpy.executors import ExternalShutdownException

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.ros.node import FrontendNode

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until Ctrl-C; 1 if the node cannot start."""
    try:
        rclpy.init(args=list(sys.argv[1:] if argv is None else argv))
    except Exception as error:
        return _fail(f"cannot start ROS 2: {error}")
    node = None
    is_stopped = True
    try:
        node = FrontendNode()
        rclpy.spin(node)
    except FeatureFrontendError as error:
        return _fail(str(error))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        if node is not None:
            is_stopped = node.stop()
        rclpy.try_shutdown()
    if not is_stopped:
        # The worker is inside a network run that cannot be interrupted; leaving at once is cleaner than tearing down
        # the interpreter under it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _fail(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 1
