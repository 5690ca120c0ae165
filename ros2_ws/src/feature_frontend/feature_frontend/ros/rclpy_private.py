"""What is used of rclpy and not public: no distribution has another way. A test says what of it has changed."""

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

# What an executor does before a callback: it takes the message, the request.
_TAKES = ("_take_subscription", "_take_service", "_take_client", "_take_timer")
# Not all distributions have all of them.
_START_ERRORS = ("RCLError", "RCUtilsError", "RMWError", "UnknownROSArgsError")


def given_parameters(node: Node) -> dict[str, Parameter]:
    """Parameters given on the command line and in files, declared or not; what is put in is declared so."""
    given: dict[str, Parameter] = node._parameter_overrides
    return given


def destroy_state_machine(node: LifecycleNode) -> None:
    """Frees what rclpy forgets in `destroy_node`: with it the node stays in the graph, and 67 MB in /dev/shm."""
    node._state_machine.destroy_when_not_in_use()


def guard_takes(executor: Executor, around: Callable[[Callable[[Any], Any], Any], Any]) -> None:
    """Has `around` called, with rclpy's function and what came, wherever the executor takes a message or a request."""
    for name in _TAKES:
        setattr(executor, name, partial(around, getattr(executor, name)))


def start_errors() -> tuple[type[Exception], ...]:
    """What `rclpy.init` and the making of a node raise."""
    from rclpy.impl.implementation_singleton import rclpy_implementation

    private = (getattr(rclpy_implementation, name, None) for name in _START_ERRORS)
    return InvalidNamespaceException, InvalidNodeNameException, *(kind for kind in private if kind is not None)
