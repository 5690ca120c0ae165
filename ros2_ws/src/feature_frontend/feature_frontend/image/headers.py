"""What the bytes of an image file announce, and whether they are all there, found out before a decoder sees them.

A few hundred bytes can claim gigapixels, and decoders show a file that is cut off with grey where the rest would be.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from feature_frontend.encodings import MAX_IMAGE_PIXELS, check_image_size
from feature_frontend.errors import DamagedImageError, ImageError
from feature_frontend.image.tiff import ORIENTATION, TiffDirectory, is_tiff, tiff_directories
from feature_frontend.runtime.files import open_regular_file

__all__ = ["ImageHeader", "begins_as_image", "is_deep_grey", "read_header"]

# Each scan of a progressive file is a pass over the whole image; encoders write about ten.
_MAX_JPEG_SCANS = 100
_CONTENT = "expected a complete file"


@dataclass(frozen=True)
class ImageHeader:
    """What is known of an image file without decoding it.

    Attributes:
        height: Of the pixels as stored, px.
        width: As `height`.
        data: The file as a decoder may see it: without what a picture does without.
        orientation: 1 to 8 as EXIF counts them, in which a viewer would show it; 1 where it stays as it is.
        pages: Pictures in the file; a decoder reads the first.
        sample: NumPy's name of the type of a sample, where a decoder may take it for another of its size; else empty.
    """

    height: int
    width: int
    data: bytes
    orientation: int = 1
    pages: int = 1
    sample: str = ""


def begins_as_image(path: Path) -> bool:
    """Whether a file begins as one of the kinds that are read, whatever its suffix says."""
    try:
        with open_regular_file(path) as file:
            start = file.read(16)
    except OSError:
        return False
    return any(kind.matches(start) for kind in _KINDS)


def read_header(data: bytes, max_pixels: int = MAX_IMAGE_PIXELS, kinds: Collection[str] = ()) -> ImageHeader:
    """Reads what an image file announces and checks that all of it is there.

    Args:
        data: The file.
        max_pixels: Most pixels that are accepted.
        kinds: Those of `_KINDS` that are accepted; all where it is empty.

    Raises:
        DamagedImageError: It is empty, cut off or damaged.
        ImageError: It is of none of these kinds, or announces a size of zero, above
            `max_pixels`, or more than its bytes can hold.
    """
    for kind in _KINDS:
        if kind.matches(data) and (not kinds or kind.name in kinds):
            try:
                header = kind.read(data)
            except (IndexError, ValueError, struct.error) as error:
                raise DamagedImageError(_cut_off(data)) from error
            check_image_size(header.height, header.width, max_pixels)
            if kind.pixels_per_byte and header.height * header.width > kind.pixels_per_byte * len(data):
                size = f"{header.width}x{header.height} px"
                msg = f"image of {len(data)} bytes cannot hold the {size} that it announces"
                raise ImageError(msg)
            return header
    start = next((what for begin, what in _OTHERS if begin.match(data)), data[:8].hex(" ") or "nothing")
    expected = " or ".join(kind.expects for kind in _KINDS if kind.name in kinds) or ", ".join(k.name for k in _KINDS)
    msg = f"image of {len(data)} bytes begins with {start}; expected {expected}"
    raise (ImageError if data else DamagedImageError)(msg)


def is_deep_grey(path: Path) -> bool:
    """Whether a PNG, TIFF or PGM file holds one channel of more than 8 bits, as depth and thermal images do.

    Only its beginning is read, of a TIFF file all of it; False also where it cannot be read.
    """
    try:
        with open_regular_file(path) as file:
            start = file.read(256)
            if start.startswith(_PNG):
                return start[24] > 8 and start[25] in {0, 4}
            if is_tiff(start):
                directory = next(tiff_directories(start + file.read()))
                return directory.value(_SAMPLES_PER_PIXEL, 1) == 1 and directory.value(_BITS_PER_SAMPLE, 1) > 8
        kind, (_, _, peak), _ = _pnm_header(start)
        return start[:1] == b"P" and kind in {2, 5} and peak > 255
    except (OSError, IndexError, ValueError, struct.error, StopIteration):
        return False


def _cut_off(data: bytes) -> str:
    return _cut_off_at(len(data))


def _cut_off_at(size: int) -> str:
    return f"image ends after {size} bytes, before the picture does; the rest is missing"


def _exif_orientation(data: bytes) -> int:
    """That of EXIF data, which is not worth an error."""
    try:
        return _valid(next(tiff_directories(data)).value(ORIENTATION, 1)) if is_tiff(data) else 1
    except (ValueError, struct.error, StopIteration):
        return 1


def _valid(orientation: int) -> int:
    return orientation if 1 <= orientation <= 8 else 1


def _read_jpeg(data: bytes) -> ImageHeader:
    offset, orientation = 2, 1
    while True:
        # Between segments anything up to the next marker is passed over, as libjpeg does.
        offset = data.index(b"\xff", offset)
        while data[offset] == 0xFF:
            offset += 1
        marker = data[offset]
        offset += 1
        if marker in _JPEG_WITHOUT_LENGTH:
            continue
        if marker in _JPEG_FRAMES:
            break
        if marker in _JPEG_IMAGE_DATA:
            msg = f"JPEG file has no frame header before its image data; {_CONTENT}"
            raise ImageError(msg)
        (length,) = struct.unpack_from(">H", data, offset)
        if marker == _JPEG_APP1 and data[offset + 2 : offset + 8] == b"Exif\0\0":
            orientation = _exif_orientation(data[offset + 8 : offset + length])
        offset += max(length, 2)
    (length,) = struct.unpack_from(">H", data, offset)
    bits, height, width = struct.unpack_from(">BHH", data, offset + 2)
    if bits != 8:
        msg = f"JPEG file has {bits} bits a sample; expected 8, as OpenCV decodes: convert it to PNG"
        raise ImageError(msg)
    _check_jpeg_scans(data, offset + max(length, 2))
    return ImageHeader(height, width, data, orientation)


def _check_jpeg_scans(data: bytes, offset: int) -> None:
    """Follows the segments from `offset` to the end of the picture, which lies before the end of the file.

    Behind it anything may come: what a driver's buffer held before, a second picture for a preview.
    """
    scans = 0
    while True:
        found = _JPEG_MARKER.search(data, offset)
        if found is None:
            raise DamagedImageError(_cut_off(data))
        marker, offset = data[found.end() - 1], found.end()
        if marker == _JPEG_END:
            return
        if marker not in _JPEG_SEGMENTS:
            # A second picture begins inside this one, or bytes have been lost: a decoder fills the rest with grey.
            msg = f"JPEG file of {len(data)} bytes is damaged at byte {offset}; {_CONTENT}"
            raise DamagedImageError(msg)
        if marker == _JPEG_SCAN:
            scans += 1
            if scans > _MAX_JPEG_SCANS:
                msg = f"JPEG file has more than {_MAX_JPEG_SCANS} scans; expected at most {_MAX_JPEG_SCANS}"
                raise ImageError(msg)
        offset += struct.unpack_from(">H", data, offset)[0]


def _read_png(data: bytes) -> ImageHeader:
    """Leaves out what a picture does without.

    Texts and colour profiles are compressed as well, and inflate when the file is read; animations allocate frames.
    """
    kept = [data[:8]]
    offset, orientation = 8, 1
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, offset)
        end = offset + 12 + length
        if end > len(data):
            raise DamagedImageError(_cut_off(data))
        # The decoder would find out too, and print it for each frame.
        if data[end - 4 : end] != struct.pack(">I", zlib.crc32(data[offset + 4 : end - 4])):
            msg = f"PNG file of {len(data)} bytes is damaged: the checksum of its chunk {kind!r} is wrong"
            raise DamagedImageError(msg)
        if kind == b"eXIf":
            orientation = _exif_orientation(data[offset + 8 : end - 4])
        if kind[0] & 0x20 == 0:
            kept.append(data[offset:end])
        offset = end
    if kept[1][4:8] != b"IHDR":
        msg = f"PNG file begins with the chunk {kept[1][4:8]!r}; expected IHDR"
        raise ImageError(msg)
    width, height = struct.unpack_from(">II", kept[1], 8)
    return ImageHeader(height, width, b"".join(kept), orientation)


def _read_tiff(data: bytes) -> ImageHeader:
    """Sets the orientation to 1, which OpenCV follows in these files whatever it is told."""
    directories = list(tiff_directories(data))
    if not directories:
        raise DamagedImageError(_cut_off(data))
    first = directories[0]
    width, height = first.value(_TIFF_WIDTH, 0), first.value(_TIFF_HEIGHT, 0)
    _check_tiff_pixels(first, width, len(data))
    bits, planes = first.value(_BITS_PER_SAMPLE, 1), first.value(_TIFF_PLANES, 1)
    if planes == 2 and bits > 8 and first.value(_SAMPLES_PER_PIXEL, 1) > 1:
        msg = f"TIFF file has its colours of {bits} bits in planes, which OpenCV mixes up; convert it to PNG"
        raise ImageError(msg)
    sample = {1: "u", 2: "i", 3: "f"}.get(first.value(_TIFF_SAMPLE_FORMAT, 1), "")
    pages = sum(not directory.value(_TIFF_SUBFILE, 0) & _TIFF_NO_PAGE for directory in directories)
    stack = _IMAGEJ_STACK.search(data)
    pages = max(pages, 1) if stack is None else max(pages, int(stack[1]))
    orientation = _valid(first.value(ORIENTATION, 1))
    if orientation != 1:
        entry = first.entries[ORIENTATION]
        upright = bytearray(data)
        struct.pack_into(entry.format, upright, entry.offset, 1)
        data = bytes(upright)
    return ImageHeader(height, width, data, orientation, pages, f"{sample}{bits // 8}" if sample and bits >= 8 else "")


def _check_tiff_pixels(directory: TiffDirectory, width: int, size: int) -> None:
    is_tiled = _TIFF_TILES in directory.entries
    offsets = directory.values(_TIFF_TILES if is_tiled else _TIFF_STRIPS)
    counts = directory.values(_TIFF_TILE_BYTES if is_tiled else _TIFF_STRIP_BYTES)
    if not offsets:
        msg = f"TIFF file of {size} bytes has no pixels in its first directory; {_CONTENT}"
        raise ImageError(msg)
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
        # Some writers announce more bytes for the last strip of plain pixels than it has.
        needed = min(announced, row_bytes * (height - rows * (strips - 1) if is_last else rows))
        if offset + (needed if is_plain else announced) > size:
            raise DamagedImageError(_cut_off_at(size))


def _read_pnm(data: bytes) -> ImageHeader:
    kind, (width, height, peak), start = _pnm_header(data)
    channels = 3 if kind in {3, 6} else 1
    if kind <= 3:
        samples = re.findall(rb"[01]" if kind == 1 else rb"\d+", data[start:])
        is_whole = len(samples) >= width * height * channels
    else:
        row = (width + 7) // 8 if kind == 4 else width * channels * (2 if peak > 255 else 1)
        is_whole = len(data) - start >= row * height
    if not is_whole:
        raise DamagedImageError(_cut_off(data))
    return ImageHeader(height, width, data)


def _pnm_header(data: bytes) -> tuple[int, tuple[int, int, int], int]:
    """Kind, (width, height, largest sample), and where the pixels begin.

    Raises:
        ValueError: A number is missing.
    """
    kind, offset = int(data[1:2]), 2
    numbers = []
    for _ in range(2 if kind in {1, 4} else 3):
        found = _PNM_NUMBER.match(data, offset)
        if found is None:
            msg = "a number is missing"
            raise ValueError(msg)
        numbers.append(int(found[1]))
        offset = found.end()
    width, height, peak = (*numbers, 1)[:3]
    return kind, (width, height, peak), offset + 1


def _read_bmp(data: bytes) -> ImageHeader:
    size, pixels, header = struct.unpack_from("<I4xII", data, 2)
    compression = 0
    if header == 12:
        width, height, bits = struct.unpack_from("<HH2xH", data, 18)
    else:
        width, height, bits, compression = struct.unpack_from("<ii2xHI", data, 18)
    height = abs(height)
    is_run_length = compression in {1, 2}
    needed = size if is_run_length else pixels + (width * bits + 31) // 32 * 4 * height
    if needed > len(data):
        raise DamagedImageError(_cut_off(data))
    return ImageHeader(height, width, data)


def _read_webp(data: bytes) -> ImageHeader:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise DamagedImageError(_cut_off(data))
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
    elif kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    orientation, offset = 1, 12
    while offset + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, offset)
        if kind == b"EXIF":
            orientation = _exif_orientation(data[offset + 8 : offset + 8 + length].removeprefix(b"Exif\0\0"))
        offset += 8 + length + length % 2
    return ImageHeader(height, width, data, orientation)


@dataclass(frozen=True)
class _Kind:
    """A row of `_KINDS`.

    Attributes:
        name: What to call it.
        expects: How its files begin, for messages.
        matches: Whether a file begins so.
        read: Its reader.
        pixels_per_byte: Most that a byte can stand for; 0 where the reader compares them itself.
    """

    name: str
    expects: str
    matches: Callable[[bytes], bool]
    read: Callable[[bytes], ImageHeader]
    pixels_per_byte: int = 0


_PNG = b"\x89PNG\r\n\x1a\n"
_KINDS = (
    # 64 pixels for each bit, which a block of 8x8 px takes at least for its mean.
    _Kind("JPEG", "JPEG (ff d8 ff)", lambda data: data.startswith(b"\xff\xd8\xff"), _read_jpeg, 64 * 8),
    # A bit a pixel that Deflate has shrunk 1032 times.
    _Kind("PNG", "PNG (89 50 4e 47)", lambda data: data.startswith(_PNG), _read_png, 1032 * 8),
    _Kind("TIFF", "TIFF (49 49 2a 00)", is_tiff, _read_tiff),
    _Kind("PNM", "PNM (50 31 to 50 36)", lambda data: re.match(rb"P[1-6]\s", data) is not None, _read_pnm),
    _Kind("BMP", "BMP (42 4d)", lambda data: data.startswith(b"BM"), _read_bmp),
    _Kind("WebP", "WebP (52 49 46 46)", lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _read_webp),
)
# What lies under the name of an image where downloads and phones have put something else.
_OTHERS = (
    (re.compile(rb"version https://git-lfs"), "a pointer of Git LFS (get the files with: git lfs pull)"),
    (re.compile(rb".{4}ftyp", re.DOTALL), "the header of HEIF, AVIF or a video (convert it to JPEG or PNG)"),
    (re.compile(rb"\s*<(!doctype|html)", re.IGNORECASE), "a web page (download the file again)"),
)
# SOF0 to SOF15 without the tables (DHT, JPG, DAC) between them.
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# A stuffed byte, TEM, and the restart markers.
_JPEG_WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xD8)}
_JPEG_IMAGE_DATA = {0xD9, 0xDA}
_JPEG_APP1, _JPEG_END, _JPEG_SCAN = 0xE1, 0xD9, 0xDA
# What may come after the frame header: tables, scans, DNL, applications' segments and comments.
_JPEG_SEGMENTS = {0xC4, 0xCC, *range(0xDA, 0xE0), *range(0xE0, 0xF0), 0xFE}
# Not a stuffed byte, filling, TEM or a restart marker.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]", re.DOTALL)
_PNM_NUMBER = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])+(\d{1,9})")
_TIFF_SUBFILE, _TIFF_WIDTH, _TIFF_HEIGHT, _BITS_PER_SAMPLE, _TIFF_COMPRESSION = 254, 256, 257, 258, 259
_TIFF_STRIPS, _SAMPLES_PER_PIXEL, _TIFF_ROWS_PER_STRIP, _TIFF_STRIP_BYTES = 273, 277, 278, 279
_TIFF_PLANES, _TIFF_TILES, _TIFF_TILE_BYTES, _TIFF_SAMPLE_FORMAT = 284, 324, 325, 339
# Reduced copies and masks.
_TIFF_NO_PAGE = 1 | 4
# What ImageJ says of a file of plain pixels with one directory for all of its pictures.
_IMAGEJ_STACK = re.compile(rb"ImageJ=[^\0]{0,200}?\nimages=(\d{1,9})\n")
