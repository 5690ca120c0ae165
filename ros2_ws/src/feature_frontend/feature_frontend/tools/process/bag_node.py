"""Stands where the node's publishers have their node: what is published is collected, for a bag."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from ament_index_python.packages import get_package_share_directory
from rclpy.serialization import serialize_message
from rosbags.typesys.store import Typestore

from feature_frontend.sources.bags.rosbags_workarounds import deserialize_cdr
from feature_frontend.tools.common.bag_writer import typestore_with

__all__ = ["BagNode"]

# A view for people, drawn only while somebody looks.
_NOT_RECORDED = {"debug_image"}


class BagNode:
    """Makes publishers, as a node does.

    Args:
        namespace: Of the topics, absolute.

    Attributes:
        topics: Type of each topic, by its full name, in the order in which they were made.
    """

    def __init__(self, namespace: str) -> None:
        self.topics: dict[str, str] = {}
        self._namespace = namespace.rstrip("/")
        self._published: list[tuple[str, bytes]] = []

    @cached_property
    def typestore(self) -> Typestore:
        """The definitions of all messages; to be asked for once all publishers are there."""
        return typestore_with(set(self.topics.values()), get_package_share_directory)

    def create_publisher(self, message_type: type, name: str, _qos: object) -> _Publisher:
        """A publisher of `name`."""
        topic = f"{self._namespace}/{name}"
        if name not in _NOT_RECORDED:
            package, kind, *_ = message_type.__module__.split(".")
            self.topics[topic] = f"{package}/{kind}/{message_type.__name__}"
        return _Publisher(self, topic)

    def destroy_publisher(self, _publisher: _Publisher) -> None:
        """Nothing is left of a publisher."""

    def publish(self, topic: str, message: Any) -> None:
        """Collects a message, its times in ms as zero.

        Not as ROS's serializer leaves it: that does not set the bytes between two fields, which then differ from run to
        run. The bag library's sets them to zero.
        """
        type_name = self.topics[topic]
        for field in message.get_fields_and_field_types():
            if field.endswith("_ms"):
                setattr(message, field, 0.0)
        read = deserialize_cdr(self.typestore, serialize_message(message), type_name)
        self._published.append((topic, bytes(self.typestore.serialize_cdr(read, type_name))))

    def take(self) -> list[tuple[str, bytes]]:
        """Topic and content of each message since the last call."""
        taken, self._published = self._published, []
        return taken


class _Publisher:
    def __init__(self, node: BagNode, topic: str) -> None:
        self._node = node
        self._topic = topic

    def publish(self, message: Any) -> None:
        self._node.publish(self._topic, message)

    def get_subscription_count(self) -> int:
        return 0
