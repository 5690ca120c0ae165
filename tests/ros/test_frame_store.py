"""The store of the latest frames: its limits, and its answer to an unknown stamp."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from std_msgs.msg import Header

from feature_frontend.errors import MatchingError
from feature_frontend.ros.frame_store import FrameStore, StoredFrame
from feature_frontend.ros.output.messages import Origin
from feature_frontend.settings import Settings
from feature_frontend.types import Features

_SECOND_NS = 1_000_000_000


def _frame(count: int = 10) -> StoredFrame:
    features = Features(torch.zeros(count, 2), torch.zeros(count), torch.zeros(count, 123), 480, 640, "test@00000000")
    return StoredFrame(Origin(Header()), features)


def test_the_oldest_go_first() -> None:
    store = FrameStore(Settings(store_frames=3))
    for second in (1, 2, 3, 4, 5):
        store.put(second * _SECOND_NS, _frame())
    assert len(store) == 3
    assert len(store.get(3 * _SECOND_NS).features) == 10
    with pytest.raises(MatchingError) as caught:
        store.get(2 * _SECOND_NS + 5)
    assert str(caught.value).startswith(
        "no frame with stamp 2.000000005 is held; expected one of 3 held frames, the latest of them "
        "3.000000000, 4.000000000, 5.000000000;"
    )
    store.configure(Settings(store_frames=1))
    assert (len(store), len(store.get(5 * _SECOND_NS).features)) == (1, 10)
    store.configure(Settings(store_frames=0))
    store.put(6 * _SECOND_NS, _frame())
    assert len(store) == 0
    with pytest.raises(MatchingError, match=r"none is, either because .* or because store_frames is 0"):
        store.get(6 * _SECOND_NS)


def test_memory_is_bounded_whatever_the_number_of_frames() -> None:
    store = FrameStore(Settings(store_frames=1000, store_mib=1))
    # 128 float32 each: 1 MiB holds 2,048 keypoints.
    for second in range(10):
        store.put(second, _frame(600))
    assert len(store) == 3
    # A view of a larger tensor is copied: the tensor does not stay for it.
    whole = _frame(2000).features
    view = Features(whole.keypoints[:1], whole.scores[:1], whole.descriptors[:1], 480, 640, "test@00000000")
    store.put(20, StoredFrame(Origin(Header()), view))
    assert len(store) == 3
    store.put(21, _frame(3000))
    assert len(store) == 0


def test_of_two_frames_with_one_stamp_the_later_one_stays() -> None:
    store = FrameStore(Settings(store_frames=2))
    for count in (5, 6, 7):
        store.put(1, _frame(count))
    assert (len(store), len(store.get(1).features)) == (1, 7)
    store.put(2, _frame())
    store.clear()
    assert len(store) == 0


def test_what_is_handed_out_stays_when_its_memory_is_used_again() -> None:
    store = FrameStore(Settings(store_frames=2))
    for number in range(1, 8):
        frame = _frame(10 - number % 3)
        for tensor in (frame.features.keypoints, frame.features.scores, frame.features.descriptors):
            tensor.fill_(number)
        store.put(number, frame)
        frame.features.descriptors.fill_(-1)
        if number == 4:
            early = store.get(3).features
    late = store.get(6).features
    assert (len(early), len(late)) == (10, 10)
    for features, number in ((early, 3), (late, 6)):
        for tensor in (features.keypoints, features.scores, features.descriptors):
            assert (tensor == number).all()
