"""All uses of private rclpy API, for which no distribution has a public one. A test detects changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.exceptions import InvalidNamespaceException, InvalidNodeNameException
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter

__all__ = ["destroy_state_machine", "given_parameters", "guard_takes", "start_errors"]

# Methods by which an executor takes a message or request before a callback.
_TAKES = ("_take_subscription", "_take_service", "_take_client", "_take_timer")
# No distribution has all of them.
_START_ERRORS = ("RCLError", "RCUtilsError", "RMWError", "UnknownROSArgsError")


def given_parameters(node: Node) -> dict[str, Parameter]:
    """Parameters from the command line and files, declared or not; added entries become overrides too."""
    given: dict[str, Parameter] = node._parameter_overrides
    return given


def destroy_state_machine(node: LifecycleNode) -> None:
    """Frees what rclpy's `destroy_node` forgets; otherwise the node stays in the graph, and 67 MB in /dev/shm."""
    node._state_machine.destroy_when_not_in_use()


def guard_takes(executor: Executor, around: Callable[[Callable[[Any], Any], Any], Any]) -> None:
    """Makes the executor take messages and requests through `around`, called with rclpy's function and its argument."""
    for name in _TAKES:
        setattr(executor, name, partial(around, getattr(executor, name)))


def start_errors() -> tuple[type[Exception], ...]:
    """Exceptions that `rclpy.init` and node constructors raise."""
    from rclpy.impl.implementation_singleton import rclpy_implementation

    private = (getattr(rclpy_implementation, name, None) for name in _START_ERRORS)
    return InvalidNamespaceException, InvalidNodeNameException, *(kind for kind in private if kind is not None)
