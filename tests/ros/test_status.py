"""Frame statuses: the contents of a processed frame's reason."""

from __future__ import annotations

import re
import time

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import torch
from std_msgs.msg import Header

from feature_frontend.camera.calibration import Intrinsics
from feature_frontend.pipeline.process_frame import FrameReport
from feature_frontend.ros.output.frame_status import FrameStatistics, fate
from feature_frontend.types import Features, FrameResult, FrameState, Matches, StageTimes, Tracks


def _report(reason: str, news: str = "") -> FrameReport:
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
    return FrameReport(result, None, Intrinsics(), news, 5.0)


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
    status = FrameStatistics().processed(Header(), 0.0, _report(reason, note), 4.0)
    assert status.reason == expected
    assert status.frames_processed == 1


def test_the_log_has_a_frames_fate_in_a_line() -> None:
    header, book = Header(), FrameStatistics()
    header.stamp.sec, header.stamp.nanosec = 12, 5_000_000
    received_s = time.monotonic()
    processed = fate(book.processed(header, received_s, _report("few keypoints"), 4.0))
    assert re.fullmatch(
        r"image 12\.005000000: OK, 0 keypoints, 0 matches, 0 tracks, \d+\.\d ms: few keypoints", processed
    )
    dropped = fate(book.dropped(header, received_s, "a newer image arrived"))
    assert re.fullmatch(r"image 12\.005000000: DROPPED, \d+\.\d ms: a newer image arrived", dropped)
    assert "ERROR" in fate(book.refused(header, received_s, "damaged"))
