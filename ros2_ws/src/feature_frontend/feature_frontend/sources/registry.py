"""The table of source kinds, and how to open a source."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from feature_frontend.errors import SourceError
from feature_frontend.image.image_file import IMAGE_SUFFIXES
from feature_frontend.sources import bag, image_folder, video, webcam
from feature_frontend.sources.bags.files import BAG_SUFFIXES, is_bag
from feature_frontend.sources.base import LostImages, Source, SourceOptions
from feature_frontend.sources.datasets.base import DatasetSource
from feature_frontend.sources.datasets.layouts import LAYOUTS, layout_of, open_dataset
from feature_frontend.sources.image_files import ImageFilesSource
from feature_frontend.sources.imu import ImuMeasurements
from feature_frontend.system.text import quoted

__all__ = ["SOURCE_KINDS", "SourceKind", "imu_of", "missing_of", "open_source"]


@dataclass(frozen=True)
class SourceKind:
    """A row of `SOURCE_KINDS`.

    Attributes:
        name: Name of the kind.
        expects: What the user enters for it.
        matches: Whether a location is of this kind.
        open: Opens a location of this kind.
    """

    name: str
    expects: str
    matches: Callable[[str], bool]
    open: Callable[[str, SourceOptions], Source]


_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")

# In order of precedence: a folder with bag files is a bag, even if it also contains images.
SOURCE_KINDS = (
    SourceKind(
        "webcam",
        "webcam:0, /dev/video0",
        webcam.is_webcam,
        lambda location, options: webcam.WebcamSource(location, options.rate_hz or 0.0),
    ),
    SourceKind(
        "bag",
        f"a rosbag2 folder, or a file {' '.join(BAG_SUFFIXES)}",
        lambda location: is_bag(Path(location)),
        lambda location, options: bag.BagSource(Path(location), options.topic),
    ),
    SourceKind(
        "dataset",
        f"a folder in the layout of {', '.join(layout.layout for layout in LAYOUTS)}",
        lambda location: layout_of(Path(location)) is not None,
        lambda location, options: open_dataset(Path(location), options.max_image_pixels),
    ),
    SourceKind(
        "images",
        f"a folder of images, or an image {' '.join(IMAGE_SUFFIXES)}",
        lambda location: image_folder.is_image_folder(Path(location)),
        lambda location, options: image_folder.ImageFolderSource(Path(location), options.max_image_pixels),
    ),
    SourceKind(
        "video",
        f"a video file {' '.join(video.VIDEO_SUFFIXES)}",
        lambda location: video.is_video(Path(location)),
        lambda location, _: video.VideoSource(Path(location)),
    ),
)


def open_source(location: str, options: SourceOptions | None = None) -> Source:
    """Opens a folder, a file or a camera.

    Raises:
        SourceError: There is nothing at that location, its kind is unknown, or it cannot be read.
    """
    path = Path(location)
    try:
        found = next((kind for kind in SOURCE_KINDS if kind.matches(location)), None)
    except (OSError, ValueError) as error:
        # A name that is too long, a folder without permission, a zero byte.
        raise SourceError(
            f"{quoted(location)} cannot be looked at: {getattr(error, 'strerror', None) or error}"
        ) from error
    if found is not None:
        return found.open(location, options or SourceOptions())
    if not os.path.exists(path):
        raise SourceError(f"there is no file or folder {location}; expected {_expected()}")
    if path.suffix.lower() in _ARCHIVES:
        raise SourceError(f"{location} is an archive; unpack it, and name the folder that comes out")
    raise SourceError(f"{location} has a suffix {path.suffix!r} that cannot be played; expected {_expected()}")


def missing_of(source: Source, lost: LostImages | None = None) -> list[str]:
    """What is known to be lost from a source, one sentence each; complete once all images have been read.

    Args:
        source: Of any kind.
        lost: Its lost images if counted elsewhere; None for its own count.
    """
    if not isinstance(source, (bag.BagSource, ImageFilesSource, video.VideoSource)):
        return []
    return source.storage_missing + (lost or source.lost).sentences(source.images_of)


def imu_of(source: Source) -> ImuMeasurements | None:
    """The IMU of a source, on the clock of its images; None if it has none, or one that cannot be read."""
    return source.imu if isinstance(source, DatasetSource) else None


def _expected() -> str:
    return "; ".join(kind.expects for kind in SOURCE_KINDS)
