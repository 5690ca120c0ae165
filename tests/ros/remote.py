"""The equivalents of `ros2 param`, `ros2 lifecycle` and `ros2 service call` for tests of a node in another process."""

from __future__ import annotations

from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import ParameterDescriptor
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python

from tests.ros.harness import wait_until

__all__ = ["Remote"]

_TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "cleanup": Transition.TRANSITION_CLEANUP,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "shutdown": Transition.TRANSITION_ACTIVE_SHUTDOWN,
}


class Remote:
    """The services of the node `/frontend`, called from a node whose callbacks run in another thread."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._callers: dict[str, Any] = {}

    def call(self, service: type, name: str, request: Any) -> Any:
        """The response of `/frontend/NAME`."""
        if name not in self._callers:
            self._callers[name] = self._node.create_client(service, f"/frontend/{name}")
        caller = self._callers[name]
        wait_until(caller.service_is_ready, f"service {name}")
        future = caller.call_async(request)
        wait_until(future.done, f"an answer of {name}")
        return future.result()

    def set(self, **values: object) -> list[tuple[bool, str]]:
        """Sets parameters one after another, in one request as `ros2 param load` does: success and reason of each."""
        request = SetParameters.Request(parameters=_messages(values))
        results = self.call(SetParameters, "set_parameters", request).results
        return [(result.successful, result.reason) for result in results]

    def set_atomically(self, **values: object) -> tuple[bool, str]:
        """Sets all or none of the parameters: success and reason."""
        request = SetParametersAtomically.Request(parameters=_messages(values))
        result = self.call(SetParametersAtomically, "set_parameters_atomically", request).result
        return result.successful, result.reason

    def get(self, name: str) -> object:
        """A parameter's value."""
        request = GetParameters.Request(names=[name])
        return parameter_value_to_python(self.call(GetParameters, "get_parameters", request).values[0])

    def dump(self) -> dict[str, object]:
        """All parameters, as `ros2 param dump` has them."""
        names = list(self.call(ListParameters, "list_parameters", ListParameters.Request()).result.names)
        values = self.call(GetParameters, "get_parameters", GetParameters.Request(names=names)).values
        return dict(zip(names, map(parameter_value_to_python, values), strict=True))

    def describe(self, name: str) -> ParameterDescriptor:
        """What `ros2 param describe` shows."""
        request = DescribeParameters.Request(names=[name])
        return self.call(DescribeParameters, "describe_parameters", request).descriptors[0]

    def change_state(self, transition: str) -> bool:
        """Whether the transition was made."""
        request = ChangeState.Request(transition=Transition(id=_TRANSITIONS[transition]))
        return self.call(ChangeState, "change_state", request).success

    def state(self) -> str:
        """The lifecycle state's name."""
        return self.call(GetState, "get_state", GetState.Request()).current_state.label


def _messages(values: dict[str, object]) -> list[Any]:
    return [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
