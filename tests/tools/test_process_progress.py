"""Progress output of `process`, on a terminal and elsewhere."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("rosbags", reason="needs rosbags")

from feature_frontend.tools.process import progress
from feature_frontend.tools.process.progress import Progress


def test_lines_now_and_then_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s)
    with Progress(100) as told:
        told.done(50, earlier=True)
        now_s = 60.0  # such as compiling
        for _ in range(24):
            told.done(1)
            now_s += 0.5
        told.say("warning: image 3")
    assert capsys.readouterr().err.splitlines() == [
        "52 of 100 images, 2.0 a second, 24 s left",
        "72 of 100 images, 2.0 a second, 14 s left",
        "warning: image 3",
    ]


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(10) as told:
        told.done(4, earlier=True)
        told.say("warning: image 3")
        assert told._bar is not None
        for _ in range(6):
            told.done(1)
        assert told._bar.n == 10
    printed = capsys.readouterr().err
    assert "40%" in printed
    assert "warning: image 3\n" in printed
