"""Which image files of a folder are the pictures of one camera, where the images of others lie between them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from feature_frontend.errors import SourceError
from feature_frontend.image.headers import is_deep_grey
from feature_frontend.system.files import readable_name

__all__ = ["UNREAD_SUFFIXES", "one_stream"]

UNREAD_SUFFIXES = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".exr", ".hdr", ".pfm", ".npy"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".raw"),
)
"""Images that no version of OpenCV is sure to read."""

_WORD = re.compile(r"[a-z]+")
# What cameras and data sets call their images that are no pictures, or those of another sensor, beside the pictures.
_OTHERS = {
    "depth": ["depth", "depths", "depthmap", "disparity", "disparities", "disp"],
    "infrared": ["infrared", "infra", "ir", "thermal"],
    "mask": ["mask", "masks"],
}
# "left_0.png", "img_R_0.png", "cam1_000.png"; in "cam7.png" the number may be the image's.
_CAMERA = re.compile(r"(?<![a-z])(?:left|right|l|r)(?![a-z])|(?<![a-z])(?:cam|camera)[_-]?\d+(?=\D+\d)")
_SHOWN = 2


def one_stream(folder: Path, files: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The pictures among the image files of a folder, and what to tell the user of the files that are left out.

    Left out are depth images and others that their names tell from the pictures, and, between files of 8 bits, grey
    ones of more: they would follow each other as if one camera had taken them all.

    Raises:
        SourceError: By their names there are pictures of several cameras.
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
        msg = (
            f"folder {readable_name(folder)} holds images of {len(cameras)} cameras by their names ({counts}); "
            "expected those of one: move or link each camera's into a folder of its own"
        )
        raise SourceError(msg)
    return kept, notices


def _camera(file: Path) -> str:
    """Which camera's a file is by its name; empty where that does not say."""
    found = _CAMERA.search(file.stem.lower())
    return found[0] if found else ""


def _words(file: Path) -> set[str]:
    return set(_WORD.findall(file.stem.lower()))


def _left_out(folder: Path, files: Sequence[Path], what: str) -> str:
    names = ", ".join(readable_name(file.name) for file in files[:_SHOWN])
    more = ", ..." if len(files) > _SHOWN else ""
    return (
        f"{len(files)} of the image files in {readable_name(folder)} are left out, being {what} ({names}{more}); "
        "to have them, move or link them into a folder of their own"
    )
