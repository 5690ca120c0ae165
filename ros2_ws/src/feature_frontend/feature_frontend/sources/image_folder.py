"""A folder of image files, in natural order or in the order of their times."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from feature_frontend.errors import DamagedImageError, ImageError, SourceError
from feature_frontend.image.headers import begins_as_image, is_deep_grey
from feature_frontend.image.image_file import IMAGE_SUFFIXES, ImageFile, read_image_file
from feature_frontend.image.limits import MAX_IMAGE_PIXELS
from feature_frontend.sources.base import Frame, LostImages, StampOrigin, UnreadableFrame
from feature_frontend.sources.times_file import STAMP_LIMIT_NS, find_times, time_from_number
from feature_frontend.system.files import readable_name

__all__ = [
    "ImageFolderSource",
    "is_image_folder",
    "natural_key",
    "one_stream",
    "stamp_from_name",
    "stamps_from_names",
]

UNREAD_SUFFIXES = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".exr", ".hdr", ".pfm", ".npy"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".raw"),
)
"""Image formats that OpenCV may not be able to read."""

_WORD = re.compile(r"[a-z]+")
# Names that cameras and data sets give to images of other kinds or sensors in the same folder.
_OTHERS = {
    "depth": ["depth", "depths", "depthmap", "disparity", "disparities", "disp"],
    "infrared": ["infrared", "infra", "ir", "thermal"],
    "mask": ["mask", "masks"],
}
# "left_0.png", "img_R_0.png", "cam1_000.png"; in "cam7.png" the number may belong to the image.
_CAMERA = re.compile(r"(?<![a-z])(?:left|right|l|r)(?![a-z])|(?<![a-z])(?:cam|camera)[_-]?\d+(?=\D+\d)")
_SHOWN = 2


def one_stream(folder: Path, files: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Selects the image files of one camera in a folder, and returns notes for the user about excluded files.

    Excludes depth images and other kinds recognised by name, and, among 8-bit files, deeper grey files: they would
    otherwise be mixed into the camera's sequence.

    Raises:
        SourceError: The names belong to several cameras.
    """
    kept, notices = list(files), []
    for kind, words in _OTHERS.items():
        others = [file for file in kept if not _words(file).isdisjoint(words)]
        if others and len(others) < len(kept):
            kept = [file for file in kept if _words(file).isdisjoint(words)]
            notices.append(_left_out(folder, others, f"{kind} images by their names"))
    deep = [file for file in kept if is_deep_grey(file)]
    if deep and len(deep) < len(kept):
        chosen = set(deep)
        kept = [file for file in kept if file not in chosen]
        notices.append(_left_out(folder, deep, "grey images of more than 8 bits between others, such as depth"))
    cameras = Counter(_camera(file) for file in kept)
    if len(cameras) > 1 and "" not in cameras:
        counts = ", ".join(f"{count} of {name!r}" for name, count in sorted(cameras.items()))
        raise SourceError(
            f"folder {readable_name(folder)} holds images of {len(cameras)} cameras by their names ({counts}); "
            "expected those of one: move or link each camera's into a folder of its own"
        )
    return kept, notices


def _camera(file: Path) -> str:
    """The camera that a file name contains; empty if none."""
    found = _CAMERA.search(file.stem.lower())
    return found[0] if found else ""


def _words(file: Path) -> set[str]:
    return set(_WORD.findall(file.stem.lower()))


def _left_out(folder: Path, files: Sequence[Path], what: str) -> str:
    names = ", ".join(readable_name(file.name) for file in files[:_SHOWN])
    more = ", ..." if len(files) > _SHOWN else ""
    return (
        f"{len(files)} of the image files in {readable_name(folder)} are left out: they are {what} ({names}{more}); "
        "to have them, move or link them into a folder of their own"
    )


_logger = logging.getLogger(__name__)

# Seconds with a decimal point, or an integer whose number of digits tells its unit; shorter integers are frame numbers.
# A prefix such as "left_" is allowed, but no hours and minutes: the seconds of a date restart each minute.
_STAMP = re.compile(r"(?!.*\d\d[-_.:hH]\d\d[-_.:mM]\d\d\.\d+$)(?:.*[^\d.])?(?P<number>\d+\.\d+|\d{19}|\d{16}|\d{13})")
# Seconds and nanoseconds as in a message, the latter with or without leading zeros.
_SECONDS_AND_NANOSECONDS = re.compile(r"(?:.*\D)?(?P<seconds>\d{10})[_-](?P<nanoseconds>\d{1,9})")
_NS_PER_S = 1_000_000_000


def is_image_folder(path: Path) -> bool:
    """Whether `path` is a folder or an image file."""
    return path.is_dir() or (path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES)


def stamp_from_name(stem: str) -> int | None:
    """The time in ns in a file name without its suffix; None if there is none.

    Seconds with a decimal point ("1311868169.163498"), an integer of 19 (ns), 16 (us) or 13 (ms) digits, or seconds and
    nanoseconds of 10 and 9 digits ("1311868169_163498000").
    """
    match = _SECONDS_AND_NANOSECONDS.fullmatch(stem)
    if match is not None and len(match["nanoseconds"]) == 9:
        return _stamp(match)
    match = _STAMP.fullmatch(stem)
    # A float of seconds since 1970 is exact to 0.2 us only, hence the text.
    return None if match is None else time_from_number(match["number"])


def stamps_from_names(stems: Sequence[str]) -> list[int] | None:
    """The times in ns of all files of a folder; None unless every name contains one and all are different.

    In addition to `stamp_from_name`, recognises nanoseconds without leading zeros by comparison with other names.
    """
    pairs = [_SECONDS_AND_NANOSECONDS.fullmatch(stem) for stem in stems]
    lengths = [len(pair["nanoseconds"]) for pair in pairs if pair is not None]
    if len(lengths) == len(stems) and 9 in lengths:
        stamps = [stamp for pair in pairs if pair is not None and (stamp := _stamp(pair)) is not None]
    else:
        stamps = [stamp for stem in stems if (stamp := stamp_from_name(stem)) is not None]
    return stamps if len(set(stamps)) == len(stems) else None


def _stamp(pair: re.Match[str]) -> int | None:
    stamp_ns = int(pair["seconds"]) * _NS_PER_S + int(pair["nanoseconds"])
    return stamp_ns if stamp_ns < STAMP_LIMIT_NS else None


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that orders "frame2" before "frame10"."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


class ImageFolderSource:
    """The image files of one folder, without subfolders, or one image file.

    If every name contains a different time, these times are the stamps and define the order; otherwise those in a file
    next to the images (`times_file`); otherwise there are no stamps and names are in natural order. Grey files give
    (H, W), colour files (H, W, 3) samples of the file's depth, as stored: an orientation in the metadata is not
    applied. A file that cannot be decoded is skipped with a warning.

    Attributes:
        times_file: Source of the stamps, if not the names.
        lost: Truncated or damaged images of `frames` read so far.
    """

    has_camera = False
    is_live = False

    def __init__(self, path: Path, max_pixels: int = MAX_IMAGE_PIXELS) -> None:
        """Lists the files.

        Args:
            path: A folder or a file.
            max_pixels: Maximum number of pixels of an accepted image.

        Raises:
            SourceError: There is no image in the folder, or there are images of two cameras.
        """
        self._path = path
        self._max_pixels = max_pixels
        self._notices: list[str] = []
        self._warned: set[str] = set()
        self.lost = LostImages()
        files = [path] if path.is_file() else self._listed(path)
        files.sort(key=lambda file: natural_key(file.name))
        self.times_file: Path | None = None
        stamps = stamps_from_names([file.stem for file in files])
        if stamps is None and path.is_dir():
            times, problem = find_times(path.absolute(), [file.name for file in files])
            if times is not None:
                stamps, self.times_file = list(times.stamps_ns), times.path
            elif problem:
                self._notices.append(problem)
        self._stamps: list[int] | None = None
        if stamps is not None:
            order = sorted(range(len(files)), key=stamps.__getitem__)
            files, self._stamps = [files[place] for place in order], [stamps[place] for place in order]
        self._files = files

    @property
    def stamp_origin(self) -> StampOrigin:
        """The names, unless a file contains the times."""
        return "file name" if self.times_file is None else "file of times"

    @property
    def description(self) -> str:
        """Folder and number of images."""
        count = len(self._files)
        return f"{count} image{'' if count == 1 else 's'} from {readable_name(self._path)}"

    @property
    def images_of(self) -> str:
        """What the images belong to, for messages to the user."""
        return readable_name(self._path)

    @property
    def frame_count(self) -> int:
        """Number of image files."""
        return len(self._files)

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The images from position `start` on.

        Raises:
            SourceError: None of them can be decoded.
        """
        readable = 0
        reason = ""
        for frame in self.attempts(start):
            if isinstance(frame, UnreadableFrame):
                reason = frame.reason
                if frame.is_lost:
                    self.lost.note(f"{frame.name}: {reason}")
                _logger.warning("skipped %s: %s", readable_name(self._files[frame.index]), reason)
            else:
                readable += 1
                yield frame
        if not readable and start < len(self._files):
            count = len(self._files) - start
            raise SourceError(
                f"none of the {count} image files in {readable_name(self._path)} can be read (the last one: {reason})"
            )

    def attempts(self, start: int = 0) -> Iterator[Frame | UnreadableFrame]:
        """The images from position `start` on, including those that cannot be decoded."""
        for notice in self._notices:
            self._warn_once(notice, notice)
        for index, file in enumerate(self._files[start:], start):
            stamp_ns = None if self._stamps is None else self._stamps[index]
            name = readable_name(file.name)
            if name != file.name:
                self._warn_once("name", f"{name} has a name that is no UTF-8, which is shown so, also in results")
            try:
                found = read_image_file(file, self._max_pixels)
            except ImageError as error:
                is_lost = isinstance(error, DamagedImageError)
                yield UnreadableFrame(index, name, str(error), stamp_ns, is_lost=is_lost)
                continue
            self._warn_of_ignored(name, found)
            yield Frame(found.samples, index, name, stamp_ns)

    def _listed(self, folder: Path) -> list[Path]:
        try:
            listed = [file for file in folder.iterdir() if not file.name.startswith(".")]
        except OSError as error:
            raise SourceError(f"folder {readable_name(folder)} cannot be read: {error.strerror or error}") from error
        # macOS writes "._name.png" files, which are no images, to foreign disks.
        images = [file for file in listed if file.suffix.lower() in IMAGE_SUFFIXES and not file.is_dir()]
        others = [file for file in listed if file.suffix.lower() in UNREAD_SUFFIXES]
        # Phones and cloud services store converted JPEG files under the original's name.
        disguised = {file for file in others if begins_as_image(file)}
        images += disguised
        unread = Counter(file.suffix.lower() for file in others if file not in disguised)
        found = ", ".join(f"{count} {suffix} files" for suffix, count in sorted(unread.items()))
        if images:
            if found:
                self._notices.append(f"{found} in {readable_name(folder)} are left out: OpenCV may not read them")
            images, notices = one_stream(folder, images)
            self._notices += notices
            return images
        msg = f"folder {readable_name(folder)} contains no images; expected files {' '.join(IMAGE_SUFFIXES)}"
        if found:
            msg += f" (it contains {found}, which OpenCV may not read: convert them to PNG or JPEG)"
        folders = sorted(readable_name(child.name) for child in listed if child.is_dir())
        if folders:
            msg += f" (it contains the folders {', '.join(folders[:10])}: play one of those)"
        raise SourceError(msg)

    def _warn_of_ignored(self, name: str, found: ImageFile) -> None:
        if found.orientation != 1:
            self._warn_once(
                "orientation",
                f"{name} has EXIF orientation {found.orientation}, which is not applied: pixels are taken as stored, "
                "as calibrations, bags and COLMAP have them",
            )
        if found.pages > 1:
            self._warn_once(
                "pages", f"{name} holds {found.pages} images, of which the first is taken; split it to have the others"
            )

    def _warn_once(self, about: str, text: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            _logger.warning("%s", text)
