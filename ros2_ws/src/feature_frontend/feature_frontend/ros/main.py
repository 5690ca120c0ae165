"""Runs the node: `ros2 run feature_frontend frontend`, or `feature_frontend frontend`."""

# During imports above `main`, Ctrl-C still prints a traceback: keep them to a minimum.
from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from feature_frontend.ros.interrupts import OrderlyEnd, end_at_once, end_process, interrupt_waits

if TYPE_CHECKING:
    from feature_frontend.pipeline.frontend import Frontend
    from feature_frontend.settings import Settings

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until SIGINT or SIGTERM; returns 1 if the node cannot start. May end the process."""
    end_at_once()
    from feature_frontend.runtime.heap import keep_freed_memory, restart_without_thread_caches

    if argv is None:
        with interrupt_waits():
            restart_without_thread_caches()
    keep_freed_memory()
    return _run(list(sys.argv[1:] if argv is None else argv))


def _run(arguments: list[str]) -> int:
    # Imported here: torch takes seconds to import, during which a signal must end the process quietly too.
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.signals import SignalHandlerOptions

    from feature_frontend.errors import FeatureFrontendError
    from feature_frontend.ros.callback_guard import GuardedExecutor
    from feature_frontend.ros.node import FrontendNode
    from feature_frontend.ros.shared_memory import remove_abandoned
    from feature_frontend.ros.start_errors import readable_start
    from feature_frontend.system.files import readable_name

    try:
        with readable_start():
            given = [readable_name(argument) for argument in arguments]
            # Before allocating its own: a node that is killed and restarted for months would fill /dev/shm.
            removed = remove_abandoned()
            rclpy.init(args=given, signal_handler_options=SignalHandlerOptions.NO)
        with OrderlyEnd() as end:
            # Allocate first: a signal must be able to destroy the node while it is being constructed.
            node = FrontendNode.__new__(FrontendNode)
            end.owns(node)
            with readable_start():
                FrontendNode.__init__(node, _load, arguments, end.outside_ros)
            if removed:
                node.get_logger().info(removed)
            with suppress(ExternalShutdownException):
                end.spin(node, GuardedExecutor(node.guard))
            node.stop()
            # FastDDS frees its shared memory, 67 MB in /dev/shm, only with the last node.
            node.destroy_node()
            end_process(0)
    except FeatureFrontendError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


def _load(settings: Settings) -> Frontend:
    import gc

    from feature_frontend.pipeline.frontend import Frontend

    frontend = Frontend.from_pretrained(settings)
    # Objects loaded with the first model stay: spare the collector from traversing all of torch during a frame. Not
    # later: a pause between the node's subscriptions and its first spin would lose images.
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()
    return frontend
