"""Subscription to camera_info, including the last message of a latched (transient local) publisher."""

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
    """Subscribes to CameraInfo as volatile, and also as transient local while a publisher offers that.

    A volatile subscription misses what was sent before it. A transient-local one gets nothing from a volatile
    publisher, which would log a warning: so it exists only while a publisher is transient local. Both receive what a
    transient-local publisher sends later.

    Args:
        node: The subscriber.
        name: Of the topic before remapping.
        take: Called in the executor's thread with each message and whether it came by the second subscription.
        qos: Name of the profile; for `transient_local`, the first subscription uses only its reliability.
        depth: Of the first subscription.
        raw: Whether to receive messages as bytes.
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
        # Not the node's clock, which stops in a paused simulation.
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
        """Creates or removes the second subscription as transient-local publishers come and go."""
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
                # A volatile publisher on the same topic is no error: the first subscription receives from it.
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            )

    def _end_second(self) -> None:
        if self._second is not None:
            self._node.destroy_subscription(self._second)
            self._second = None
