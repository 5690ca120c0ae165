"""A lifecycle node that survives exceptions in its callbacks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.guard_condition import GuardCondition
from rclpy.lifecycle import LifecycleNode
from rclpy.service import Service
from rclpy.subscription import Subscription
from rclpy.timer import Timer

from feature_frontend.ros.callback_guard import CallbackGuard
from feature_frontend.ros.rclpy_private import destroy_state_machine
from feature_frontend.system.text import quoted, short_text

__all__ = ["GuardedNode"]


class GuardedNode(LifecycleNode):
    """Every callback, including those that rclpy registers itself, goes through `guard`.

    Args:
        name: Of the node.
        options: As in rclpy.

    Attributes:
        guard: Wraps the callbacks.
    """

    def __init__(self, name: str, **options: Any) -> None:
        # rclpy creates the parameter services in its constructor.
        self.guard = CallbackGuard(self)
        super().__init__(name, **options)
        for service in self.services:
            if service.srv_type is ChangeState:
                service.callback = partial(self._on_change_state, service.callback)
            # Lifecycle services do not go through `create_service`.
            if not hasattr(service.callback, "__wrapped__"):
                service.callback = self._around_service(service.srv_name, service.callback)

    def destroy_node(self) -> None:
        """Frees the node's ROS resources."""
        destroy_state_machine(self)
        LifecycleNode.destroy_node(self)

    def create_subscription(
        self,
        msg_type: Any,
        topic: str,
        callback: Callable[..., None],
        qos_profile: Any,
        *,
        answer: Callable[[str, Any], None] | None = None,
        **options: Any,
    ) -> Subscription:
        """As in rclpy.

        Args:
            msg_type: As in rclpy.
            topic: As in rclpy.
            callback: As in rclpy.
            qos_profile: As in rclpy.
            answer: Receives the reason and the message if the callback raises.
            options: As in rclpy.
        """
        guarded = self.guard.around(f"the callback of topic {topic}", callback, answer)
        return super().create_subscription(msg_type, topic, guarded, qos_profile, **options)

    def create_service(self, srv_type: Any, srv_name: str, callback: Callable[..., Any], **options: Any) -> Service:
        """As in rclpy; if the callback raises, the response reports it as far as its fields allow."""
        return super().create_service(srv_type, srv_name, self._around_service(srv_name, callback), **options)

    def create_timer(self, timer_period_sec: float, callback: Callable[[], None], *args: Any, **options: Any) -> Timer:
        """As rclpy's."""
        guarded = self.guard.around(f"timer {_name_of(callback)}", callback)
        return super().create_timer(timer_period_sec, guarded, *args, **options)

    def create_guard_condition(self, callback: Callable[[], None], *args: Any, **options: Any) -> GuardCondition:
        """As rclpy's."""
        guarded = self.guard.around(f"guard condition {_name_of(callback)}", callback)
        return super().create_guard_condition(guarded, *args, **options)

    def add_on_set_parameters_callback(self, callback: Callable[..., SetParametersResult]) -> None:
        """As in rclpy; if the callback raises, the change is refused with the reason."""
        super().add_on_set_parameters_callback(self.guard.around("the check of parameters", callback, _refusal))

    def _around_service(self, name: str, callback: Callable[..., Any]) -> Callable[..., Any]:
        return self.guard.around(f"service {name}", callback, _failed_response)

    def _on_change_state(self, change_state: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
        """Refuses a transition that is invalid in the current state; rclpy would end the process."""
        try:
            return change_state(request, response)
        except Exception as error:
            # The class of this error is not public.
            wanted = quoted(request.transition.label) if request.transition.label else request.transition.id
            reason = short_text(error).partition("\n")[0]
            self.get_logger().error(
                f"transition {wanted} refused, see `ros2 lifecycle list {self.get_name()}`: {reason}",
                throttle_duration_sec=1.0,
            )
            response.success = False
            return response


def _failed_response(reason: str, request: Any, response: Any) -> Any:
    """The response of a service whose callback raised."""
    refusal = _refusal(reason)
    if hasattr(response, "results"):
        # set_parameters: the parameters before the failing one are set.
        missing = len(request.parameters) - len(response.results)
        response.results.extend([refusal] * missing)
    elif isinstance(getattr(response, "result", None), SetParametersResult):
        response.result = refusal
    for name in ("ok", "success"):
        if hasattr(response, name):
            setattr(response, name, False)
    if hasattr(response, "reason"):
        response.reason = reason
    return response


def _refusal(reason: str, _changes: Any = None) -> SetParametersResult:
    return SetParametersResult(successful=False, reason=f"the change could not be checked: {reason}")


def _name_of(callback: Any) -> str:
    return str(getattr(callback, "__name__", type(callback).__name__)).strip("_")
