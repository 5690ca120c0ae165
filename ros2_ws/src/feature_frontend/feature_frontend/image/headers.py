"""Checks the declared size and the completeness of an image file before it is decoded.

A few hundred bytes can claim gigapixels, and decoders fill the missing part of a truncated file with grey.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feature_frontend.errors import DamagedImageError, ImageError
from feature_frontend.image.image_header import (
    WHOLE_FILE,
    ImageHeader,
    Limits,
    cut_off,
    exif_orientation,
    valid_orientation,
)
from feature_frontend.image.jpeg import read_jpeg
from feature_frontend.image.limits import MAX_IMAGE_PIXELS
from feature_frontend.image.png import PNG_SIGNATURE, read_png
from feature_frontend.image.tiff import ORIENTATION, TiffDirectory, is_tiff, tiff_directories
from feature_frontend.system.files import open_regular_file

__all__ = ["begins_as_image", "is_deep_grey", "read_header"]


def begins_as_image(path: Path) -> bool:
    """Whether a file starts like one of the supported formats, whatever its suffix."""
    try:
        with open_regular_file(path) as file:
            start = file.read(16)
    except OSError:
        return False
    return any(kind.matches(start) for kind in _KINDS)


def read_header(
    data: bytes,
    max_pixels: int = MAX_IMAGE_PIXELS,
    kinds: Collection[str] = (),
    max_decoding_ms: float = math.inf,
) -> ImageHeader:
    """Reads the header of an image file and checks that the file is complete.

    Args:
        data: The file's content.
        max_pixels: Maximum number of pixels.
        kinds: The formats of `_KINDS` to accept; empty for all.
        max_decoding_ms: Maximum decoding time, as estimated for JPEG and PNG, ms; `live_decoding_ms` has the limit of
            a node.

    Raises:
        DamagedImageError: The file is empty, truncated or damaged.
        ImageError: The format is not accepted; the declared size is zero, above `max_pixels`, or more than the file
            can hold; or decoding would take too long.
    """
    limits = Limits(max_pixels, max_decoding_ms)
    for kind in _KINDS:
        if kind.matches(data) and (not kinds or kind.name in kinds):
            try:
                return kind.read(data, limits)
            except (IndexError, ValueError, struct.error) as error:
                raise cut_off(len(data)) from error
    start = next((what for begin, what in _OTHERS if begin.match(data)), data[:8].hex(" ") or "nothing")
    expected = " or ".join(kind.expects for kind in _KINDS if kind.name in kinds) or ", ".join(k.name for k in _KINDS)
    kind_of_error = ImageError if data else DamagedImageError
    raise kind_of_error(f"image of {len(data)} bytes begins with {start}; expected {expected}")


def is_deep_grey(path: Path) -> bool:
    """Whether a PNG, TIFF or PGM file has one channel of more than 8 bits, like depth and thermal images.

    Reads only the beginning of the file (a TIFF file as a whole); False if it cannot be read.
    """
    try:
        with open_regular_file(path) as file:
            start = file.read(256)
            if start.startswith(PNG_SIGNATURE):
                return start[24] > 8 and start[25] in {0, 4}
            if is_tiff(start):
                directory = next(tiff_directories(start + file.read()))
                return directory.value(_SAMPLES_PER_PIXEL, 1) == 1 and directory.value(_BITS_PER_SAMPLE, 1) > 8
        kind, (_, _, peak), _ = _pnm_header(start)
        return start[:1] == b"P" and kind in {2, 5} and peak > 255
    except (OSError, IndexError, ValueError, struct.error, StopIteration):
        return False


def _read_tiff(data: bytes, limits: Limits) -> ImageHeader:
    """Sets the orientation to 1, because OpenCV always applies it in TIFF files."""
    directories = list(tiff_directories(data))
    if not directories:
        raise cut_off(len(data))
    first = directories[0]
    width, height = first.value(_TIFF_WIDTH, 0), first.value(_TIFF_HEIGHT, 0)
    limits.check_size(height, width)
    _check_tiff_pixels(first, width, len(data))
    bits, planes = first.value(_BITS_PER_SAMPLE, 1), first.value(_TIFF_PLANES, 1)
    if planes == 2 and bits > 8 and first.value(_SAMPLES_PER_PIXEL, 1) > 1:
        raise ImageError(
            f"TIFF file has its colours of {bits} bits in planes, which OpenCV mixes up; convert it to PNG"
        )
    sample = {1: "u", 2: "i", 3: "f"}.get(first.value(_TIFF_SAMPLE_FORMAT, 1), "")
    pages = sum(not directory.value(_TIFF_SUBFILE, 0) & _TIFF_NO_PAGE for directory in directories)
    stack = _IMAGEJ_STACK.search(data)
    pages = max(pages, 1) if stack is None else max(pages, int(stack[1]))
    orientation = valid_orientation(first.value(ORIENTATION, 1))
    if orientation != 1:
        entry = first.entries[ORIENTATION]
        upright = bytearray(data)
        struct.pack_into(entry.format, upright, entry.offset, 1)
        data = bytes(upright)
    return ImageHeader(height, width, data, orientation, pages, f"{sample}{bits // 8}" if sample and bits >= 8 else "")


def _check_tiff_pixels(directory: TiffDirectory, width: int, size: int) -> None:
    is_tiled = _TIFF_TILES in directory.entries
    if is_tiled:
        tile = directory.value(_TIFF_TILE_WIDTH, 0) * directory.value(_TIFF_TILE_HEIGHT, 0)
        # A decoder allocates whole tiles, however small the picture.
        if tile > max(_TIFF_TILE_PIXELS, 4 * width * directory.value(_TIFF_HEIGHT, 0)):
            raise ImageError(f"TIFF file has tiles of {tile} px, far more than its picture")
    listed = directory.entries.get(_TIFF_TILES if is_tiled else _TIFF_STRIPS)
    if listed is not None and listed.count > _TIFF_MAX_PARTS:
        raise ImageError(f"TIFF file has its picture in {listed.count} parts; expected at most {_TIFF_MAX_PARTS}")
    offsets = directory.values(_TIFF_TILES if is_tiled else _TIFF_STRIPS)
    counts = directory.values(_TIFF_TILE_BYTES if is_tiled else _TIFF_STRIP_BYTES)
    if not offsets:
        raise ImageError(f"TIFF file of {size} bytes has no pixels in its first directory; {WHOLE_FILE}")
    height = directory.value(_TIFF_HEIGHT, 0)
    rows = max(min(directory.value(_TIFF_ROWS_PER_STRIP, height), height), 1)
    is_planar = directory.value(_TIFF_PLANES, 1) == 2
    channels = 1 if is_planar else directory.value(_SAMPLES_PER_PIXEL, 1)
    row_bytes = (width * channels * directory.value(_BITS_PER_SAMPLE, 1) + 7) // 8
    strips = -(-height // rows)
    is_plain = not is_tiled and directory.value(_TIFF_COMPRESSION, 1) == 1
    for number, offset in enumerate(offsets):
        announced = counts[number] if number < len(counts) else size if is_plain else 0
        is_last = (number + 1) % strips == 0
        # Some writers declare more bytes for the last uncompressed strip than it has.
        needed = min(announced, row_bytes * (height - rows * (strips - 1) if is_last else rows))
        if offset + (needed if is_plain else announced) > size:
            raise cut_off(size)


def _read_pnm(data: bytes, limits: Limits) -> ImageHeader:
    kind, (width, height, peak), start = _pnm_header(data)
    limits.check_size(height, width)
    channels = 3 if kind in {3, 6} else 1
    if kind <= 3:
        is_whole = _count_numbers(data[start:], is_by_digit=kind == 1) >= width * height * channels
    else:
        row = (width + 7) // 8 if kind == 4 else width * channels * (2 if peak > 255 else 1)
        is_whole = len(data) - start >= row * height
    if not is_whole:
        raise cut_off(len(data))
    return ImageHeader(height, width, data)


def _count_numbers(text: bytes, *, is_by_digit: bool) -> int:
    """Counts decimal numbers, or digits, without building a list."""
    codes = np.frombuffer(text, np.uint8)
    if is_by_digit:
        return int(((codes == ord("0")) | (codes == ord("1"))).sum())
    is_digit = (codes >= ord("0")) & (codes <= ord("9"))
    return int((is_digit[1:] & ~is_digit[:-1]).sum()) + int(is_digit[:1].sum())


def _pnm_header(data: bytes) -> tuple[int, tuple[int, int, int], int]:
    """Kind, (width, height, largest sample), and the offset of the pixels.

    Raises:
        ValueError: A number is missing.
    """
    kind, offset = int(data[1:2]), 2
    numbers = []
    for _ in range(2 if kind in {1, 4} else 3):
        found = _PNM_NUMBER.match(data, offset)
        if found is None:
            raise ValueError("a number is missing")
        numbers.append(int(found[1]))
        offset = found.end()
    width, height, peak = (*numbers, 1)[:3]
    return kind, (width, height, peak), offset + 1


def _read_bmp(data: bytes, limits: Limits) -> ImageHeader:
    size, pixels, header = struct.unpack_from("<I4xII", data, 2)
    compression = 0
    if header == 12:
        width, height, bits = struct.unpack_from("<HH2xH", data, 18)
    else:
        width, height, bits, compression = struct.unpack_from("<ii2xHI", data, 18)
    height = abs(height)
    limits.check_size(height, width)
    is_run_length = compression in {1, 2}
    needed = size if is_run_length else pixels + (width * bits + 31) // 32 * 4 * height
    if needed > len(data):
        raise cut_off(len(data))
    return ImageHeader(height, width, data)


def _read_webp(data: bytes, limits: Limits) -> ImageHeader:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise cut_off(len(data))
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
    elif kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    limits.check_size(height, width)
    orientation, offset = 1, 12
    while offset + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, offset)
        if kind == b"EXIF":
            orientation = exif_orientation(data[offset + 8 : offset + 8 + length].removeprefix(b"Exif\0\0"))
        offset += 8 + length + length % 2
    return ImageHeader(height, width, data, orientation)


@dataclass(frozen=True)
class _Kind:
    """A row of `_KINDS`.

    Attributes:
        name: Name of the format.
        expects: First bytes of its files, for messages.
        matches: Whether a file starts with them.
        read: Reads its header.
    """

    name: str
    expects: str
    matches: Callable[[bytes], bool]
    read: Callable[[bytes, Limits], ImageHeader]


_KINDS = (
    _Kind("JPEG", "JPEG (ff d8 ff)", lambda data: data.startswith(b"\xff\xd8\xff"), read_jpeg),
    _Kind("PNG", "PNG (89 50 4e 47)", lambda data: data.startswith(PNG_SIGNATURE), read_png),
    _Kind("TIFF", "TIFF (49 49 2a 00)", is_tiff, _read_tiff),
    _Kind("PNM", "PNM (50 31 to 50 36)", lambda data: re.match(rb"P[1-6]\s", data) is not None, _read_pnm),
    _Kind("BMP", "BMP (42 4d)", lambda data: data.startswith(b"BM"), _read_bmp),
    _Kind("WebP", "WebP (52 49 46 46)", lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _read_webp),
)
# Other content that downloads and phones store under the name of an image.
_OTHERS = (
    (re.compile(rb"version https://git-lfs"), "a pointer of Git LFS (get the files with: git lfs pull)"),
    (re.compile(rb".{4}ftyp", re.DOTALL), "the header of HEIF, AVIF or a video (convert it to JPEG or PNG)"),
    (re.compile(rb"\s*<(!doctype|html)", re.IGNORECASE), "a web page (download the file again)"),
)
_PNM_NUMBER = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])+(\d{1,9})")
_TIFF_SUBFILE, _TIFF_WIDTH, _TIFF_HEIGHT, _BITS_PER_SAMPLE, _TIFF_COMPRESSION = 254, 256, 257, 258, 259
_TIFF_STRIPS, _SAMPLES_PER_PIXEL, _TIFF_ROWS_PER_STRIP, _TIFF_STRIP_BYTES = 273, 277, 278, 279
_TIFF_PLANES, _TIFF_TILES, _TIFF_TILE_BYTES, _TIFF_SAMPLE_FORMAT = 284, 324, 325, 339
_TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 322, 323
_TIFF_TILE_PIXELS, _TIFF_MAX_PARTS = 2**22, 1_000_000
# Flags of reduced copies and of masks.
_TIFF_NO_PAGE = 1 | 4
# ImageJ's description of an uncompressed file that has one directory for all of its pictures.
_IMAGEJ_STACK = re.compile(rb"ImageJ=[^\0]{0,200}?\nimages=(\d{1,9})\n")
