"""A ROS node in a separate context with a thread for its callbacks: the basis of clients of the node under test."""

from __future__ import annotations

import threading
from types import TracebackType

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from typing_extensions import Self

__all__ = ["SpinningNode"]

_END_TIMEOUT_S = 5.0


class SpinningNode:
    """Receives messages from `start` until the context is left.

    Args:
        name: Name of the node.
        domain_id: Its ROS domain.
    """

    def __init__(self, name: str, domain_id: int) -> None:
        self._context = Context()
        rclpy.init(args=[], context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)

    def start(self) -> None:
        """Starts receiving; call it after creating the subscriptions."""
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()
        self._thread.join(timeout=_END_TIMEOUT_S)
        self.node.destroy_node()
        self._context.try_shutdown()
