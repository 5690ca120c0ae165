"""Runs the node of an adapter as a tool."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.ros.callback_guard import CallbackGuard, GuardedExecutor
from feature_frontend.ros.interrupts import OrderlyEnd
from feature_frontend.ros.start_errors import check_ros_arguments, readable_start
from feature_frontend.system.files import readable_name

__all__ = ["run_adapter"]


def run_adapter(parser: argparse.ArgumentParser, make_node: Callable[[], Node], argv: Sequence[str] | None) -> int:
    """Runs a node until Ctrl-C; returns the exit status, 1 if it cannot start.

    Args:
        parser: For the arguments besides ROS's.
        make_node: Makes the node; may raise `FeatureFrontendError`.
        argv: Arguments; None for the process's own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        check_ros_arguments(arguments)
        readable = [readable_name(argument) for argument in arguments]
        parser.parse_args(remove_ros_args([parser.prog, *readable])[1:])
        with readable_start():
            rclpy.init(args=readable, signal_handler_options=SignalHandlerOptions.NO)
        with OrderlyEnd() as end:
            with readable_start():
                node = make_node()
            end.owns(node)
            with suppress(ExternalShutdownException):
                end.spin(node, GuardedExecutor(CallbackGuard(node)))
            # At interpreter exit it may wait for ever for the middleware's threads.
            node.destroy_node()
    except FeatureFrontendError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0
