"""The files of a flight in EuRoC's layout hold the flight."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from feature_frontend.camera.calibration_file import read_calibration_file
from feature_frontend.errors import SourceError
from feature_frontend_lab.rendering import flight, write_euroc
from tests.rendering.test_flights import with_small_scene


def test_the_files_hold_the_flight(tmp_path: Path) -> None:
    flown = with_small_scene(flight("street", count=4, dropped=2))
    written = 0

    def count() -> None:
        nonlocal written
        written += 1

    write_euroc(flown, tmp_path, count)
    base = tmp_path / "mav0"
    assert written == 2

    rows = [line.split(",") for line in (base / "cam0" / "data.csv").read_text().splitlines()[1:]]
    assert [int(stamp) for stamp, _ in rows] == flown.stamps_ns.tolist()
    for (_, name), image in zip(rows, flown.frames(), strict=True):
        stored = cv2.imread(str(base / "cam0" / "data" / name), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(stored, image)

    imu = np.genfromtxt(base / "imu0" / "data.csv", delimiter=",", skip_header=1)
    stamps = np.genfromtxt(base / "imu0" / "data.csv", delimiter=",", skip_header=1, usecols=0, dtype=np.int64)
    np.testing.assert_array_equal(stamps, flown.imu.stamps_ns)
    np.testing.assert_array_equal(imu[:, 1:4], flown.imu.angular_velocity)
    np.testing.assert_array_equal(imu[:, 4:7], flown.imu.linear_acceleration)

    truth = np.genfromtxt(base / "state_groundtruth_estimate0" / "data.csv", delimiter=",", skip_header=1)
    body = flown.body_poses
    np.testing.assert_array_equal(truth[:, 1:4], body[:, :3, 3])
    for (w, *xyz), pose in zip(truth[:, 4:8], body, strict=True):
        rotated = cv2.Rodrigues(2 * np.arctan2(np.linalg.norm(xyz), w) * np.array(xyz) / np.linalg.norm(xyz))[0]
        np.testing.assert_allclose(rotated, pose[:3, :3], atol=1e-9)
    np.testing.assert_array_equal(truth[:, 8:11], flown.velocities)
    np.testing.assert_array_equal(truth[:, 11:14], flown.gyroscope_biases)
    np.testing.assert_array_equal(truth[:, 14:17], flown.accelerometer_biases)


def test_the_sensor_files_are_read_as_those_of_euroc(tmp_path: Path) -> None:
    flown = with_small_scene(flight("street", count=1))
    write_euroc(flown, tmp_path)
    camera_file = tmp_path / "mav0" / "cam0" / "sensor.yaml"
    calibration = read_calibration_file(camera_file)
    assert calibration.image_size == (flown.camera.height, flown.camera.width)
    assert calibration.camera_matrix == flown.calibration.camera_matrix
    assert not any(calibration.distortion_coefficients)
    stored = np.array(yaml.safe_load(camera_file.read_text())["T_BS"]["data"]).reshape(4, 4)
    np.testing.assert_array_equal(stored, flown.imu.body_from_camera)
    imu = yaml.safe_load((tmp_path / "mav0" / "imu0" / "sensor.yaml").read_text())
    assert flown.imu.noise is not None
    assert imu["gyroscope_noise_density"] == flown.imu.noise.gyroscope_noise_density
    assert imu["accelerometer_random_walk"] == flown.imu.noise.accelerometer_random_walk
    assert imu["rate_hz"] == 200


def test_an_existing_sequence_is_not_overwritten(tmp_path: Path) -> None:
    flown = with_small_scene(flight("street", count=1))
    write_euroc(flown, tmp_path)
    with pytest.raises(SourceError, match="expected a folder without mav0"):
        write_euroc(flown, tmp_path)
