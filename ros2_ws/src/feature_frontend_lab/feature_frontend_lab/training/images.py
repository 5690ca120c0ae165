"""Training images: folders, videos and bags as one list of grey or colour images."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.errors import ImageError, SourceError
from feature_frontend.image.image_file import IMAGE_SUFFIXES, read_image_file
from feature_frontend.image.intensity import DEFAULT_INTENSITY
from feature_frontend.sources import Source
from feature_frontend.sources.image_folder import natural_key
from feature_frontend.system.files import readable_name

__all__ = ["ColorImages", "GreyImages", "Images", "images_in_folder", "images_of_source"]

Uint8Array = npt.NDArray[np.uint8]

# Views are cut from images of at most 800 px (pairs.py); higher resolution would only cost memory and time.
_LARGEST_SHORT_SIDE = 1000
_CACHE_BYTES = 2**30

# A child of the logger whose messages the tools print.
_logger = logging.getLogger(f"feature_frontend.{__name__}")


@dataclass
class Images(ABC):
    """A list of images, each a file that is read on access or an array; subclasses define the colours.

    Attributes:
        entries: Files and uint8 arrays, (H, W) grey or (H, W, 3) RGB, as the subclass requires.
        description: Description for messages and the model card.
    """

    entries: Sequence[Path | Uint8Array]
    description: str
    _cache: OrderedDict[int, Uint8Array] = field(default_factory=OrderedDict, repr=False)
    _cached_bytes: int = field(default=0, repr=False)

    def __len__(self) -> int:
        """Number of images, including unreadable ones."""
        return len(self.entries)

    def load(self, index: int) -> Uint8Array | None:
        """Image `index`, uint8, its shorter side at most 1000 px; None if the file cannot be read."""
        entry = self.entries[index]
        if not isinstance(entry, Path):
            return entry
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        decoded = self.read(entry)
        if decoded is None:
            return None
        image = _limited(decoded)
        self._cache[index] = image
        self._cached_bytes += image.nbytes
        while self._cached_bytes > _CACHE_BYTES:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return image

    @classmethod
    def read(cls, path: Path) -> Uint8Array | None:
        """Reads a file like a source; None, with a warning, if it cannot be read."""
        try:
            samples = read_image_file(path).samples
        except ImageError as error:
            _logger.warning("skipped %s: %s", readable_name(path), error)
            return None
        return cls.converted(DEFAULT_INTENSITY.to_grey_levels(samples))

    @staticmethod
    @abstractmethod
    def converted(image: Uint8Array) -> Uint8Array:
        """Converts an image, (H, W) grey or (H, W, 3) RGB, to the subclass's colours."""

    def split(self, every: int) -> tuple[Images, Images]:
        """Holds out every `every`-th image; returns the others and the held-out ones."""
        held_out = self.entries[every // 2 :: every]
        kept = [entry for i, entry in enumerate(self.entries) if i % every != every // 2]
        return (
            type(self)(kept, f"{self.description}, all but every {every}th"),
            type(self)(held_out, f"{self.description}, every {every}th"),
        )

    @staticmethod
    def joined(parts: Sequence[Images]) -> Images:
        """Concatenates lists of images of one class."""
        entries = [entry for part in parts for entry in part.entries]
        return type(parts[0])(entries, "; ".join(part.description for part in parts))


class GreyImages(Images):
    """(H, W) images."""

    @staticmethod
    def converted(image: Uint8Array) -> Uint8Array:
        """Returns grey images unchanged."""
        return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


class ColorImages(Images):
    """(H, W, 3) RGB images."""

    @staticmethod
    def converted(image: Uint8Array) -> Uint8Array:
        """Converts grey images to three equal channels."""
        return image if image.ndim == 3 else np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)


def images_in_folder(folder: Path, kind: type[Images] = GreyImages) -> Images:
    """The image files of a folder and its subfolders.

    Raises:
        SourceError: There are none.
    """
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}; expected a folder with images {' '.join(IMAGE_SUFFIXES)}")
    files = [
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]
    if not files:
        raise SourceError(
            f"folder {folder} and the folders in it contain no images; expected files {' '.join(IMAGE_SUFFIXES)}"
        )
    files.sort(key=lambda file: natural_key(str(file)))
    return kind(files, f"{len(files)} images of {folder}")


def images_of_source(source: Source, max_frames: int, kind: type[Images] = GreyImages) -> Images:
    """At most `max_frames` images of a video or bag, evenly distributed over it, held in memory.

    Raises:
        SourceError: The source is a camera or cannot be read.
    """
    if source.is_live:
        raise SourceError(
            f"{source.description} cannot be trained on while it is taken; record it first, then train on the bag"
        )
    frames: list[Uint8Array] = []
    stride = 1
    for position, frame in enumerate(source.frames()):
        if position % stride == 0:
            frames.append(_limited(kind.converted(frame.image)))
        # Some containers do not report their number of frames, so the spacing is adapted while reading.
        if len(frames) > max_frames:
            frames = frames[::2]
            stride *= 2
    if not frames:
        raise SourceError(f"{source.description} gave no image")
    return kind(frames, f"every {stride}th of {source.description}" if stride > 1 else source.description)


def _limited(image: Uint8Array) -> Uint8Array:
    scale = _LARGEST_SHORT_SIDE / min(image.shape[:2])
    if scale >= 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
