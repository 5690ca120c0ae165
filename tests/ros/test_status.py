"""The account of the frames: what the reason of a processed frame holds."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import torch
from std_msgs.msg import Header

from feature_frontend.calibration import Intrinsics
from feature_frontend.frontend import FrameResult, FrameState, StageTimes
from feature_frontend.ros.status import FrameTimes, StatusBook
from feature_frontend.types import Features, Matches, Tracks


@pytest.mark.parametrize(
    ("reason", "note", "expected"),
    [
        ("", "", ""),
        ("", "camera_info has changed", "camera_info has changed"),
        ("no keypoints", "", "no keypoints"),
        ("no keypoints", "camera_info has changed", "no keypoints; camera_info has changed"),
    ],
)
def test_a_note_on_the_calibration_never_takes_the_place_of_a_reason(reason: str, note: str, expected: str) -> None:
    result = FrameResult(
        state=FrameState.OK,
        reason=reason,
        features=Features.empty(480, 640, "x", 1),
        matches=Matches.empty("mnn"),
        keypoints0=torch.zeros((0, 2)),
        stamp0_ns=None,
        tracks=Tracks.empty(),
        times=StageTimes(1.0, 2.0, 3.0),
    )
    status = StatusBook().processed(Header(), 0.0, result, FrameTimes(4.0, 5.0), Intrinsics(), note)
    assert status.reason == expected
    assert status.frames_processed == 1
