"""A folder of image files, in natural order or in the order of their times."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from feature_frontend.errors import SourceError
from feature_frontend.image.headers import begins_as_image, is_deep_grey
from feature_frontend.image.image_file import IMAGE_SUFFIXES
from feature_frontend.image.limits import MAX_IMAGE_PIXELS
from feature_frontend.sources.image_files import ImageFilesSource, calibration_or_notice
from feature_frontend.sources.times_file import STAMP_LIMIT_NS, UNIT, find_times, time_from_number, wrong_unit
from feature_frontend.system.files import readable_name

__all__ = [
    "CAMERA_FILE",
    "ImageFolderSource",
    "is_image_folder",
    "natural_key",
    "one_stream",
    "stamp_from_name",
    "stamps_from_names",
]

CAMERA_FILE = "camera.yaml"
"""Calibration of a folder of images whose layout has no file for it."""

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


class ImageFolderSource(ImageFilesSource):
    """The image files of one folder, without subfolders, or one image file.

    If every name contains a different time, these times are the stamps and define the order; otherwise those in a file
    next to the images (`times_file`); otherwise there are no stamps and names are in natural order. The calibration is
    that in a camera.yaml among the images, in any format of `read_calibration_file`.

    Attributes:
        times_file: Source of the stamps, if not the names.
        camera_file: Source of the calibration; None without one.
    """

    def __init__(self, path: Path, max_pixels: int = MAX_IMAGE_PIXELS) -> None:
        """Lists the files.

        Args:
            path: A folder or a file.
            max_pixels: Maximum number of pixels of an accepted image.

        Raises:
            SourceError: There is no image in the folder, or there are images of two cameras.
        """
        files, notices = ([path], []) if path.is_file() else _listed(path)
        files.sort(key=lambda file: natural_key(file.name))
        self.times_file: Path | None = None
        stamps = stamps_from_names([file.stem for file in files])
        if stamps is None and path.is_dir():
            times, problem = find_times(path.absolute(), [file.name for file in files])
            if times is not None:
                stamps, self.times_file = list(times.stamps_ns), times.path
            elif problem:
                notices.append(problem)
        if stamps is not None:
            order = sorted(range(len(files)), key=stamps.__getitem__)
            files, stamps = [files[place] for place in order], [stamps[place] for place in order]
            if self.times_file is not None:
                notices += filter(None, [wrong_unit(self.times_file, stamps, UNIT)])
        camera_file, camera = path.absolute() / CAMERA_FILE, None
        if path.is_dir() and camera_file.is_file():
            camera, problems = calibration_or_notice(camera_file)
            notices += problems
        self.camera_file = camera_file if camera is not None else None
        super().__init__(path, files, stamps, max_pixels=max_pixels, notices=notices, camera=camera)
        self.stamp_origin = "file name" if self.times_file is None else "file of times"


def _listed(folder: Path) -> tuple[list[Path], list[str]]:
    """The images of a folder, and notices about what is left out."""
    try:
        found = [file for file in folder.iterdir() if not file.name.startswith(".")]
    except OSError as error:
        raise SourceError(f"folder {readable_name(folder)} cannot be read: {error.strerror or error}") from error
    # macOS writes "._name.png" files, which are no images, to foreign disks.
    images = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES and not file.is_dir()]
    others = [file for file in found if file.suffix.lower() in UNREAD_SUFFIXES]
    # Phones and cloud services store converted JPEG files under the original's name.
    disguised = {file for file in others if begins_as_image(file)}
    images += disguised
    unread = Counter(file.suffix.lower() for file in others if file not in disguised)
    counts = ", ".join(f"{count} {suffix} files" for suffix, count in sorted(unread.items()))
    if images:
        notices = [f"{counts} in {readable_name(folder)} are left out: OpenCV may not read them"] if counts else []
        images, further = one_stream(folder, images)
        return images, notices + further
    msg = f"folder {readable_name(folder)} contains no images; expected files {' '.join(IMAGE_SUFFIXES)}"
    if counts:
        msg += f" (it contains {counts}, which OpenCV may not read: convert them to PNG or JPEG)"
    folders = sorted(readable_name(child.name) for child in found if child.is_dir())
    if folders:
        msg += f" (it contains the folders {', '.join(folders[:10])}: play one of those)"
    raise SourceError(msg)
