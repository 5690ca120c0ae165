"""Images for the suites: real frames, in any size."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from benchmarks.types import Canvas, Size
from feature_frontend.errors import SourceError
from feature_frontend.sources.registry import open_source

__all__ = ["REPOSITORY", "Frames", "load_frames", "resized"]

REPOSITORY = Path(__file__).resolve().parent.parent
_SEQUENCE = "tum_fr2_desk"


@dataclass(frozen=True)
class Frames:
    """Images in recording order.

    Attributes:
        description: Source of the images, for the report.
        images: (H, W, 3) RGB each, all of one size.
    """

    description: str
    images: tuple[Canvas, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def at(self, number: int) -> Canvas:
        """The image of a round; the images repeat."""
        return self.images[number % len(self.images)]


def load_frames(source: Path | None, count: int) -> Frames:
    """Loads the first `count` images, or all if there are fewer.

    Args:
        source: Folder, video or bag; None for TUM freiburg2_desk from the shared data, or, if that is missing, its
            three frames that the tests include.
        count: Maximum number of images.

    Raises:
        SourceError: The source cannot be read, is empty, or its images differ in size.
    """
    path = _default_source() if source is None else source
    opened = open_source(str(path))
    images = tuple(_rgb(frame.image) for frame in islice(opened.frames(), count))
    if not images:
        msg = f"{path} holds no readable image; expected at least one; name another folder by --images"
        raise SourceError(msg)
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        text = ", ".join(sorted(f"{width}x{height}" for height, width, _ in sizes))
        msg = f"images of {path} have the sizes {text}; expected one size; name another folder by --images"
        raise SourceError(msg)
    height, width = images[0].shape[:2]
    return Frames(f"{len(images)} frames {width}x{height} of {path.name} ({opened.description})", images)


def resized(frames: Frames, size: Size) -> Frames:
    """The frames centre-cropped to the aspect ratio of `size` and resized to it."""
    width, height = size
    return Frames(f"{frames.description}, as {width}x{height}", tuple(_fit(image, size) for image in frames.images))


def _fit(image: Canvas, size: Size) -> Canvas:
    (height0, width0), (width1, height1) = image.shape[:2], size
    if (width0, height0) == size:
        return image
    scale = max(width1 / width0, height1 / height0)
    width, height = min(width0, round(width1 / scale)), min(height0, round(height1 / scale))
    top, left = (height0 - height) // 2, (width0 - width) // 2
    part = image[top : top + height, left : left + width]
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(part, size, interpolation=interpolation), np.uint8)


def _rgb(image: Canvas) -> Canvas:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8) if image.ndim == 2 else image


def _default_source() -> Path:
    shared = Path(os.environ.get("FEATURE_FRONTEND_SHARED", REPOSITORY.parent / "shared")) / "data" / _SEQUENCE
    return shared if shared.is_dir() else REPOSITORY / "tests" / "data" / _SEQUENCE
