"""Which calibration an image gets, and the reports when it changes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import torch
from sensor_msgs.msg import CameraInfo

from feature_frontend.camera.camera_info_history import CalibrationWatch
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.types import Features

_S = 1_000_000_000


def _info(stamp_s: float = 0.0, focal_px: float = 500.0, size: tuple[int, int] = (640, 480)) -> CameraInfo:
    info = CameraInfo(width=size[0], height=size[1], distortion_model="plumb_bob", d=[0.0] * 5)
    info.header.stamp = stamp_from_ns(int(stamp_s * _S))
    info.k = [focal_px, 0.0, 320.0, 0.0, focal_px, 240.0, 0.0, 0.0, 1.0]
    return info


def _focal_px(watch: CalibrationWatch, stamp_s: float, size: tuple[int, int] = (640, 480)) -> float | None:
    """The focal length with which an image of that time is normalised."""
    features = Features(torch.tensor([[420.0, 240.0]]), torch.ones(1), torch.ones(1, 1), size[1], size[0], "x")
    normalized = watch.normalize(features, int(stamp_s * _S), watch.arrived(int(stamp_s * _S)), rectified=False)
    return None if normalized is None else round(100.0 / float(normalized[0, 0]), 2)


def test_without_camera_info_the_state_is_reported_once() -> None:
    watch = CalibrationWatch()
    assert _focal_px(watch, 1) is None
    assert watch.news() == "no camera_info has arrived; normalized_keypoints are empty"
    assert _focal_px(watch, 2) is None
    assert watch.news() == ""
    assert watch.state == "no camera_info has arrived"
    assert watch.warning == "", "a camera_info is optional"
    watch.take(_info(2.5))
    assert _focal_px(watch, 3) == 500
    assert watch.news() == "camera_info is in use: normalized_keypoints are filled"
    assert watch.state == "in use"


def test_with_a_calibration_from_the_start_nothing_is_said() -> None:
    watch = CalibrationWatch()
    for stamp_s in range(3):
        watch.take(_info(stamp_s))
        assert _focal_px(watch, stamp_s) == 500
        assert watch.news() == ""


def test_an_image_that_waited_gets_the_calibration_of_its_time() -> None:
    watch = CalibrationWatch()
    for stamp_s, focal_px in ((1, 500.0), (2, 500.0), (3, 600.0), (4, 700.0)):
        watch.take(_info(stamp_s, focal_px))
    assert [_focal_px(watch, stamp_s) for stamp_s in (0.5, 1, 2.9, 3, 3.9, 4, 99)] == [
        500,
        500,
        500,
        600,
        600,
        700,
        700,
    ]
    assert watch.news() == "camera_info has changed: the new calibration is in use"
    assert watch.news() == ""
    # A bag that begins again: what holds is what was received last.
    watch.take(_info(1, 500.0))
    assert [_focal_px(watch, stamp_s) for stamp_s in (1.5, 2.5)] == [500, 500]


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        (CameraInfo(width=640, height=480), "camera_info is not used: the camera is not calibrated"),
        (_info(focal_px=float("nan")), "camera_info is not used: camera_matrix"),
        (
            _info(size=(1280, 960)),
            "camera_info does not fit: the image is 640x480 px, but the calibration is for 1280x960",
        ),
    ],
)
def test_a_calibration_that_cannot_be_used_is_a_state_until_a_good_one_comes(info: CameraInfo, problem: str) -> None:
    watch = CalibrationWatch()
    watch.take(_info())
    assert _focal_px(watch, 1) == 500
    watch.take(info)
    assert _focal_px(watch, 2) is None
    assert watch.news().startswith(problem)
    assert watch.state.startswith(problem)
    assert watch.warning == watch.state
    assert _focal_px(watch, 3) is None
    assert watch.news() == ""
    watch.take(_info())
    assert _focal_px(watch, 4) == 500
    assert watch.news() == "camera_info is in use: normalized_keypoints are filled"


def test_rectified_images_need_a_projection_matrix() -> None:
    watch = CalibrationWatch()
    watch.take(_info())
    features = Features(torch.tensor([[420.0, 240.0]]), torch.ones(1), torch.ones(1, 1), 480, 640, "x")
    assert watch.normalize(features, 0, 0, rectified=True) is None
    assert "projection matrix P" in watch.state
    info = _info()
    info.p = [200.0, 0.0, 300.0, -10.0, 0.0, 200.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    watch.take(info)
    normalized = watch.normalize(features, 0, 0, rectified=True)
    assert normalized is not None
    np.testing.assert_allclose(normalized, [[120 / 200, 0.0]], atol=1e-6)


def test_the_memory_of_changes_is_bounded() -> None:
    watch = CalibrationWatch()
    for index in range(1000):
        watch.take(_info(index, 500.0 + index))
    assert len(watch._history) < 100
    assert _focal_px(watch, 1000) == 1499


def test_a_hostile_name_of_a_model_does_not_fill_the_log() -> None:
    watch = CalibrationWatch()
    info = _info()
    info.distortion_model, info.d = "x" * 1_000_000, [0.1, 0.0, 0.0, 0.0, 0.0]
    watch.take(info)
    assert _focal_px(watch, 1) is None
    assert 0 < len(watch.warning) < 400
