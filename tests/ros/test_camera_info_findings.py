"""Findings on a camera's calibration: missing, in use, unusable, changed, no longer sent."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import torch
from sensor_msgs.msg import CameraInfo

from feature_frontend.camera.camera_info_history import CalibrationWatch
from feature_frontend.ros.input.camera_info_findings import CameraInfoFindings
from feature_frontend.runtime.health import Level
from feature_frontend.types import Features

_STOPPED = "though images arrive: the last one stays in force"


class _Camera:
    """Images at 10 Hz, and `camera_info` beside them where asked for, by a clock of its own."""

    def __init__(self, side: str = "") -> None:
        self.watch = CalibrationWatch()
        self.findings = CameraInfoFindings(self.watch, "/camera/camera_info", side)
        self.now_s = 1000.0

    def runs(self, seconds: float, info: CameraInfo | None = None, *, info_s: float = 0.1, images: bool = True) -> None:
        for step in range(round(seconds * 10)):
            self.now_s += 0.1
            if info is not None and step % round(info_s * 10) == 0:
                self.findings.note_info(self.now_s)
                self.watch.take(info)
            if images:
                self.findings.note_image(self.now_s)
                features = Features(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, 1), 480, 640, "x")
                stamp_ns = round(self.now_s * 1e9)
                self.watch.normalize(features, stamp_ns, self.watch.arrived(stamp_ns), rectified=False)

    def found(self) -> dict[str, tuple[Level, str]]:
        return {found.kind: (found.level, found.text) for found in self.findings.findings(self.now_s) if found.text}


def _info(focal_px: float = 500.0, width: int = 640) -> CameraInfo:
    info = CameraInfo(width=width, height=480, distortion_model="plumb_bob", d=[0.1, 0.0, 0.0, 0.0, 0.0])
    info.k = [focal_px, 0.0, 320.0, 0.0, focal_px, 240.0, 0.0, 0.0, 1.0]
    return info


def _in_use(focal_px: float = 500.0) -> str:
    return f"camera_info is in use: fx {focal_px:.4g}, fy {focal_px:.4g}, cx 320, cy 240 px, plumb_bob"


def test_one_that_is_missing_is_reported_after_a_while_as_no_fault() -> None:
    camera = _Camera()
    camera.runs(10, images=False)
    assert camera.found() == {}
    camera.runs(2.5)
    assert camera.found() == {}
    camera.runs(1)
    missing = "no camera_info on /camera/camera_info: normalized_keypoints stay empty"
    assert camera.found() == {"camera_info": (Level.OK, missing)}
    camera.findings.note_info(camera.now_s)
    camera.watch.take(_info())
    assert camera.found() == {}, "it came, and no image has been normalised by it yet"
    camera.runs(0.1)
    assert camera.found() == {"camera_info": (Level.OK, _in_use())}


def test_what_does_not_fit_is_a_fault_and_what_changes_is_reported() -> None:
    camera = _Camera("right")
    camera.runs(5, _info())
    assert camera.found() == {"right camera_info": (Level.OK, f"right camera: {_in_use()}")}
    camera.runs(1, _info(600.0))
    assert camera.found() == {"right camera_info": (Level.OK, f"right camera: {_in_use(600.0)}")}
    for info, text in (
        (_info(width=1280), "right camera: camera_info does not fit: the image is 640x480 px, but"),
        (_info(focal_px=float("nan")), "right camera: camera_info is not used: "),
    ):
        camera.runs(1, info)
        ((kind, (level, told)),) = camera.found().items()
        assert (kind, level) == ("right camera_info", Level.WARN)
        assert told.startswith(text)
        assert len(told) < 300


@pytest.mark.parametrize(("info_s", "patience_s"), [(0.1, 5), (0.5, 5), (1.0, 5), (4.0, 20)])
def test_one_that_came_regularly_and_stops_is_a_fault(info_s: float, patience_s: float) -> None:
    camera = _Camera()
    camera.runs(30, _info(), info_s=info_s)
    last_s = camera.findings._last_info_s
    camera.runs(patience_s - (camera.now_s - last_s) - 0.2)
    assert list(camera.found()) == ["camera_info"]
    # Regular is what comes in different seconds, so that an interval counts as whole ones.
    camera.runs(patience_s + 0.5)
    text = f"no camera_info for {camera.now_s - last_s:.0f} s, {_STOPPED}"
    assert camera.found() == {"camera_info": (Level.OK, _in_use()), "camera_info stopped": (Level.WARN, text)}
    camera.runs(0.1, _info())
    assert camera.found() == {"camera_info": (Level.OK, _in_use())}


def test_one_that_is_latched_or_comes_in_bursts_never_stops() -> None:
    camera = _Camera()
    camera.runs(0.1, _info())
    camera.runs(20)
    assert list(camera.found()) == ["camera_info"]
    for _ in range(3):  # a driver that restarts
        camera.runs(2, _info())
        camera.runs(40)
    assert list(camera.found()) == ["camera_info"]


def test_a_camera_that_is_silent_and_comes_back_is_given_time() -> None:
    camera = _Camera()
    camera.runs(10, _info())
    camera.runs(60, images=False)
    assert list(camera.found()) == ["camera_info"]
    camera.runs(3)
    assert list(camera.found()) == ["camera_info"]
    camera.runs(3)
    assert camera.found()["camera_info stopped"][1] == f"no camera_info for 66 s, {_STOPPED}"
    camera.runs(30, images=False)
    camera.runs(1)
    assert "camera_info stopped" in camera.found(), "it has not come again"
