"""The RViz and Foxglove files: well-formed, and using topics that the node has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.conftest import REPOSITORY

_CONFIG = REPOSITORY / "config"
_TOPICS = dict(
    re.findall(
        r"^\| `(/?\w+|~/[\w/]+)` \| `(\w+/\w+)` \|",
        (REPOSITORY / "docs" / "topics.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
)
_STATUS_FIELDS = (REPOSITORY / "ros2_ws" / "src" / "feature_frontend_msgs" / "msg" / "FrameStatus.msg").read_text(
    encoding="utf-8"
)


def _absolute(topic: str) -> str:
    return topic if topic.startswith("/") else f"/{topic.replace('~', 'frontend')}"


def _kind(topic: str) -> str:
    kinds = {_absolute(name): kind for name, kind in _TOPICS.items()}
    assert topic in kinds, f"{topic} is none of the topics in docs/topics.md: {', '.join(kinds)}"
    return kinds[topic]


def test_rviz_shows_image_topics_of_the_node() -> None:
    document = yaml.safe_load((_CONFIG / "frontend.rviz").read_text())
    manager = document["Visualization Manager"]
    assert {panel["Class"].split("/")[0] for panel in document["Panels"]} == {"rviz_common"}
    shown = {display["Topic"]["Value"]: display for display in manager["Displays"]}
    assert set(shown) == {"/debug_image", "/image"}
    for topic, display in shown.items():
        assert _kind(topic) == "sensor_msgs/Image"
        assert display["Class"] == "rviz_default_plugins/Image"
        assert display["Enabled"] is display["Value"]
        assert set(display["Topic"]) == {
            "Depth",
            "Durability Policy",
            "History Policy",
            "Reliability Policy",
            "Value",
        }
    assert shown["/debug_image"]["Enabled"]
    # A camera's best effort never reaches a reliable subscriber.
    assert shown["/image"]["Topic"]["Reliability Policy"] == "Best Effort"


def _panels(layout: Any) -> Iterator[str]:
    if isinstance(layout, str):
        yield layout
        return
    assert layout["direction"] in {"row", "column"}
    assert 0 < layout["splitPercentage"] < 100
    for side in ("first", "second"):
        yield from _panels(layout[side])


def test_foxglove_shows_topics_and_fields_of_the_node() -> None:
    document = json.loads((_CONFIG / "foxglove.json").read_text())
    assert set(document) == {"configById", "globalVariables", "userNodes", "playbackConfig", "layout"}
    panels = document["configById"]
    assert sorted(_panels(document["layout"])) == sorted(panels)
    image = panels["Image!tracks"]["imageMode"]
    assert (image["imageTopic"], _kind(image["imageTopic"])) == ("/image", "sensor_msgs/Image")
    assert image["synchronize"] is True, "tracks are shown on their own image, not on a later one"
    ((topic, settings),) = image["annotations"].items()
    assert (_kind(topic), settings) == ("visualization_msgs/ImageMarker", {"visible": True})
    assert _kind(panels["DiagnosticSummary!health"]["topicToRender"]) == "diagnostic_msgs/DiagnosticArray"
    paths = [entry["value"] for panel in panels.values() for entry in panel.get("paths", [])]
    assert len(paths) == 6
    for path in paths:
        topic, field = path.split(".")
        assert _kind(topic) == "feature_frontend_msgs/FrameStatus"
        assert re.search(rf"^(uint8|uint32|float32) {field}\b", _STATUS_FIELDS, re.MULTILINE), path
