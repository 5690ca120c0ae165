"""TUM RGB-D's layout: rgb.txt, which lists the images in rgb/, and groundtruth.txt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from feature_frontend.errors import SourceError
from feature_frontend.sources.datasets.base import (
    DatasetImages,
    DatasetSource,
    PoseFile,
    absolute,
    images_in,
    listed_images,
    relative_path,
)
from feature_frontend.sources.datasets.stamped_rows import read_stamped_rows, text_row
from feature_frontend.sources.image_folder import CAMERA_FILE
from feature_frontend.system.files import readable_name

__all__ = ["TumSource"]

_IMAGES, _TABLE, _TRUTH = "rgb", "rgb.txt", "groundtruth.txt"
_BESIDE = ("depth.txt", _TRUTH, "accelerometer.txt")


class TumSource(DatasetSource):
    """The colour images of a sequence in TUM RGB-D's layout, with true poses.

    Stamps are those of rgb.txt. The calibration is that in a camera.yaml, in any format of `read_calibration_file`.
    """

    layout = "TUM RGB-D"

    @classmethod
    def matches(cls, path: Path) -> bool:
        """Whether there are rgb/ and rgb.txt, or one of them, another file of TUM's, and no images beside it."""
        has_folder, has_table = (path / _IMAGES).is_dir(), (path / _TABLE).is_file()
        if has_folder and has_table:
            return True
        # Images beside a file rgb.txt are a folder of images with a file of times.
        is_part = has_table or (has_folder and any((path / name).is_file() for name in _BESIDE))
        return is_part and not images_in(path)

    def _find(self, path: Path, max_pixels: int) -> DatasetImages:
        folder = absolute(path)
        if not (folder / _TABLE).is_file():
            raise SourceError(
                f"{readable_name(folder)} has no {_TABLE}, which lists the images with their stamps; without it, play "
                f"{readable_name(folder / _IMAGES)} as a folder of images"
            )
        rows = read_stamped_rows(folder / _TABLE, _image_row, "such as 1311868164.363181 rgb/1311868164.363181.png")
        found = listed_images(folder / _IMAGES, folder.name, rows, folder / _IMAGES)
        found.read_calibration(folder / CAMERA_FILE)
        return found

    @property
    def poses(self) -> PoseFile | None:
        """The poses of the camera in groundtruth.txt."""
        path = self.folder.parent / _TRUTH
        return PoseFile(path, np.eye(4)) if path.is_file() else None


def _image_row(line: str) -> tuple[int, Path] | None:
    row = text_row(line)
    path = relative_path(row[1]) if row is not None else None
    return None if row is None or path is None else (row[0], path)
