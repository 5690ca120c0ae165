"""Calibrations, parameters, stamps and pip settings, and image files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from feature_frontend.camera.calibration_file import read_calibration_file
from feature_frontend.errors import CalibrationError, ImageError, SettingsError, SourceError
from feature_frontend.image.headers import begins_as_image, is_deep_grey
from feature_frontend.image.image_file import read_image_file
from feature_frontend.models.download.package_index import read_pip_settings
from feature_frontend.settings import PARAMETERS, Settings
from feature_frontend.settings.parameter_file import read_parameter_files
from feature_frontend.sources.datasets.euroc import EurocSource
from feature_frontend.sources.datasets.tum import TumSource
from feature_frontend.sources.times_file import STAMP_LIMIT_NS, read_times
from tests.fuzz.messages import IMAGE_TOKENS, MAX_PIXELS, check_calibration, repaired_png
from tests.fuzz.parser import Parser

__all__ = ["FOLDER", "PARSERS", "written"]

FOLDER = Path(tempfile.mkdtemp(prefix="in_"))
"""Where inputs lie while they are read; the supervisor deletes it with all that a worker leaves."""


def written(data: bytes, name: str) -> Path:
    """A file with an input."""
    path = FOLDER / name
    path.write_bytes(data)
    return path


def _of_file(read: Callable[[Path], object], name: str) -> Callable[[bytes], object]:
    return lambda data: read(written(data, name))


def _calibration(path: Path) -> None:
    check_calibration(read_calibration_file(path))
    for name in ("cam1", "K_00"):
        if name.encode() in path.read_bytes():
            check_calibration(read_calibration_file(path.with_name(f"{path.name}#{name}")))


def _parameters(path: Path) -> None:
    Settings.from_mapping(read_parameter_files([path], "/frontend"))


_IMAGES = ("1403636579.763555584.png", "000001.png", "000002.png")


def _times(path: Path) -> None:
    stamps = read_times(path, _IMAGES)
    assert len(stamps) == len(_IMAGES)
    assert all(0 <= stamp < STAMP_LIMIT_NS for stamp in stamps)


def _dataset_lists(data: bytes) -> None:
    """The same bytes as every list of a dataset: of images, of measurements, and of TUM's images."""
    mav = FOLDER / "mav0"
    (FOLDER / "rgb").mkdir(exist_ok=True)
    for folder in ("cam0/data", "imu0"):
        (mav / folder).mkdir(parents=True, exist_ok=True)
    for path in (mav / "cam0" / "data.csv", mav / "imu0" / "data.csv", FOLDER / "rgb.txt"):
        path.write_bytes(data)
    (mav / "cam0" / "sensor.yaml").write_text("T_BS: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]\n")
    with suppress(SourceError):
        imu = EurocSource(mav).imu
        if imu is not None:
            assert imu.angular_velocity.shape == imu.linear_acceleration.shape == (len(imu.stamps_ns), 3)
    source = TumSource(FOLDER)
    assert list(source.stamps_ns or ()) == sorted(set(source.stamps_ns or ()))
    for file in source.files:
        assert FOLDER in file.parents


def _dataset_sensor(data: bytes) -> None:
    """The same bytes as the description of a camera and of an IMU."""
    mav = FOLDER / "mav1" / "mav0"
    for folder in ("cam0/data", "imu0"):
        (mav / folder).mkdir(parents=True, exist_ok=True)
    for name, line in (("cam0", "1403636579763555584,a.png"), ("imu0", "1403636579763555584,1,2,3,4,5,6")):
        (mav / name / "data.csv").write_text(f"{line}\n")
        (mav / name / "sensor.yaml").write_bytes(data)
    imu = EurocSource(mav).imu
    if imu is not None:
        assert np.isfinite(imu.body_from_camera).all()


def _image_file(path: Path) -> None:
    assert isinstance(begins_as_image(path), bool)
    assert isinstance(is_deep_grey(path), bool)
    file = read_image_file(path, MAX_PIXELS)
    assert file.samples.ndim == 2 or file.samples.shape[2:] == (3,)
    assert 1 <= file.orientation <= 8
    assert file.pages >= 0
    with np.errstate(all="ignore"):
        file.samples.sum()  # reads all of it


def _pip_settings(path: Path) -> None:
    os.environ["PIP_CONFIG_FILE"] = str(path)
    settings = read_pip_settings()
    assert all(isinstance(address, str) for address in (*settings.indexes, *settings.find_links, settings.proxy))


_YAML = (b"!!python/object:os.system ", b"&a ", b"*a", b"<<: ", b"[[[[", b"{{{{", b"- ", b"? ", b": ", b"---\n", b"|\n")
PARSERS = (
    Parser(
        "calibration",
        _of_file(_calibration, "calibration.yaml"),
        (CalibrationError,),
        (
            *(b"image_width: ", b"camera_matrix", b"distortion_coefficients", b"intrinsics", b"resolution", b"cam1:"),
            *(b"Camera.fx", b"projection_parameters", b"model_type", b"radtan", b"equi", b"!!opencv-matrix", *_YAML),
        ),
    ),
    Parser(
        "parameters",
        _of_file(_parameters, "parameters.yaml"),
        (SettingsError,),
        (b"ros__parameters", b"/**:", b"/frontend:", *_YAML, *(name.encode() for name in PARAMETERS)),
    ),
    Parser("times", _of_file(_times, "times.txt"), (SourceError,), (b"2011-09-26 13:02:25.964389445", b"000001.png")),
    Parser(
        "dataset-lists", _dataset_lists, (SourceError,), (b"1403636579763555584,", b"1.5 rgb/a.png", b"../", b"nan,")
    ),
    Parser("dataset-sensor", _dataset_sensor, (), (b"T_BS: ", b"resolution: ", b"gyroscope_noise_density: ", *_YAML)),
    Parser("image-file", _of_file(_image_file, "picture"), (ImageError,), IMAGE_TOKENS, repaired_png),
    Parser(
        "download-settings",
        _of_file(_pip_settings, "pip.conf"),
        (),
        (b"[global]\n", b"[install]\n", b"index-url = ", b"no-index = 1\n", b"%(x)s"),
    ),
)
