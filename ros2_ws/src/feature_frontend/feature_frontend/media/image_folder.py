"""A folder of image files, in natural order or in the order of the times in their names."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from feature_frontend.errors import SourceError
from feature_frontend.media.frame import Frame, UnreadableFrame

if TYPE_CHECKING:
    from feature_frontend.media.source import StampOrigin

__all__ = ["IMAGE_SUFFIXES", "ImageFolderSource", "is_image_folder", "natural_key", "stamp_from_name"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".pnm", ".webp")

_logger = logging.getLogger(__name__)

# Seconds with a decimal point, or an integer whose number of digits tells its unit for any time after 2001; shorter
# integers are frame numbers. A prefix such as "left_" may come before.
_STAMP = re.compile(r"(?:.*[^\d.])?(?P<number>\d+\.\d+|\d{19}|\d{16}|\d{13})")
_NANOSECONDS_PER_UNIT = {19: 1, 16: 1_000, 13: 1_000_000}
# builtin_interfaces/Time holds the seconds in an int32.
_STAMP_LIMIT_NS = 2**31 * 1_000_000_000


def is_image_folder(path: Path) -> bool:
    """Whether `path` is a folder or an image file."""
    return path.is_dir() or (path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES)


def stamp_from_name(stem: str) -> int | None:
    """The time in ns that a file name without its suffix carries, `None` where it carries none.

    Seconds with a decimal point ("1311868169.163498"), or an integer of 19 (ns), 16 (us) or 13 (ms) digits.
    """
    match = _STAMP.fullmatch(stem)
    if match is None:
        return None
    number = match["number"]
    # A float of seconds since 1970 is exact to 0.2 us only.
    unit_ns = 1_000_000_000 if "." in number else _NANOSECONDS_PER_UNIT[len(number)]
    stamp_ns = int(Decimal(number) * unit_ns)
    return stamp_ns if stamp_ns < _STAMP_LIMIT_NS else None


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts "frame2" before "frame10"."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


class ImageFolderSource:
    """The image files of one folder (not of those below it), or one image file.

    Where every name carries a time and no two the same, these are the stamps and the order; otherwise the order is the
    natural one of the names and there are no stamps. Grey files give (H, W), colour files (H, W, 3); 16-bit samples are
    reduced to their high byte, transparency is dropped. A file that cannot be decoded is skipped with a warning.
    """

    stamp_origin: StampOrigin = "file name"
    has_camera = False
    is_live = False

    def __init__(self, path: Path) -> None:
        """Lists the files.

        Raises:
            SourceError: There is no image in the folder.
        """
        self._path = path
        files = [path] if path.is_file() else [file for file in path.iterdir() if _is_image(file)]
        if not files:
            msg = f"folder {path} contains no images; expected files {' '.join(IMAGE_SUFFIXES)}"
            folders = sorted(child.name for child in path.iterdir() if child.is_dir())
            if folders:
                msg += f" (it contains the folders {', '.join(folders[:10])}: play one of those)"
            raise SourceError(msg)
        files.sort(key=lambda file: natural_key(file.name))
        stamps = [stamp for file in files if (stamp := stamp_from_name(file.stem)) is not None]
        self._stamped = len(set(stamps)) == len(files)
        if self._stamped:
            files.sort(key=lambda file: stamp_from_name(file.stem) or 0)
        self._files = files

    @property
    def description(self) -> str:
        """Folder and number of images."""
        count = len(self._files)
        return f"{count} image{'' if count == 1 else 's'} from {self._path}"

    @property
    def frame_count(self) -> int:
        """Number of image files."""
        return len(self._files)

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The images from position `start` on.

        Raises:
            SourceError: Not one of them can be decoded.
        """
        readable = 0
        for frame in self.attempts(start):
            if isinstance(frame, UnreadableFrame):
                _logger.warning("skipped %s: %s", self._files[frame.index], frame.reason)
            else:
                readable += 1
                yield frame
        if not readable and start < len(self._files):
            msg = f"none of the {len(self._files) - start} image files in {self._path} can be read"
            raise SourceError(msg)

    def attempts(self, start: int = 0) -> Iterator[Frame | UnreadableFrame]:
        """The images from position `start` on, those that cannot be decoded in their places."""
        for index, file in enumerate(self._files[start:], start):
            stamp_ns = stamp_from_name(file.stem) if self._stamped else None
            image = cv2.imread(str(file), cv2.IMREAD_ANYCOLOR) if file.is_file() else None
            if image is None:
                yield UnreadableFrame(index, file.name, "not a readable image", stamp_ns)
                continue
            rgb = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            yield Frame(np.asarray(rgb, dtype=np.uint8), index, file.name, stamp_ns)


def _is_image(file: Path) -> bool:
    # macOS leaves "._name.png" files, which are no images, beside the real ones on foreign disks.
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and not file.is_dir()
