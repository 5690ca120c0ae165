"""Application-level flow control: tracks which published images have been answered.

A DDS acknowledgement means that an image has reached the subscriber's history, not that the subscriber has read it: a
history of depth 10 overwrites what a slow subscriber has not read yet, acknowledged or not (measured: of 100 images of
0.5 MB at full speed into a subscription of depth 10 that needs 20 ms per image, 14 to 20 arrive).
"""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy

from feature_frontend.errors import SourceError
from feature_frontend.ros.qos import qos_profile
from feature_frontend.sources.bags.stamps import header_stamp_ns

__all__ = ["Answers"]

_POLL_S = 0.02


class Answers:
    """Listens to a topic whose type has a header; a message with an image's stamp answers it and all earlier images."""

    def __init__(self, node: Node, topic: str, timeout_s: float) -> None:
        """Waits until the topic has a publisher and subscribes to it.

        Raises:
            SourceError: There is no publisher after `timeout_s` (0: no timeout), or its type cannot be used.
        """
        self._topic = node.resolve_topic_name(topic)
        self._changed = threading.Condition()
        self._expected: list[int] = []
        deadline = time.monotonic() + timeout_s
        while not (publishers := node.get_publishers_info_by_topic(self._topic)):
            if timeout_s and time.monotonic() > deadline:
                raise SourceError(f"nobody publishes topic {self._topic}, to keep in step with, after {timeout_s:g} s")
            time.sleep(_POLL_S)
        reliable = all(p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers)
        profile = qos_profile("reliable" if reliable else "sensor_data", 0)
        node.create_subscription(
            _message_class(publishers[0].topic_type), self._topic, self._receive, profile, raw=True
        )

    def expect(self, stamp_ns: int) -> None:
        """Announces an image that is about to be published."""
        with self._changed:
            self._expected.append(stamp_ns)

    def wait_until_at_most(self, count: int, timeout_s: float) -> None:
        """Waits until no more than `count` images are unanswered.

        Raises:
            SourceError: No answer arrived for `timeout_s` (0: no timeout).
        """
        with self._changed:
            while (before := len(self._expected)) > count:
                answered = self._changed.wait_for(lambda: len(self._expected) < before, timeout_s or None)
                if not answered:
                    raise SourceError(
                        f"no answer on {self._topic} for {timeout_s:g} s, {before} images are unanswered; "
                        "see what the consumer says, or give it longer with --wait-timeout"
                    )

    def _receive(self, message: bytes) -> None:
        stamp_ns = header_stamp_ns(message)
        with self._changed:
            if stamp_ns in self._expected:
                del self._expected[: self._expected.index(stamp_ns) + 1]
                self._changed.notify_all()


def _message_class(type_name: str) -> Any:
    package, _, name = type_name.replace("/msg/", "/").partition("/")
    try:
        message_class = getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise SourceError(
            f"message type {type_name} is not found: source the workspace that {package} is built in (env.sh)"
        ) from error
    fields = list(message_class.get_fields_and_field_types().items())
    if fields[:1] != [("header", "std_msgs/Header")]:
        raise SourceError(f"message type {type_name} does not begin with a header, so it cannot answer images")
    return message_class
