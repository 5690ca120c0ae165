"""EuRoC's layout, also called ASL's: mav0/cam0, mav0/imu0, ..., each with data.csv and sensor.yaml."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_frontend.camera.fields import Fields, errors_name_the_file, read_fields
from feature_frontend.errors import CalibrationError, SourceError
from feature_frontend.sources.datasets.base import (
    DatasetImages,
    DatasetSource,
    PoseFile,
    absolute,
    images_in,
    is_there,
    listed_images,
    relative_path,
)
from feature_frontend.sources.datasets.stamped_rows import csv_row, read_stamped_rows
from feature_frontend.sources.imu import ImuMeasurements, ImuNoise, gaps_between
from feature_frontend.system.files import readable_name

__all__ = ["EurocSource", "euroc_pose_row"]

_CAMERAS = tuple(f"cam{number}" for number in range(10))
_TABLE, _SENSOR, _IMAGES = "data.csv", "sensor.yaml", "data"
_IMU, _TRUTH = "imu0", "state_groundtruth_estimate0"
# TUM's format, as tools write it that convert EuRoC's.
_TRUTH_BESIDE = "groundtruth.txt"
_IMU_VALUES, _POSE_VALUES = 6, 7
_ROTATION_TOLERANCE = 1e-3
# No body is larger; limits what follows from a file.
_MOST_METRES = 1000.0
_WHAT = "a sensor.yaml of EuRoC"

FloatArray = npt.NDArray[np.float64]


class EurocSource(DatasetSource):
    """The images of a camera of a dataset in EuRoC's layout, with calibration, IMU and true poses.

    Stamps are those of data.csv. The frame of the images is the folder's name, such as "cam0".
    """

    layout = "EuRoC"
    unit = "ns"

    @classmethod
    def matches(cls, path: Path) -> bool:
        """Whether there is a folder mav0, or one of a camera."""
        return _mav(path).name == "mav0" or _camera_folder(path) is not None

    def _find(self, path: Path, max_pixels: int) -> DatasetImages:
        folder = _camera_folder(path)
        if folder is None:
            raise SourceError(
                f"{readable_name(_mav(path))} has no camera; expected a folder cam0 with {_TABLE}, {_SENSOR} and a "
                f"folder {_IMAGES}"
            )
        images = folder / _IMAGES
        if not images.is_dir():
            raise SourceError(f"{readable_name(folder)} has no folder {_IMAGES}; expected the images there")
        if not (folder / _TABLE).is_file():
            raise SourceError(
                f"{readable_name(folder)} has no {_TABLE}, which lists the images with their stamps; without it, play "
                f"{readable_name(images)} as a folder of images, which has no calibration and no IMU"
            )
        rows = read_stamped_rows(folder / _TABLE, _image_row, "such as 1403636579763555584,1403636579763555584.png")
        found = listed_images(folder, _root(folder).name, rows, images)
        found.frame_id = folder.name
        earlier = _CAMERAS[: _CAMERAS.index(folder.name)] if folder != _mav(path) and folder.name in _CAMERAS else ()
        empty = [name for name in earlier if (folder.parent / name).is_dir()]
        if empty:
            found.notices.append(f"{folder.name} is taken: {', '.join(empty)} has no {_TABLE} and no folder {_IMAGES}")
        found.read_calibration(folder / _SENSOR)
        return found

    @cached_property
    def imu(self) -> ImuMeasurements | None:
        """The measurements of imu0; None after a warning, if there are none or the camera's pose is unknown."""
        folder = self.folder.parent / _IMU
        try:
            rows = read_stamped_rows(
                folder / _TABLE, _imu_row, "of stamp (ns), 3 rates (rad/s), 3 accelerations (m/s^2)"
            )
            self.storage_missing += rows.missing
            gaps = gaps_between(rows.stamps_ns, self.stamps_ns or ())
            for notice in (*rows.notices, *rows.missing, *(f"{readable_name(rows.path)} has {gap}" for gap in gaps)):
                self._tell_once(notice, notice)
            sensor = self._sensor(folder)
            values = np.array(rows.values, np.float64)
            return ImuMeasurements(
                stamps_ns=np.array(rows.stamps_ns, np.int64),
                angular_velocity=values[:, :3],
                linear_acceleration=values[:, 3:],
                body_from_camera=np.linalg.inv(_pose_in_body(sensor, folder)) @ self._body_from_camera(),
                noise=_noise(sensor, folder),
                frame_id=_IMU,
            )
        except (SourceError, CalibrationError) as error:
            self._tell_once("imu", f"the IMU is left out: {error}")
            return None

    @property
    def poses(self) -> PoseFile | None:
        """The poses in state_groundtruth_estimate0, or else in a groundtruth.txt (TUM) of the body beside mav0."""
        truth = self.folder.parent / _TRUTH
        path = truth / _TABLE
        try:
            if is_there(path):
                frame = np.linalg.inv(_pose_in_body(self._sensor(truth), truth))
            elif (_root(self.folder) / _TRUTH_BESIDE).is_file():
                path, frame = _root(self.folder) / _TRUTH_BESIDE, np.eye(4)
            else:
                return None
            return PoseFile(path, frame @ self._body_from_camera())
        except CalibrationError as error:
            self._tell_once("poses", f"the true poses in {readable_name(path)} are left out: {error}")
            return None

    def _body_from_camera(self) -> FloatArray:
        return _pose_in_body(read_fields(self.folder / _SENSOR, _WHAT), self.folder)

    def _sensor(self, folder: Path) -> Fields | None:
        if is_there(folder / _SENSOR):
            return read_fields(folder / _SENSOR, _WHAT)
        notice = f"there is no {readable_name(folder / _SENSOR)}: {folder.name} is taken to be the frame of the body"
        self._tell_once(notice, notice)
        return None


def euroc_pose_row(line: str) -> tuple[int, tuple[float, ...]] | None:
    """Stamp in ns and pose (position, quaternion w x y z) of a line of state_groundtruth_estimate0/data.csv."""
    return _numbers_row(line, _POSE_VALUES)


def _mav(path: Path) -> Path:
    """The folder mav0 that is meant by `path`; `path` itself if there is none."""
    return absolute(path / "mav0" if (path / "mav0").is_dir() else path)


def _root(camera_folder: Path) -> Path:
    """The folder of the sequence: that in which mav0 lies."""
    mav = camera_folder.parent
    return mav.parent if mav.name == "mav0" else mav


def _camera_folder(path: Path) -> Path | None:
    """The folder of the camera that is meant by `path`: itself, or the first one in it; None if there is none."""
    mav = _mav(path)
    if not mav.is_dir():
        return None
    if _is_camera(mav):
        return mav
    camera = next((mav / name for name in _CAMERAS if _is_camera(mav / name)), None)
    # A folder that holds images is a folder of images, whatever else is in it.
    return None if camera is not None and mav.name != "mav0" and images_in(mav) else camera


def _is_camera(folder: Path) -> bool:
    has_images, has_table = (folder / _IMAGES).is_dir(), (folder / _TABLE).is_file()
    is_named = folder.name in _CAMERAS
    has_sensor = (folder / _SENSOR).is_file()
    return (has_images and (has_table or has_sensor or is_named)) or (is_named and (has_table or has_sensor))


def _image_row(line: str) -> tuple[int, Path] | None:
    row = csv_row(line)
    path = relative_path(row[1][0]) if row is not None and row[1] else None
    return None if row is None or path is None else (row[0], Path(_IMAGES) / path.name)


def _imu_row(line: str) -> tuple[int, tuple[float, ...]] | None:
    # Not more values, among which the six could be others; commas at the end do no harm.
    return _numbers_row(line, _IMU_VALUES) if line.rstrip(", ").count(",") == _IMU_VALUES else None


def _numbers_row(line: str, count: int) -> tuple[int, tuple[float, ...]] | None:
    row = csv_row(line)
    if row is None or len(row[1]) < count:
        return None
    try:
        values = tuple(map(float, row[1][:count]))
    except ValueError:
        return None
    return (row[0], values) if all(map(math.isfinite, values)) else None


def _pose_in_body(sensor: Fields | None, folder: Path) -> FloatArray:
    """(4, 4) pose T_BS of the sensor of a folder in the frame of the body; the body itself without a file."""
    if sensor is None:
        return np.eye(4)
    with errors_name_the_file(folder / _SENSOR):
        pose = np.array(sensor.matrix(("T_BS",), 16), np.float64).reshape(4, 4)
        rotation = pose[:3, :3]
        with np.errstate(all="ignore"):
            error = np.abs(rotation @ rotation.T - np.eye(3)).max()
        is_pose = error < _ROTATION_TOLERANCE and np.linalg.det(rotation) > 0 and pose[3].tolist() == [0, 0, 0, 1]
        if not is_pose or np.abs(pose[:3, 3]).max() > _MOST_METRES:
            raise CalibrationError(
                "T_BS is no pose; expected a rotation and a translation in m, row by row, and 0 0 0 1"
            )
        return pose


def _noise(sensor: Fields | None, folder: Path) -> ImuNoise | None:
    names = list(ImuNoise.__dataclass_fields__)
    if sensor is None or not all(name in sensor.document for name in names):
        return None
    with errors_name_the_file(folder / _SENSOR):
        values = {name: sensor.number(name) for name in names}
        wrong = next((name for name, value in values.items() if value < 0), None)
        if wrong is not None:
            raise CalibrationError(f"{wrong} of {sensor.what} is {values[wrong]:g}; expected a density, at least 0")
        return ImuNoise(**values)
