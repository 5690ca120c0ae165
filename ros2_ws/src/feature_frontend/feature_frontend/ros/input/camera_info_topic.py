"""A topic of camera_info: what its publishers send, and what a latched one has sent before anybody listened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo

from feature_frontend.ros.qos import qos_profile

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

__all__ = ["CameraInfoTopic"]

_PERIOD_S = 0.5
_LATCHED = "transient_local"


class CameraInfoTopic:
    """Subscribes to a topic of CameraInfo, volatile, and a second time, transient local, while a publisher is that.

    A volatile subscription gets nothing of what was sent before it. A transient-local one gets nothing from a volatile
    publisher, whose log would warn of it: so there is none where all publishers are volatile. Both get what a
    transient-local publisher sends from then on.

    Args:
        node: The subscriber.
        name: Of the topic before remapping.
        take: Takes each message, and whether it came by the second subscription, in the executor's thread.
        qos: Name of the profile; of `transient_local`, the first subscription takes the reliability only.
        depth: Of the first subscription.
        raw: Whether messages are taken as bytes.
    """

    def __init__(
        self, node: Node, name: str, take: Callable[[Any, bool], None], qos: str, depth: int, *, raw: bool = False
    ) -> None:
        self._node, self._name, self._take, self._raw = node, name, take, raw
        first = "reliable" if qos == _LATCHED else qos
        self._subscription = node.create_subscription(
            CameraInfo, name, lambda message: take(message, False), qos_profile(first, depth), raw=raw
        )
        self._second: Subscription | None = None
        # Not the node's clock, which stands still with a paused simulation.
        self._timer = node.create_timer(
            _PERIOD_S, self._follow_publishers, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._follow_publishers()

    def close(self) -> None:
        """Ends the subscriptions."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._subscription)
        self._end_second()

    def _follow_publishers(self) -> None:
        """Has the second subscription while a publisher offers what it asks for: they come and go."""
        offers = self._node.get_publishers_info_by_topic(self._subscription.topic_name)
        if not any(offer.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers):
            self._end_second()
        elif self._second is None:
            self._second = self._node.create_subscription(
                CameraInfo,
                self._name,
                lambda message: self._take(message, True),
                qos_profile(_LATCHED, 1),
                raw=self._raw,
                # A volatile publisher beside the other one is no fault: the first subscription serves it.
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            )

    def _end_second(self) -> None:
        if self._second is not None:
            self._node.destroy_subscription(self._second)
            self._second = None
