"""What the layouts of datasets have in common: images with stamps, and the files that lie beside them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.errors import SourceError
from feature_frontend.image.image_file import IMAGE_SUFFIXES
from feature_frontend.image.limits import MAX_IMAGE_PIXELS
from feature_frontend.sources.datasets.stamped_rows import StampedRows
from feature_frontend.sources.image_files import ImageFilesSource, calibration_or_notice
from feature_frontend.sources.imu import ImuMeasurements
from feature_frontend.sources.times_file import UNIT, wrong_unit
from feature_frontend.system.files import readable_name
from feature_frontend.system.text import listed

__all__ = [
    "DatasetImages",
    "DatasetSource",
    "PoseFile",
    "absolute",
    "images_in",
    "is_there",
    "listed_images",
    "relative_path",
]


@dataclass(frozen=True, eq=False)
class PoseFile:
    """A file of true poses.

    Attributes:
        path: Of the file.
        frame_from_camera: (4, 4) pose of the camera's optical frame in the frame whose poses the file contains.
        lines: For a file without stamps, the line of each image's pose, from 0; None for a file with stamps.
    """

    path: Path
    frame_from_camera: npt.NDArray[np.float64]
    lines: tuple[int, ...] | None = None


@dataclass
class DatasetImages:
    """What a layout finds in a folder.

    Attributes:
        folder: The folder of the camera, absolute.
        name: Name of the sequence.
        files: The images in order.
        stamps_ns: One for each, ns, ascending.
        tables: The file of their stamps, and then those that describe their camera, by the names in the layout.
        camera: Their calibration; None without one.
        frame_id: Their coordinate frame; empty if the layout has none.
        notices: Warnings for the user.
        missing: What is lost, one sentence each.
    """

    folder: Path
    name: str
    files: Sequence[Path]
    stamps_ns: Sequence[int]
    tables: dict[str, Path]
    camera: CameraCalibration | None = None
    frame_id: str = ""
    notices: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def read_calibration(self, path: Path, camera: str = "", image_size: tuple[int, int] | None = None) -> None:
        """Takes the calibration of a file; without one, a notice says so.

        Args:
            path: Of the file.
            camera: Its name in the file, if that contains several.
            image_size: As for `read_calibration_file`.
        """
        name = path.with_name(f"{path.name}#{camera}") if camera else path
        self.camera, problems = calibration_or_notice(name, image_size)
        self.notices += problems
        if self.camera is not None:
            self.tables[path.name] = path


class DatasetSource(ImageFilesSource, ABC):
    """The images of one camera of a dataset; the base of all layouts.

    Attributes:
        layout: Name of the layout.
        unit: Of the times in its lists of images, for messages.
        folder, name, tables: As in `DatasetImages`.
    """

    layout: ClassVar[str]
    unit: ClassVar[str] = UNIT

    def __init__(self, path: Path, max_pixels: int = MAX_IMAGE_PIXELS) -> None:
        """Reads the list of images and the calibration.

        Args:
            path: The folder of a sequence, or that of one of its cameras; of several cameras, the first is taken.
            max_pixels: Maximum number of pixels of an accepted image.

        Raises:
            SourceError: An essential part of the layout is missing; the text names it.
        """
        found = self._find(path, max_pixels)
        table = next(iter(found.tables.values()))
        notices = [*found.notices, *found.missing, wrong_unit(table, found.stamps_ns, self.unit)]
        super().__init__(
            path,
            found.files,
            found.stamps_ns,
            max_pixels=max_pixels,
            notices=[notice for notice in notices if notice],
            camera=found.camera,
            frame_id=found.frame_id,
        )
        self.folder = found.folder
        self.name = found.name
        self.tables: Mapping[str, Path] = found.tables
        self.storage_missing = list(found.missing)

    @classmethod
    @abstractmethod
    def matches(cls, path: Path) -> bool:
        """Whether `path` is a folder in this layout, or nearly one."""

    @abstractmethod
    def _find(self, path: Path, max_pixels: int) -> DatasetImages:
        """The images of a folder for which `matches` is true; raises a `SourceError` if a part is missing."""

    @property
    def description(self) -> str:
        """Sequence, layout, camera and number of images."""
        count = len(self.files)
        images = f"{count} image{'' if count == 1 else 's'}"
        return f"{images} of {self.folder.name} from {readable_name(self.name)} ({self.layout})"

    @property
    def imu(self) -> ImuMeasurements | None:
        """The measurements of the IMU; None if there is none, or a warning says why it cannot be read."""
        return None

    @property
    def poses(self) -> PoseFile | None:
        """The true poses; None if there are none, or a warning says why they cannot be used."""
        return None


def absolute(path: Path) -> Path:
    """The absolute path, without "..", whose names are those of the layout: symbolic links are kept."""
    return Path(os.path.abspath(path))


def is_there(path: Path) -> bool:
    """Whether there is such a file, also one that must not be looked at: reading it then says so."""
    try:
        return path.is_file()
    except OSError:
        return True


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, in no order; empty if there is no such folder.

    Raises:
        SourceError: The folder cannot be read.
    """
    if not folder.is_dir():
        return []
    try:
        with os.scandir(folder) as entries:
            files = [folder / entry.name for entry in entries if not entry.is_dir()]
    except OSError as error:
        raise SourceError(f"folder {readable_name(folder)} cannot be read: {error.strerror or error}") from error
    return [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")]


def listed_images(folder: Path, name: str, rows: StampedRows[Path], image_folder: Path) -> DatasetImages:
    """The images that a file lists, and notices about those in `image_folder` that it does not.

    Args:
        folder: The folder of the camera.
        name: Name of the sequence.
        rows: Stamp and path of each image, the path relative to the folder of the list.
        image_folder: Where the images lie.
    """
    files = [rows.path.parent / file for file in rows.values]
    found = DatasetImages(folder, name, files, rows.stamps_ns, {rows.path.name: rows.path})
    found.notices += rows.notices
    found.missing += rows.missing
    twice = len(files) - len(set(files))
    if twice:
        found.notices.append(f"{twice} lines of {readable_name(rows.path)} name an image that another line names, too")
    unlisted = sorted({file.name for file in images_in(image_folder)} - {file.name for file in files})
    if unlisted:
        found.notices.append(
            f"{len(unlisted)} of the images in {readable_name(image_folder)} left out, as {rows.path.name} does not "
            f"list them ({listed(map(readable_name, unlisted))})"
        )
    return found


def relative_path(name: str) -> Path | None:
    """The path of an image in a list, relative to its folder; None for one that leaves the folder, or is no path."""
    path = PurePosixPath(name.replace("\\", "/"))
    return None if not path.name or path.is_absolute() or ".." in path.parts else Path(path)
