"""Frames that wait for the topic `mask`, in a real node of this process."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from sensor_msgs.msg import Image

from benchmarks.spinning_node import SpinningNode
from feature_frontend.pipeline.masks import TopicMask
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.input.mask_topic import MaskTopic
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.runtime.mask_sync import PairedMask
from tests.ros.harness import wait_until

_RELIABLE = qos_profile("reliable", 0)


def _mask(stamp_ns: int) -> Image:
    return array_to_image(np.ones((4, 4), np.uint8), "mono8", stamp_from_ns(stamp_ns), "camera")


@pytest.mark.parametrize("policy", ["newest", "every_frame"])
def test_a_mask_lets_its_frame_go_and_a_deadline_those_without(policy: str, domain_id: int) -> None:
    released: list[tuple[int, PairedMask[TopicMask]]] = []
    dropped: list[int] = []
    with SpinningNode("masked", domain_id) as spinning:
        node = spinning.node
        publisher = node.create_publisher(Image, "mask", _RELIABLE)

        def release(frame: int, paired: PairedMask[TopicMask]) -> None:
            released.append((frame, paired))

        topic: MaskTopic[int] = MaskTopic(node, policy, _RELIABLE, release, dropped.append, lambda: 1000)
        spinning.start()
        wait_until(lambda: publisher.get_subscription_count() > 0, "the topic to be listened to")
        for frame in (1, 2, 3):
            topic.hold(frame, frame, time.monotonic(), 60_000.0)
        time.sleep(0.1)
        assert released == []
        publisher.publish(_mask(3))
        wait_until(lambda: 3 in [frame for frame, _ in released], "the third frame's mask")
        # Where the newest frame counts, the two that were left out make way for it.
        assert (dropped, [frame for frame, _ in released]) == (([1, 2], [3]) if policy == "newest" else ([], [1, 2, 3]))
        assert released[-1][1].cause == ""

        released.clear()
        for frame in (4, 5):
            topic.hold(frame, frame, time.monotonic(), 200.0)
            time.sleep(0.1)
        wait_until(lambda: len(released) == 2, "the end of both waits")
        assert [(frame, paired.cause) for frame, paired in released] == [
            (frame, "its mask did not come within 200 ms") for frame in (4, 5)
        ]
        topic.hold(6, 6, time.monotonic(), 60_000.0)
        assert topic.close() == [6]
        wait_until(lambda: publisher.get_subscription_count() == 0, "the end of the subscription")
