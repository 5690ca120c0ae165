"""`process` with CameraInfo messages of drivers, and with calibration files of other programs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

from rosbags.highlevel import AnyReader

from feature_frontend.tools.process import main
from tests.tools.offline import SECOND, camera_info, image, moving, write_bag

_D = (-0.0306, 0.0352, -0.000138, -0.000146, -0.01204)
_OPTIONS = ("--extractor", "sift", "--max-num-keypoints", "50", "--overwrite")


def _bag(path: Path, photographs: list[npt.NDArray[np.uint8]], **changes: Any) -> Path:
    contents: list[tuple[str, int, Any]] = []
    for index in range(2):
        stamp_ns = (index + 1) * SECOND
        contents.append(("/camera/image_raw", stamp_ns, image(stamp_ns, moving(photographs, index), "rgb8")))
        contents.append(("/camera/camera_info", stamp_ns, replace(camera_info(stamp_ns, 120.0), **changes)))
    return write_bag(path, contents)


def _features(bag: Path) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Keypoints and normalised keypoints of each image, (N, 2)."""
    with AnyReader([bag]) as reader:
        connections = [c for c in reader.connections if c.topic == "/features"]
        found = [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages(connections=connections)]
    return [(m.keypoints.reshape(-1, 2), m.normalized_keypoints.reshape(-1, 2)) for m in found]


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        ("plumb_bob", (*_D, 0, 0, 0)),  # Orbbec
        ("rational_polynomial", _D),
        ("rational_polynomial", (*_D, 0.1, 0.01, 0.001, 0, 0, 0, 0)),  # Isaac Sim
        ("rational_polynomial", (*_D, 0.1, 0.01, 0.001, 0.002, 0.001, -0.002, 0.001, 0.01, 0.02)),
        ("radtan", _D[:4]),
        ("Plumb Bob", _D),
        ("", _D),
        ("", (0,) * 5),
        ("none", ()),
        ("Kannala Brandt4", (-0.0076, 0.0437, -0.0411, 0.0077, 0)),  # RealSense T265
    ],
)
def test_what_drivers_send_gives_opencvs_rays(
    tmp_path: Path,
    photographs: list[npt.NDArray[np.uint8]],
    capsys: pytest.CaptureFixture[str],
    model: str,
    coefficients: tuple[float, ...],
) -> None:
    bag = _bag(tmp_path / "bag", photographs, distortion_model=model, d=np.array(coefficients, float))
    assert main([str(bag), "-o", str(tmp_path / "out"), *_OPTIONS]) == 0
    assert "warning" not in capsys.readouterr().err
    matrix = np.array([[120.0, 0, 64], [0, 120, 48], [0, 0, 1]])
    for keypoints, normalized in _features(tmp_path / "out"):
        assert len(keypoints) == len(normalized) > 5
        points = keypoints.astype(np.float64)[:, None]
        if model.startswith("Kannala"):
            expected = cv2.fisheye.undistortPoints(points, matrix, np.array(coefficients[:4]))
        else:
            given = np.array(coefficients if any(coefficients) else (0.0,) * 4, float)
            given = given[:5] if len(given) == 8 and not given[5:].any() else given
            expected = cv2.undistortPoints(points, matrix, given)
        # OpenCV's own iterations end early: test_camera_models.py compares exactly.
        np.testing.assert_allclose(normalized, expected[:, 0], atol=2e-3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"distortion_model": "double_sphere"}, r"'double_sphere' .*\(0.1, -0.05, 0.001, 0, 0\)"),
        ({"k": np.zeros(9)}, "K is 0"),
        ({"k": np.zeros(9), "width": 0, "height": 0}, "K is 0"),
        ({"width": 640}, "128x96 px.* 640x96 px"),
    ],
)
def test_what_cannot_be_used_is_said_once_and_no_image_is_lost(
    tmp_path: Path,
    photographs: list[npt.NDArray[np.uint8]],
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    expected: str,
) -> None:
    bag = _bag(tmp_path / "bag", photographs, **changes)
    assert main([str(bag), "-o", str(tmp_path / "out"), *_OPTIONS]) == 0
    written = capsys.readouterr().err
    assert written.count("warning") == 1
    assert re.search(expected, written)
    assert written.count("normalized_keypoints are empty") == 1
    assert [len(normalized) for _, normalized in _features(tmp_path / "out")] == [0, 0]


def test_a_driver_that_publishes_only_p_beside_rectified_images(
    tmp_path: Path, photographs: list[npt.NDArray[np.uint8]], capsys: pytest.CaptureFixture[str]
) -> None:
    projection = np.array([100.0, 0, 64, 0, 0, 100, 48, 0, 0, 0, 1, 0])
    bag = _bag(tmp_path / "bag", photographs, k=np.zeros(9), p=projection)
    assert main([str(bag), "-o", str(tmp_path / "out"), *_OPTIONS, "--rectified", "true"]) == 0
    assert "warning" not in capsys.readouterr().err
    for keypoints, normalized in _features(tmp_path / "out"):
        np.testing.assert_allclose(normalized, (keypoints - [64, 48]) / 100, atol=1e-5)
    assert main([str(bag), "-o", str(tmp_path / "out"), *_OPTIONS]) == 0
    assert re.search("K is 0.* P .*rectified", capsys.readouterr().err)


def test_a_file_of_another_program_is_a_calibration_for_all_images(
    tmp_path: Path, photographs: list[npt.NDArray[np.uint8]], capsys: pytest.CaptureFixture[str]
) -> None:
    bag = _bag(tmp_path / "bag", photographs)
    (tmp_path / "camchain.yaml").write_text(
        "cam0:\n  camera_model: pinhole\n  intrinsics: [100.0, 100.0, 64.0, 48.0]\n  distortion_model: none\n"
        "  distortion_coeffs: []\n  resolution: [128, 96]\n  rostopic: /cam0/image_raw\n"
    )
    file = str(tmp_path / "camchain.yaml")
    assert main([str(bag), "-o", str(tmp_path / "out"), *_OPTIONS, "--camera-info", file]) == 0
    for keypoints, normalized in _features(tmp_path / "out"):
        np.testing.assert_allclose(normalized, (keypoints - [64, 48]) / 100, atol=1e-5)
    with (tmp_path / "camchain.yaml").open("a") as chain:
        chain.write(
            "cam1:\n  camera_model: pinhole\n  intrinsics: [200.0, 200.0, 64.0, 48.0]\n  resolution: [128, 96]\n"
            "  distortion_model: none\n  distortion_coeffs: []\n"
        )
    second = [str(bag), "-o", str(tmp_path / "second"), *_OPTIONS]
    assert main([*second, "--camera-info", f"{file}#cam1"]) == 0
    for keypoints, normalized in _features(tmp_path / "second"):
        np.testing.assert_allclose(normalized, (keypoints - [64, 48]) / 200, atol=1e-5)
    (tmp_path / "camchain.yaml").write_text("frontend:\n  ros__parameters:\n    border: 5\n")
    assert main([str(bag), "-o", str(tmp_path / "out"), *_OPTIONS, "--camera-info", file]) == 1
    assert re.search("camchain.yaml: .*--params-file", capsys.readouterr().err)
