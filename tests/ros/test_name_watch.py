"""Nodes with the same name: detected by the node itself, but not after a mere kill and restart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend_msgs.msg import Features

from benchmarks.spinning_node import SpinningNode
from feature_frontend.ros.output.name_watch import NAME_ADVICE, NameWatch, namesakes
from tests.ros.harness import wait_until

_REACH = "parameters and services reach any of them"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as nodes:
        yield nodes


def _start(stack: ExitStack, name: str, domain_id: int) -> SpinningNode:
    node = stack.enter_context(SpinningNode(name, domain_id))
    node.start()
    return node


def test_a_namesake_is_reported_once_it_has_outlived_a_killed_node(stack: ExitStack, domain_id: int) -> None:
    own, _ = _start(stack, "frontend", domain_id), _start(stack, "camera", domain_id)
    watch = NameWatch(own.node)
    assert watch.finding(0.0).text == ""
    with SpinningNode("frontend", domain_id) as other:
        other.start()
        wait_until(lambda: namesakes(own.node, "/frontend") != "", "the namesake")
        assert [watch.finding(now_s).text for now_s in (100.0, 110.0, 124.9)] == ["", "", ""]
        assert watch.finding(125.0).text == f"2 nodes are named /frontend: {_REACH}; {NAME_ADVICE}"
    wait_until(lambda: namesakes(own.node, "/frontend") == "", "its end")
    ended = watch.finding(130.0)
    assert (ended.text, ended.over) == ("", "no other node is named /frontend any more")
    third = _start(stack, "frontend", domain_id)
    wait_until(lambda: namesakes(own.node, "/frontend") != "", "the next namesake")
    assert watch.finding(140.0).text == "", "its time counts from its own beginning"

    for node in (own.node, third.node):
        node.create_publisher(Features, "features", 1)
    mixed = f"2 nodes are named /frontend: their results mix on /features, and {_REACH}"
    wait_until(lambda: namesakes(own.node, "/frontend") == mixed, "both publishers")
    assert watch.finding(165.0).text == f"{mixed}; {NAME_ADVICE}"
    assert namesakes(own.node, "/camera") == namesakes(own.node, "/nobody") == ""
