"""KITTI's layouts: sequences of the odometry benchmark, and raw recordings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np

from feature_frontend.camera.calibration_file import read_calibration_file
from feature_frontend.errors import CalibrationError, SourceError
from feature_frontend.image.image_file import first_image_size
from feature_frontend.sources.datasets.base import (
    DatasetImages,
    DatasetSource,
    PoseFile,
    absolute,
    images_in,
    is_there,
)
from feature_frontend.sources.image_folder import natural_key
from feature_frontend.sources.times_file import read_times
from feature_frontend.system.files import readable_name

__all__ = ["KittiOdometrySource", "KittiRawSource"]

_TABLES = ("times.txt", "calib.txt")
_TIMES, _CALIBRATION = "timestamps.txt", "calib_cam_to_cam.txt"


class _KittiSource(DatasetSource):
    """The images of one camera of KITTI, which are numbered; line n of a file of times is that of image n."""

    camera_names: ClassVar[tuple[str, ...]]

    @classmethod
    def _camera_folder(cls, path: Path) -> Path | None:
        """The folder of the camera that is meant by `path`: itself, or the first one in it; None if there is none."""
        folder = absolute(path)
        if folder.name in cls.camera_names:
            return folder
        return next((folder / name for name in cls.camera_names if (folder / name).is_dir()), None)

    def _numbered(self, folder: Path, name: str, images: Path, times: Path) -> DatasetImages:
        files = sorted(images_in(images), key=lambda file: natural_key(file.name))
        if not files:
            raise SourceError(f"{readable_name(images)} contains no images; expected those of the camera")
        if not times.is_file():
            raise SourceError(
                f"{readable_name(times.parent)} has no {times.name} with the time of each image; without it, play "
                f"{readable_name(images)} as a folder of images"
            )
        stamps_ns = read_times(times, [file.name for file in files])
        order = sorted(range(len(files)), key=stamps_ns.__getitem__)
        found = DatasetImages(
            folder, name, [files[at] for at in order], [stamps_ns[at] for at in order], {times.name: times}
        )
        if order != list(range(len(files))):
            found.notices.append(
                f"the times in {readable_name(times)} are not in the order of the images, which are taken by time"
            )
        numbers = sorted(set(_numbers(files)))
        missing = numbers[-1] - numbers[0] + 1 - len(numbers)
        if missing:
            first = next(before + 1 for before, after in pairwise(numbers) if after - before > 1)
            found.notices.append(
                f"{readable_name(images)} lacks {missing} of the images {numbers[0]} to {numbers[-1]}, the first of "
                f"them {first}"
            )
        return found


class KittiOdometrySource(_KittiSource):
    """The images of a camera of a sequence of KITTI's odometry benchmark, with calibration and true poses.

    Stamps are those of times.txt. The calibration is the camera's matrix P in calib.txt: the images are rectified.
    """

    layout = "KITTI odometry"
    camera_names = ("image_0", "image_1", "image_2", "image_3")

    @classmethod
    def matches(cls, path: Path) -> bool:
        """Whether it is or has a folder image_0 to image_3 beside times.txt or calib.txt, or has both of these."""
        folder = cls._camera_folder(path)
        if folder is None:
            return all((path / name).is_file() for name in _TABLES) and not images_in(path)
        # Images in a folder of any name are a folder of images if they lie beside no file of KITTI's.
        beside = [(folder.parent / name).is_file() for name in _TABLES]
        return all(beside) if folder == absolute(path) else any(beside) or not images_in(path)

    def _find(self, path: Path, max_pixels: int) -> DatasetImages:
        folder = self._camera_folder(path)
        if folder is None:
            raise SourceError(
                f"{readable_name(absolute(path))} has no images; expected them in one of the folders "
                f"{', '.join(self.camera_names)}"
            )
        sequence = folder.parent
        found = self._numbered(folder, sequence.name, folder, sequence / "times.txt")
        size = first_image_size(found.files, max_pixels)
        found.read_calibration(sequence / "calib.txt", f"P{folder.name[-1]}", size)
        return found

    @property
    def poses(self) -> PoseFile | None:
        """The poses in poses/NN.txt of the benchmark, or in a poses.txt in the sequence's folder.

        They are those of camera 0, of which the other ones are shifted by what their matrices say.
        """
        sequence = self.folder.parent
        candidates = (sequence.parent.parent / "poses" / f"{sequence.name}.txt", sequence / "poses.txt")
        path = next((candidate for candidate in candidates if is_there(candidate)), None)
        if path is None:
            return None
        frame_from_camera = np.eye(4)
        if self.camera is not None:
            projection = np.reshape(self.camera.projection_matrix, (3, 4))
            frame_from_camera[:3, 3] = -np.linalg.solve(projection[:, :3], projection[:, 3])
        elif self.folder.name != "image_0":
            self._tell_once("poses", f"the poses in {readable_name(path)} are left out: they are those of image_0")
            return None
        return PoseFile(path, frame_from_camera, _numbers(self.files))


class KittiRawSource(_KittiSource):
    """The images of a camera of a raw recording of KITTI, with calibration.

    Stamps are those of timestamps.txt. The calibration is that in calib_cam_to_cam.txt for images of that size:
    rectified ones ("sync") or the ones before ("extract").
    """

    layout = "KITTI raw"
    camera_names = ("image_00", "image_01", "image_02", "image_03")

    @classmethod
    def matches(cls, path: Path) -> bool:
        """Whether there is a folder image_00 to image_03 with a folder data or times, or it is one."""
        folder = cls._camera_folder(path)
        if folder is None:
            return False
        return (folder / "data").is_dir() or ((folder / _TIMES).is_file() and not images_in(folder))

    def _find(self, path: Path, max_pixels: int) -> DatasetImages:
        folder = self._camera_folder(path)
        assert folder is not None
        drive = folder.parent
        found = self._numbered(folder, drive.name, folder / "data", folder / _TIMES)
        place = drive if (drive / _CALIBRATION).is_file() else drive.parent
        number = folder.name[-2:]
        found.read_calibration(place / _CALIBRATION, f"P_rect_{number}")
        size = first_image_size(found.files, max_pixels)
        if found.camera is not None and size not in {None, found.camera.image_size}:
            with suppress(CalibrationError):
                before = read_calibration_file(place / f"{_CALIBRATION}#K_{number}")
                found.camera = before if before.image_size == size else found.camera
        return found


def _numbers(files: Sequence[Path]) -> tuple[int, ...]:
    """The numbers of numbered images; their positions if the names are no numbers."""
    if all(file.stem.isdecimal() for file in files):
        return tuple(int(file.stem) for file in files)
    return tuple(range(len(files)))
