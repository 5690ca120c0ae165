"""Calibration files of ROS, OpenCV, Kalibr, EuRoC, KITTI, ORB-SLAM, VINS and COLMAP; others are identified."""

from __future__ import annotations

import logging
import random
import re
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from feature_frontend.camera.calibration import CameraCalibration, normalize_points, undistorted_rays
from feature_frontend.camera.calibration_file import read_calibration_file
from feature_frontend.errors import CalibrationError
from feature_frontend.system.yaml_text import MAX_BYTES

_MATRIX = (458.654, 0.0, 367.215, 0.0, 457.296, 248.375, 0.0, 0.0, 1.0)
_RADTAN = (-0.28340811, 0.07395907, 0.00019359, 0.0000176)

_KALIBR = """\
cam0:
  cam_overlaps: [1]
  camera_model: pinhole
  distortion_coeffs: [-0.28340811, 0.07395907, 0.00019359, 1.76e-05]
  distortion_model: radtan
  intrinsics: [458.654, 457.296, 367.215, 248.375]
  resolution: [752, 480]
  rostopic: /cam0/image_raw
cam1:
  T_cn_cnm1:
  - [1.0, 0.0, 0.0, -0.11]
  - [0.0, 1.0, 0.0, 0.0]
  - [0.0, 0.0, 1.0, 0.0]
  - [0.0, 0.0, 0.0, 1.0]
  camera_model: pinhole
  distortion_coeffs: [-0.013, 0.0008, -0.002, 0.0004]
  distortion_model: equidistant
  intrinsics: [400.0, 401.0, 370.0, 250.0]
  resolution: !!python/tuple [752, 480]
  rostopic: /cam1/image_raw
"""
_OPENCV = """\
%YAML:1.0
---
calibration_time: "Mon Oct 27 20:27:45 2014"
image_width: 752
image_height: 480
flags: 0
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 4.58654e+02, 0., 3.67215e+02, 0., 4.57296e+02, 2.48375e+02, 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ -2.8340811e-01, 7.395907e-02, 1.9359e-04, 1.76e-05, 0. ]
avg_reprojection_error: 4.4247810453160386e-01
"""
_EUROC = """\
sensor_type: camera
T_BS:
  cols: 4
  rows: 4
  data: [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
rate_hz: 20
resolution: [752, 480]
camera_model: pinhole
intrinsics: [458.654, 457.296, 367.215, 248.375] #fu, fv, cu, cv
distortion_model: radial-tangential
distortion_coefficients: [-0.28340811, 0.07395907, 0.00019359, 1.76e-05]
"""
_ORB_SLAM = """\
%YAML:1.0
#--------------------------------------------------------------------------------------------
Camera.type: "PinHole"
Camera.fx: 458.654
Camera.fy: 457.296
Camera.cx: 367.215
Camera.cy: 248.375
Camera.k1: -0.28340811
Camera.k2: 0.07395907
Camera.p1: 0.00019359
Camera.p2: 1.76e-05
Camera.width: 752
Camera.height: 480
Camera.fps: 20.0
"""
_VINS = """\
%YAML:1.0
---
model_type: PINHOLE
camera_name: camera
image_width: 752
image_height: 480
distortion_parameters:
   k1: -0.28340811
   k2: 0.07395907
   p1: 0.00019359
   p2: 1.76e-05
projection_parameters:
   fx: 458.654
   fy: 457.296
   cx: 367.215
   cy: 248.375
"""
_ECHO = """\
header:
  stamp:
    sec: 1
    nanosec: 0
  frame_id: camera
height: 480
width: 752
distortion_model: plumb_bob
d:
- -0.28340811
- 0.07395907
- 0.00019359
- 1.76e-05
- 0.0
k: [458.654, 0.0, 367.215, 0.0, 457.296, 248.375, 0.0, 0.0, 1.0]
r: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
p: [458.654, 0.0, 367.215, 0.0, 0.0, 457.296, 248.375, 0.0, 0.0, 0.0, 1.0, 0.0]
binning_x: 0
---
"""
_COLMAP = """\
# Camera list with one line of data per camera:
#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]
# Number of cameras: 1
1 OPENCV 752 480 458.654 457.296 367.715 248.875 -0.28340811 0.07395907 0.00019359 0.0000176
"""
_USERS_JSON = (
    '{"image_width": 752, "image_height": 480, "K": [[458.654, 0, 367.215], [0, 457.296, 248.375], [0, 0, 1]], '
    '"dist_coeffs": [[-0.28340811, 0.07395907, 0.00019359, 1.76e-05, 0.0]]}'
)
CALIBRATIONS = {
    "kalibr": _KALIBR.partition("cam1:")[0],
    "opencv": _OPENCV,
    "opencv, older sample": _OPENCV.replace("image_width", "image_Width").replace("camera_matrix", "Camera_Matrix"),
    "euroc": _EUROC,
    "orb-slam": _ORB_SLAM,
    "orb-slam3": _ORB_SLAM.replace("Camera.f", "Camera1.f")
    .replace("Camera.c", "Camera1.c")
    .replace("Camera.k", "Camera1.k")
    .replace("Camera.p", "Camera1.p"),
    "vins": _VINS,
    "ros2 topic echo": _ECHO,
    "rostopic echo": _ECHO.replace("\nd:", "\nD:").replace("\nk:", "\nK:").replace("\np:", "\nP:"),
    "colmap": _COLMAP,
    "json": _USERS_JSON,
}


def _read(folder: Path, text: str | bytes, name: str = "camera.yaml", camera: str = "") -> CameraCalibration:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_calibration_file(path.with_name(f"{name}#{camera}") if camera else path)


@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_the_same_camera_in_every_format(kind: str, tmp_path: Path) -> None:
    calibration = _read(tmp_path, CALIBRATIONS[kind])
    assert (calibration.width, calibration.height) == (752, 480)
    np.testing.assert_allclose(calibration.camera_matrix, _MATRIX)
    assert calibration.distortion_model == "plumb_bob"
    np.testing.assert_allclose(calibration.distortion_coefficients, (*_RADTAN, 0.0))


def test_what_opencv_itself_writes_is_read(tmp_path: Path) -> None:
    coefficients = np.array([0.4453, -2.5197, 0.00088, -0.00017, 1.4609, 0.3234, -2.3481, 1.3904])
    for fisheye, values in ((0, coefficients), (1, coefficients[:4] / 100)):
        path = tmp_path / f"{fisheye}.yml"
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
        storage.write("image_width", 752)
        storage.write("image_height", 480)
        storage.write("fisheye_model", fisheye)
        storage.write("camera_matrix", np.reshape(_MATRIX, (3, 3)))
        storage.write("distortion_coefficients", values[None])
        storage.release()
        calibration = read_calibration_file(path)
        assert calibration.camera_matrix == _MATRIX
        assert calibration.distortion_model == ("equidistant" if fisheye else "rational_polynomial")
        np.testing.assert_allclose(calibration.distortion_coefficients, values)


def test_one_camera_of_several_can_be_chosen_and_else_the_first_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        first = _read(tmp_path, _KALIBR)
    assert (first.camera_name, first.distortion_model) == ("cam0", "plumb_bob")
    assert re.search("cam0, cam1: cam0 .*FILE#cam1", caplog.text)
    caplog.clear()
    second = _read(tmp_path, _KALIBR, camera="cam1")
    assert (second.camera_name, second.distortion_model) == ("cam1", "equidistant")
    assert (second.width, second.height) == (752, 480)
    assert caplog.text == ""
    with pytest.raises(CalibrationError, match=r"Kalibr .* cam0, cam1;.* 'cam2'"):
        _read(tmp_path, _KALIBR, camera="cam2")
    two = f"{_COLMAP}2 SIMPLE_RADIAL 640 480 500 320 240 0.1\n"
    assert _read(tmp_path, two, "cameras.txt", "2").distortion_coefficients == (0.1, 0, 0, 0, 0)
    with pytest.raises(CalibrationError, match=r"COLMAP .*'3'"):
        _read(tmp_path, two, "cameras.txt", "3")
    with pytest.raises(CalibrationError, match=r"one camera.* 'cam1'"):
        _read(tmp_path, _EUROC, camera="cam1")
    (tmp_path / "a#b.yaml").write_text(_EUROC)
    assert read_calibration_file(tmp_path / "a#b.yaml").width == 752


def test_fisheyes_of_kalibr_orb_slam_vins_and_colmap_are_opencvs(tmp_path: Path) -> None:
    coefficients = (-0.013, 0.0008, -0.002, 0.0004)
    orb_slam = _ORB_SLAM.replace("PinHole", "KannalaBrandt8").partition("Camera.k1")[0] + "".join(
        f"Camera.k{i}: {value}\n" for i, value in enumerate(coefficients, 1)
    )
    vins = "model_type: KANNALA_BRANDT\nimage_width: 752\nimage_height: 480\nprojection_parameters:\n" + "".join(
        f"   {name}: {value}\n"
        for name, value in zip(
            ("k2", "k3", "k4", "k5", "mu", "mv", "u0", "v0"),
            (*coefficients, 458.654, 457.296, 367.215, 248.375),
            strict=True,
        )
    )
    texts = (
        CALIBRATIONS["kalibr"]
        .replace("radtan", "equi")
        .replace("[-0.28340811, 0.07395907, 0.00019359, 1.76e-05]", str(list(coefficients))),
        f"{orb_slam}Camera.width: 752\nCamera.height: 480\n",
        vins,
        "1 OPENCV_FISHEYE 752 480 458.654 457.296 367.715 248.875 -0.013 0.0008 -0.002 0.0004",
    )
    points = np.random.default_rng(0).uniform((0, 0), (752, 480), (50, 2))
    expected = cv2.fisheye.undistortPoints(points[:, None], np.reshape(_MATRIX, (3, 3)), np.array(coefficients))
    for text in texts:
        calibration = _read(tmp_path, text)
        assert calibration.distortion_model == "equidistant"
        np.testing.assert_allclose(normalize_points(calibration, points), expected[:, 0], atol=1e-4)


_FOCAL, _CENTRE = (458.654, 457.296), (367.215, 248.375)
_RADIAL_TANGENTIAL = (-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05)
_FISHEYE = (-0.013, 0.0008, -0.002, 0.0004)


def _rows(rows: int, cols: int, values: object) -> str:
    return f"{{rows: {rows}, cols: {cols}, data: {list(values)}}}"  # type: ignore[call-overload]


def _in_every_format(folder: Path, lens: tuple[float, ...], *, fisheye: bool) -> dict[str, Path]:
    """One camera as each tool writes it."""
    (fx, fy), (cx, cy) = _FOCAL, _CENTRE
    matrix = (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0)
    numbers = " ".join(map(repr, (fx, fy, cx + 0.5, cy + 0.5, *lens)))
    common = f"camera_model: pinhole, intrinsics: [{fx}, {fy}, {cx}, {cy}], resolution: [752, 480]"
    texts = {
        "Kalibr.yaml": f"cam0: {{{common}, distortion_model: {'equidistant' if fisheye else 'radtan'}, "
        f"distortion_coeffs: {list(lens)}}}\n",
        "EuRoC.yaml": f"T_BS: {_rows(4, 4, np.eye(4).ravel().tolist())}\n"
        + common.replace(", ", "\n", 1).replace(", resolution", "\nresolution")
        + f"\ndistortion_model: {'equidistant' if fisheye else 'radial-tangential'}\n"
        f"distortion_coefficients: {list(lens)}\n",
        "COLMAP.txt": f"# cameras\n1 {'OPENCV_FISHEYE' if fisheye else 'OPENCV'} 752 480 {numbers}\n",
        "ROS.yaml": f"image_width: 752\nimage_height: 480\ncamera_matrix: {_rows(3, 3, matrix)}\n"
        f"distortion_model: {'equidistant' if fisheye else 'plumb_bob'}\n"
        f"distortion_coefficients: {_rows(1, len(lens), lens)}\n",
    }
    if not fisheye:  # KITTI has none
        texts["KITTI.txt#K_02"] = (
            f"calib_time: 09-Jan-2012\nS_02: 752 480\nK_02: {' '.join(map(repr, matrix))}\n"
            f"D_02: {' '.join(map(repr, (*lens, 0.0)))}\nS_rect_02: 700 400\n"
            "P_rect_02: 7e2 0 6e2 4.4e1 0 7e2 1.8e2 2e-1 0 0 1 2.7e-3\n"
        )
    for name, text in texts.items():
        (folder / name.partition("#")[0]).write_text(text)
    storage = cv2.FileStorage(str(folder / "OpenCV.yml"), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 752)
    storage.write("image_height", 480)
    storage.write("fisheye_model", int(fisheye))
    storage.write("camera_matrix", np.reshape(matrix, (3, 3)))
    storage.write("distortion_coefficients", np.array([lens]))
    storage.release()
    return {name: folder / name for name in (*texts, "OpenCV.yml")}


@pytest.mark.parametrize("fisheye", [False, True])
def test_the_same_camera_has_the_same_rays_in_every_format(fisheye: bool, tmp_path: Path) -> None:
    lens = _FISHEYE if fisheye else _RADIAL_TANGENTIAL
    points = np.random.default_rng(0).uniform((0, 0), (751, 479), (500, 2))
    matrix, coefficients = np.array([[_FOCAL[0], 0, _CENTRE[0]], [0, _FOCAL[1], _CENTRE[1]], [0, 0, 1]]), np.array(lens)
    for name, path in _in_every_format(tmp_path, lens, fisheye=fisheye).items():
        rays = undistorted_rays(read_calibration_file(path), points, rectified=False)
        back = np.column_stack([rays, np.ones(len(rays))])[:, None]
        nothing = np.zeros(3)
        if fisheye:
            again = cv2.fisheye.projectPoints(back, nothing, nothing, matrix, coefficients)[0]
        else:
            again = cv2.projectPoints(back, nothing, nothing, matrix, coefficients)[0]
        # In normalised units, as an independent program projects them.
        assert np.abs((again.reshape(-1, 2) - points) / _FOCAL).max() < 1e-6, name


def test_rectified_cameras_of_kitti(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    projections = {
        f"P{number}": f"718.856 0 607.1928 {-386.1448 * number} 0 718.856 185.2157 0 0 0 1 0" for number in (0, 1)
    }
    file = tmp_path / "calib.txt"
    file.write_text(
        "".join(f"{name}: {values}\n" for name, values in projections.items()) + "Tr: 1 0 0 0 0 1 0 0 0 0 1 0\n"
    )
    for folder in ("image_0", "image_1"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(b"no image")
        (tmp_path / folder / "b.pgm").write_bytes(b"P5 1241 376 255\n" + bytes(1241 * 376))
    right = read_calibration_file(tmp_path / "calib.txt#P1")
    assert (right.image_size, right.camera_name) == ((376, 1241), "image_1")
    assert right.projection_matrix[3] == -386.1448
    np.testing.assert_allclose(
        undistorted_rays(right, np.array([[607.1928, 904.0717]]), rectified=False), [[0.0, 1.0]], atol=1e-9
    )
    assert caplog.text == ""
    assert read_calibration_file(file).camera_name == "image_0"
    assert "holds P0, P1: P0 is taken; FILE#P1, for example, takes another" in caplog.text
    with pytest.raises(CalibrationError, match="KITTI with P0, P1; it has no 'P2'"):
        read_calibration_file(tmp_path / "calib.txt#P2")
    raw = _in_every_format(tmp_path, _RADIAL_TANGENTIAL, fisheye=False)["KITTI.txt#K_02"].with_name("KITTI.txt")
    assert read_calibration_file(raw).image_size == (400, 700)


def test_fisheyes_of_colmap_with_fewer_coefficients(tmp_path: Path) -> None:
    for model, count in (("SIMPLE_RADIAL_FISHEYE", 1), ("RADIAL_FISHEYE", 2)):
        lens = _FISHEYE[:count]
        calibration = _read(tmp_path, f"1 {model} 752 480 458.0 367.715 248.875 {' '.join(map(str, lens))}\n")
        assert calibration.distortion_model == "equidistant"
        assert calibration.distortion_coefficients == (*lens, 0.0, 0.0, 0.0)[:4]


_WITHOUT_SIZE = _ORB_SLAM.replace("Camera.width: 752\n", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            CALIBRATIONS["kalibr"].replace("  resolution: [752, 480]\n", ""),
            "Kalibr .*resolution is missing.* .width, height. in px",
        ),
        (
            CALIBRATIONS["kalibr"].replace("model: pinhole", "model: omni"),
            "Kalibr .*camera_model 'omni'.* pinhole",
        ),
        (
            CALIBRATIONS["kalibr"].replace("radtan", "fov"),
            "'fov' with 4 .*ATAN",
        ),
        (CALIBRATIONS["kalibr"].replace("[458.654, 457", "[457"), "intrinsics .*3.*4"),
        (_OPENCV.replace("image_width: 752\n", ""), "ROS or OpenCV.* image_width is missing"),
        (_WITHOUT_SIZE, "ORB-SLAM.* Camera.width is missing"),
        (_ORB_SLAM.replace("fx: 458.654", "fx: wide"), "Camera.fx of .*ORB-SLAM is 'wide'"),
        (_VINS.replace("PINHOLE", "MEI"), "VINS .* model_type 'MEI'.* PINHOLE or KANNALA_BRANDT"),
        (_COLMAP.replace("OPENCV", "FOV"), "cameras.txt of COLMAP .*FOV.* SIMPLE_PINHOLE"),
        (_COLMAP.replace("458.654", "x"), "cameras.txt of COLMAP; camera 1 .*'x'"),
        (_COLMAP.replace("752 480", "-752 480"), "expected above 0|at least 1x1"),
        (_COLMAP.replace("752 480", "752.5 480"), "cameras.txt of COLMAP; camera 1 .*'752.5'.* width, height"),
        (_COLMAP.partition("752")[0], "cameras.txt of COLMAP; camera 1 holds .*; expected width, height"),
        (_COLMAP + _COLMAP, "cameras.txt of COLMAP with two lines for one camera"),
        ("1 SIMPLE_RADIAL 640 480 500 320 240\n", "SIMPLE_RADIAL of camera 1 has 3 parameters; expected 4"),
        ("1 RADIAL 640 480 500 320 240 0.1 0.2 0.3\n", "RADIAL of camera 1 has 6 parameters; expected 5"),
        ("1 PINHOLE 640 480 500 500 320 240 0.1\n", "PINHOLE of camera 1 has 5 parameters; expected 4"),
        ("1 OPENCV 640 480 500 500 320 240 nan 0 0 0\n", "nan.* must be finite"),
        ("S_rect_02: 700.5 400\nP_rect_02: 7 0 6 0 0 7 1 0 0 0 1 0\n", "S_rect_02 is 700.5 400; expected whole px"),
        (_ORB_SLAM.replace("fx: 458.654", "fx: yes"), "Camera.fx of .*ORB-SLAM is True; expected a finite number"),
        (_ORB_SLAM.replace("fx: 458.654", "fx: .nan"), "Camera.fx of .*ORB-SLAM is nan; expected a finite number"),
        (_EUROC.replace("458.654", "-458.654"), "focal lengths are -458.654 and 457.296 px; expected above 0"),
        (_EUROC.replace("[752, 480]", "[[752], 480]"), r"resolution of .* is \[752\]; expected a whole number"),
        (_EUROC.replace("radial-tangential", "[a, b]"), r"distortion_model of .* is \['a', 'b'\]; expected a name"),
        (f"{_EUROC}resolution: [640, 480]\n", "the key 'resolution' is given twice in line 12"),
        (f"{_KALIBR}cam0: {{}}\n", "the key 'cam0' is given twice"),
        ("<?xml version='1.0'?>\n<opencv_storage></opencv_storage>", "XML .*YAML"),
        (
            "# oST version 5.0 parameters\n\n[image]\n\nwidth\n640\n",
            "camera_calibration .*ost.yaml",
        ),
        ("P0: 7.18e+02 0 6.07e+02 0 0 7.18e+02 1.85e+02 0 0 0 1 0\n", "calib.txt of KITTI.* image_0"),
        ("P0: 1 2 3\n", "P0 .*3.* 12"),
        ("P_rect_02: 7 0 6 0 0 7 1 0 0 0 1 0\n", "KITTI.* S_rect_02.* 2"),
        ("S_rect_02: wide\nP_rect_02: 7 0 6 0 0 7 1 0 0 0 1 0\n", "KITTI.* S_rect_02 .*'wide'.* 2"),
        ("frontend:\n  ros__parameters:\n    border: 5\n", "--params-file"),
        ('{"value0": {"intrinsics": [{"camera_type": "ds"}]}}', "Basalt"),
        ("framerate: 30\nwidth: 640\n", r"\['framerate', 'width'\].* ROS"),
        ("", "is empty.* ROS"),
        ("RadTan 820.3 309.0 819.2 275.5\n1280 720\n", "no mapping.* ROS"),
        (b"\xff\x00\xd8binary", "UTF-8.* 0xff at position 0"),
        (b"#" * (MAX_BYTES + 1), "1 MiB"),
        ("a: " + "[" * 5000, "not valid YAML"),
    ],
)
def test_what_is_missing_or_another_file_is_named(tmp_path: Path, text: str | bytes, expected: str) -> None:
    with pytest.raises(CalibrationError, match=expected) as caught:
        _read(tmp_path, text)
    assert str(tmp_path / "camera.yaml") in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 500


def test_text_of_windows_is_read(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        assert _read(tmp_path, _EUROC.replace("\n", "\r\n").encode(encoding)).width == 752


def test_a_damaged_file_is_a_calibration_or_refused_and_takes_no_time(tmp_path: Path) -> None:
    rng = random.Random(0)
    taken = 0
    texts = list(CALIBRATIONS.values())
    for _ in range(600):
        text = rng.choice(texts)
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(text))
            end = min(len(text), start + rng.choice((1, 3, 30)))
            replacement = rng.choice(("", text[start:end] * 2, "nan", "1e999", "-", "[", "{", ": ", "\n", "&a ", "*a"))
            text = text[:start] + replacement + text[end:]
        try:
            calibration = _read(tmp_path, text)
        except CalibrationError:
            continue
        assert np.isfinite(calibration.camera_matrix).all()
        taken += 1
    assert taken > 40
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 40))
    with pytest.raises(CalibrationError, match="calibration of ROS"):
        _read(tmp_path, bomb)
    with pytest.raises(CalibrationError, match=r"camera_matrix of "):
        _read(tmp_path, f"{bomb}image_width: 640\nimage_height: 480\ncamera_matrix: [*a39, 1]\n")
    row = f"r: &r [{','.join(['1'] * 100)}]\n"
    with pytest.raises(CalibrationError, match=r"camera_matrix of .* has 100000 values; expected a matrix of a camera"):
        _read(tmp_path, f"{row}image_width: 640\nimage_height: 480\ncamera_matrix: [{','.join(['*r'] * 1000)}]\n")
    # Each value of each format, where it is a list in lists.
    for kind in ("opencv", "euroc", "orb-slam", "vins", "ros2 topic echo"):
        lines = CALIBRATIONS[kind].removeprefix("%YAML:1.0").removeprefix("\n---").lstrip().splitlines()
        for number, line in enumerate(lines):
            name, separator, _ = line.partition(":")
            if separator and not line.startswith("#"):
                rest = [later for later in lines[number + 1 :] if not later.startswith((" ", "-"))]
                text = "\n".join([*lines[:number], f"{name}: *a39", *rest])
                with suppress(CalibrationError):
                    _read(tmp_path, f"{bomb}{text}\n")
