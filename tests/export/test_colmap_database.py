"""COLMAP's cameras and database; test_command.py has COLMAP itself read one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_frontend.camera.calibration import CameraCalibration, RegionOfInterest
from feature_frontend.errors import CalibrationError, SourceError
from feature_frontend_lab.export.colmap_database import ColmapDatabase, camera_from_calibration, guessed_camera


def _calibration(model: str, coefficients: tuple[float, ...], **values: Any) -> CameraCalibration:
    matrix = (500.0, 0.0, 319.5, 0.0, 400.0, 239.5, 0.0, 0.0, 1.0)
    return CameraCalibration(480, 640, "", model, matrix, coefficients, **values)


@pytest.mark.parametrize(
    ("model", "coefficients", "number", "distortion"),
    [
        ("plumb_bob", (), 1, ()),
        ("plumb_bob", (0.0,) * 5, 1, ()),
        ("plumb_bob", (0.1, 0.2, 0.3, 0.4), 4, (0.1, 0.2, 0.3, 0.4)),
        ("plumb_bob", (0.1, 0.2, 0.3, 0.4, 0.5), 6, (0.1, 0.2, 0.3, 0.4, 0.5, 0.0, 0.0, 0.0)),
        ("rational_polynomial", tuple(np.arange(1.0, 9)), 6, tuple(np.arange(1.0, 9))),
        ("rational_polynomial", (0.1, 0.2, 0.3, 0.4, 0.0, 0.0, 0.0, 0.0), 4, (0.1, 0.2, 0.3, 0.4)),
        ("rational_polynomial", (*np.arange(1.0, 9), 0.0, 0.0, 0.0, 0.0), 6, tuple(np.arange(1.0, 9))),
        ("radtan", (0.1, 0.2, 0.3, 0.4), 4, (0.1, 0.2, 0.3, 0.4)),
        ("Kannala Brandt4", (0.1, 0.2, 0.3, 0.4, 0.0), 5, (0.1, 0.2, 0.3, 0.4)),
        ("equidistant", (0.0,) * 4, 1, ()),
    ],
)
def test_lenses_are_those_of_colmap(
    model: str, coefficients: tuple[float, ...], number: int, distortion: tuple[float, ...]
) -> None:
    camera = camera_from_calibration(_calibration(model, coefficients))
    assert (camera.model, camera.parameters) == (number, (500.0, 400.0, 320.0, 240.0, *distortion))


def test_a_region_and_binning_move_the_principal_point() -> None:
    region = RegionOfInterest(x_offset=100, y_offset=40, height=400, width=400)
    calibration = _calibration("plumb_bob", (), binning_x=2, binning_y=2, region_of_interest=region)
    camera = camera_from_calibration(calibration)
    assert (camera.height, camera.width) == (200, 200)
    assert camera.parameters == (250.0, 200.0, 110.0, 100.0)


def test_a_lens_that_colmap_lacks_can_be_rectified() -> None:
    calibration = _calibration("tilted_thin_prism", (0.1,) * 14)
    with pytest.raises(CalibrationError, match=r"thin prism and tilt \(14 coefficients, .*; rectify"):
        camera_from_calibration(calibration)
    assert camera_from_calibration(calibration, rectified=True).model == 1


def test_pixels_are_counted_from_the_corner_and_pairs_by_their_images(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    with ColmapDatabase(path) as database:
        camera_id = database.add_camera(guessed_camera(480, 640))
        images = [database.add_image(name, camera_id, np.array([[0.0, 1.5], [639.0, 479.0]])) for name in "ab"]
        rows, inlier = np.array([[0, 1], [1, 0]]), np.array([False, True])
        database.add_pair(*images, rows, inlier, is_calibrated=False)
    connection = sqlite3.connect(path)
    (camera,) = connection.execute("SELECT model, width, height, params, prior_focal_length FROM cameras")
    assert (*camera[:3], camera[4]) == (2, 640, 480, 0)
    assert np.frombuffer(camera[3]).tolist() == [768.0, 320.0, 240.0, 0.0]
    ((data,),) = connection.execute("SELECT data FROM keypoints WHERE image_id = 2")
    assert np.frombuffer(data, np.float32).tolist() == [0.5, 2.0, 639.5, 479.5]
    ((pair_id, data),) = connection.execute("SELECT pair_id, data FROM matches")
    assert (pair_id, np.frombuffer(data, np.uint32).tolist()) == (2147483647 + 2, [0, 1, 1, 0])
    ((count, data, config),) = connection.execute("SELECT rows, data, config FROM two_view_geometries")
    assert (count, np.frombuffer(data, np.uint32).tolist(), config) == (1, [1, 0], 3)
    connection.close()


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with ColmapDatabase(tmp_path / "database.db") as database:
            database.add_camera(guessed_camera(480, 640))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


_ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from feature_frontend_lab.export.colmap_database import ColmapDatabase, guessed_camera
limit, path = int(sys.argv[1]), Path(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with ColmapDatabase(path) as database:
        camera_id = database.add_camera(guessed_camera(480, 640))
        for number in range(20):
            database.add_image(str(number), camera_id, np.zeros((1000, 2)))
except OSError as error:
    assert error.filename == str(path)
    print(error.strerror)
"""


@pytest.mark.parametrize("limit", [0, 4096, 30_000, 60_000, 100_000])
def test_on_a_full_disk_nothing_is_left(tmp_path: Path, limit: int) -> None:
    command = [sys.executable, "-c", _ON_A_FULL_DISK, str(limit), str(tmp_path / "database.db")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "disk" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_names_that_colmap_cannot_have_are_refused_by_name(tmp_path: Path) -> None:
    with ColmapDatabase(tmp_path / "database.db") as database:
        camera_id = database.add_camera(guessed_camera(480, 640))
        database.add_image("1.png", camera_id, np.zeros((1, 2)))
        with pytest.raises(SourceError, match=r"'1\.png'"):
            database.add_image("1.png", camera_id, np.zeros((1, 2)))
        with pytest.raises(SourceError, match=r"'f\\xfcr\.png'.*UTF-8"):
            database.add_image("f\udcfcr.png", camera_id, np.zeros((1, 2)))
