"""Runs the node: `ros2 run feature_frontend frontend`, or `feature_frontend frontend`."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from feature_frontend.allocation import keep_freed_memory, restart_without_thread_caches
from feature_frontend.ros.interrupts import quiet_interrupts
from feature_frontend.runtime.files import readable_name

if TYPE_CHECKING:
    from feature_frontend.frontend import Frontend
    from feature_frontend.settings import Settings

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until Ctrl-C; 1 if the node cannot start."""
    try:
        if argv is None:
            restart_without_thread_caches()
        with quiet_interrupts() as hand_over:
            return _run(list(sys.argv[1:] if argv is None else argv), hand_over)
    except KeyboardInterrupt:
        return 0


def _run(arguments: list[str], hand_over: Callable[[], None]) -> int:
    keep_freed_memory()
    # Here, not above: importing torch takes seconds, in which Ctrl-C must be as quiet as later.
    import rclpy
    from rclpy.executors import ExternalShutdownException

    from feature_frontend.errors import FeatureFrontendError
    from feature_frontend.ros.callback_guard import GuardedExecutor
    from feature_frontend.ros.node import FrontendNode

    try:
        rclpy.init(args=[readable_name(argument) for argument in arguments])
    except Exception as error:
        # rclpy's errors for bad ROS arguments share no base class.
        return _fail(f"cannot start ROS 2: {error}")
    node = None
    try:
        node = FrontendNode(_load, arguments)
        hand_over()
        rclpy.spin(node, GuardedExecutor(node.guard))
    except FeatureFrontendError as error:
        return _fail(str(error))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        if node is not None:
            node.stop()
            # FastDDS removes its shared memory, 67 MB of /dev/shm, only with the last node.
            node.destroy_node()
        rclpy.try_shutdown()
    # The worker may be inside a network run, which cannot be interrupted, and tearing down an interpreter with torch in
    # it takes up to seconds on a busy machine: leave at once, with everything published and nothing left to write.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _load(settings: Settings) -> Frontend:
    from feature_frontend.frontend import Frontend

    frontend = Frontend.from_pretrained(settings)
    # What is loaded with the first model stays: the collector need not walk through all of torch in the middle of a
    # frame. Not later: between the node's subscriptions and its first spin this pause would lose images.
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()
    return frontend


def _fail(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 1
