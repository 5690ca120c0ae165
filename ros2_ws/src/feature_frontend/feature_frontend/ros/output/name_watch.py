"""Detects nodes that share a name, so that parameters and services reach any of them."""

from __future__ import annotations

from rclpy.node import Node

from feature_frontend.runtime.health import Finding, Level

__all__ = ["NAME_ADVICE", "NameWatch", "namesakes"]

NAME_ADVICE = "start each with its own `namespace:=NAME` (camera.launch.py), `-r __ns:=/NAME` or `-r __node:=NAME`"
# A node that was killed stays in the graph until its DDS lease ends: 20 s with Fast DDS, 10 s with Cyclone DDS.
_LASTS_S = 25.0
_FEATURES_TYPE = "feature_frontend_msgs/msg/Features"


class NameWatch:
    """Looks for other nodes with the same name. Call it in the executor's thread.

    Args:
        node: The node with this name.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._since_s: float | None = None

    def finding(self, now_s: float) -> Finding:
        """The finding at `now_s` (monotonic clock, s), reported once it outlasts the traces of a killed node."""
        name = self._node.get_fully_qualified_name()
        text = namesakes(self._node, name)
        if not text:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        lasted_s = 0.0 if self._since_s is None else now_s - self._since_s
        shown = f"{text}; {NAME_ADVICE}" if text and lasted_s >= _LASTS_S else ""
        return Finding("name", Level.WARN, shown, f"no other node is named {name} any more", lasted_s)


def namesakes(node: Node, name: str) -> str:
    """The consequences of several nodes being named `name`, in one line; empty if at most one is.

    Args:
        node: Reads the graph.
        name: Including the namespace.
    """
    namespace, _, own = name.rpartition("/")
    namespace = namespace or "/"
    count = node.get_node_names_and_namespaces().count((own, namespace))
    if count < 2:
        return ""
    effect = "parameters and services reach any of them"
    topics = node.get_publisher_names_and_types_by_node(own, namespace)
    for topic in [topic for topic, types in topics if _FEATURES_TYPE in types]:
        ends = node.get_publishers_info_by_topic(topic)
        if [(end.node_name, end.node_namespace) for end in ends].count((own, namespace)) > 1:
            effect = f"their results mix on {topic}, and {effect}"
    return f"{count} nodes are named {name}: {effect}"
