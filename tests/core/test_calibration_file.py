"""Reading ROS calibration files: values, defaults, and the error for each mistake."""

import os
from pathlib import Path

import pytest

from feature_frontend.camera.calibration import CameraCalibration, RegionOfInterest
from feature_frontend.camera.calibration_file import read_calibration_file
from feature_frontend.errors import CalibrationError

# As camera_calibration's cameracalibrator writes it.
FILE = """\
image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [520.9, 0.0, 325.1, 0.0, 521.0, 249.7, 0.0, 0.0, 1.0]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.231, -0.785, -0.003, -1e-04, 0.917]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
projection_matrix:
  rows: 3
  cols: 4
  data: [530.0, 0.0, 320.0, 0.0, 0.0, 531.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
"""
MATRIX = (520.9, 0.0, 325.1, 0.0, 521.0, 249.7, 0.0, 0.0, 1.0)


def write(folder: Path, text: str) -> Path:
    path = folder / "camera.yaml"
    path.write_text(text)
    return path


def test_reads_every_value(tmp_path: Path) -> None:
    calibration = read_calibration_file(write(tmp_path, FILE))
    assert (calibration.height, calibration.width, calibration.camera_name) == (480, 640, "narrow_stereo")
    assert calibration.camera_matrix == MATRIX
    assert calibration.distortion_model == "plumb_bob"
    # "-1e-04" has no decimal point: YAML 1.1 calls it a string.
    assert calibration.distortion_coefficients == (0.231, -0.785, -0.003, -0.0001, 0.917)
    assert calibration.rectification_matrix == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert calibration.projection_matrix == (530, 0, 320, 0, 0, 531, 240, 0, 0, 0, 1, 0)


def test_defaults_to_no_distortion_and_no_rectification(tmp_path: Path) -> None:
    text = "image_width: 640\nimage_height: 480\ncamera_matrix: {data: [500, 0, 320, 0, 510, 240, 0, 0, 1]}\n"
    calibration = read_calibration_file(write(tmp_path, text))
    assert calibration.distortion_model == "plumb_bob"
    assert calibration.distortion_coefficients == ()
    assert calibration.rectification_matrix == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert calibration.projection_matrix == (500, 0, 320, 0, 0, 510, 240, 0, 0, 0, 1, 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "image_width: 640",
            "image_width: wide",
            "image_width of .* is 'wide'",
        ),
        ("image_width: 640\n", "", "image_width is missing"),
        ("image_height: 480", "image_height: 0", "640x0 px; expected at least 1x1"),
        ("data: [520.9, 0.0,", "data: [520.9,", "camera_matrix .*8.*9"),
        ("data: [520.9,", "data: [fx,", "camera_matrix of .*'fx'"),
        ("data: [520.9,", "data: [-520.9,", "-520.9 and 521 px"),
        ("data: [520.9,", "data: [.nan,", "camera_matrix .* finite"),
        ("distortion_model: plumb_bob", "distortion_model: barrel", "'barrel' with 5 .* plumb_bob"),
        (
            "distortion_model: plumb_bob",
            "distortion_model: equidistant",
            "'equidistant' with 5 .*0.917.*4",
        ),
        ("-1e-04, 0.917", ".inf, 0.917", "distortion_coefficients .* finite"),
        ("data: [530.0, 0.0,", "data: [530.0,", "projection_matrix .*11.*12"),
        ("image_width: 640", "image_width: [", "YAML"),
    ],
)
def test_names_the_file_and_the_mistake(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FILE
    path = write(tmp_path, FILE.replace(old, new, 1))
    with pytest.raises(CalibrationError, match=message) as caught:
        read_calibration_file(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_or_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"camera\.yaml"):
        read_calibration_file(tmp_path / "camera.yaml")
    with pytest.raises(
        CalibrationError,
        match=r"\[1, 2\].* ROS \(image_width",
    ):
        read_calibration_file(write(tmp_path, "- 1\n- 2\n"))
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_calibration_file(tmp_path)


def test_image_size_follows_region_of_interest_and_binning() -> None:
    plain = CameraCalibration(480, 640, "", "plumb_bob", MATRIX, ())
    plain.check_image(480, 640, "frame 1")
    with pytest.raises(CalibrationError, match=r"frame 1 .*641x480 px.* 640x480 px"):
        plain.check_image(480, 641, "frame 1")
    binned = CameraCalibration(480, 640, "", "plumb_bob", MATRIX, (), binning_x=2, binning_y=2)
    assert binned.image_size == (240, 320)
    region = CameraCalibration(
        480, 640, "", "plumb_bob", MATRIX, (), binning_x=2, region_of_interest=RegionOfInterest(10, 20, 100, 200)
    )
    assert region.image_size == (100, 100)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "camera.yaml")
    with pytest.raises(CalibrationError, match=r"camera\.yaml .*regular file"):
        read_calibration_file(tmp_path / "camera.yaml")
