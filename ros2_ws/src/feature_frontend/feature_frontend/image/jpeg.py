"""JPEG files: reads the header, checks completeness, and estimates the decoding time."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from feature_frontend.errors import DamagedImageError, ImageError
from feature_frontend.image.image_header import (
    WHOLE_FILE,
    ImageHeader,
    Limits,
    check_part_count,
    cut_off,
    exif_orientation,
)

__all__ = ["read_jpeg"]

# 64 pixels per bit: a block of 8x8 px takes at least one bit, for its mean.
_PIXELS_PER_BYTE = 64 * 8
# Each scan of a progressive file is a pass over the whole image; encoders write about ten scans.
_MAX_SCANS = 100
_MAX_COMPONENTS = 4
# SOF0 to SOF15, without the table markers (DHT, JPG, DAC) between them.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL, _PROGRESSIVE = {0xC0, 0xC1}, {0xC2}
_APP1, _END, _SCAN = 0xE1, 0xD9, 0xDA
# Segments allowed after the frame header: tables, scans, DNL, application segments and comments.
_SEGMENTS = {0xC4, 0xCC, *range(0xDA, 0xE0), *range(0xE0, 0xF0), 0xFE}
# A marker that is not a stuffed byte, fill byte, TEM or restart marker.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]", re.DOTALL)
# ns: per output sample; if all scans are collected first, per stored coefficient and per coefficient visited by a scan;
# per byte of Huffman codes, by kind (the others are slower). docs/image_input.md has the measurements.
_NS_PER_SAMPLE, _NS_PER_COEFFICIENT, _NS_PER_VISIT = 2.0, 1.9, 0.9
_NS_PER_SEQUENTIAL_BYTE, _NS_PER_PROGRESSIVE_BYTE, _NS_PER_OTHER_BYTE = 11.0, 40.0, 100.0


@dataclass(frozen=True)
class _Frame:
    """The frame header.

    Attributes:
        marker: Kind of frame.
        coefficients: Number of coefficients of each component by its number, in the order of the file, px.
    """

    marker: int
    height: int
    width: int
    coefficients: dict[int, float]


def read_jpeg(data: bytes, limits: Limits) -> ImageHeader:
    """Follows the segments to the end of the picture.

    Raises:
        DamagedImageError: The file is truncated or damaged.
        ImageError: It has no picture that OpenCV can decode, or exceeds `limits`.
        IndexError, struct.error: The file is truncated.
    """
    offset, orientation, count = 2, 1, 0
    while True:
        # Like libjpeg, skip anything between segments up to the next marker.
        marker, offset = _next_marker(data, offset)
        count += 1
        check_part_count(count, len(data))
        if marker in _FRAMES:
            break
        if marker in {_END, _SCAN}:
            raise ImageError(f"JPEG file has no frame header before its image data; {WHOLE_FILE}")
        (length,) = struct.unpack_from(">H", data, offset)
        if marker == _APP1 and data[offset + 2 : offset + 8] == b"Exif\0\0":
            orientation = exif_orientation(data[offset + 8 : offset + length])
        offset += max(length, 2)
    frame = _read_frame(data, offset, marker)
    limits.check_size(frame.height, frame.width)
    (length,) = struct.unpack_from(">H", data, offset)
    scans = _scans(data, offset + max(length, 2), count)
    limits.check_density(frame.height, frame.width, len(data), _PIXELS_PER_BYTE)
    limits.check_decoding(
        _decoding_ms(frame, scans, len(data)),
        f"JPEG file of {frame.width}x{frame.height} px, {len(data)} bytes and {len(scans)} scan(s)",
    )
    return ImageHeader(frame.height, frame.width, data, orientation)


def _next_marker(data: bytes, offset: int) -> tuple[int, int]:
    """The next marker, and the offset of its end."""
    found = _MARKER.search(data, offset)
    if found is None:
        raise cut_off(len(data))
    return data[found.end() - 1], found.end()


def _read_frame(data: bytes, offset: int, marker: int) -> _Frame:
    bits, height, width, components = struct.unpack_from(">BHHB", data, offset + 2)
    if bits != 8:
        raise ImageError(f"JPEG file has {bits} bits a sample; expected 8, as OpenCV decodes: convert it to PNG")
    if not 1 <= components <= _MAX_COMPONENTS:
        raise ImageError(f"JPEG file has {components} components; expected 1 (grey), 3 (colour) or 4 (CMYK)")
    factors = {}
    for number in range(components):
        name, sampling = struct.unpack_from("BB", data, offset + 8 + 3 * number)
        factors[name] = sampling >> 4, sampling & 15
    if not all(1 <= factor <= 4 for pair in factors.values() for factor in pair):
        raise DamagedImageError(f"JPEG file has the sampling factors {sorted(factors.values())}; expected 1 to 4")
    most = max(columns for columns, _ in factors.values()) * max(rows for _, rows in factors.values())
    area = height * width
    return _Frame(
        marker, height, width, {name: area * columns * rows / most for name, (columns, rows) in factors.items()}
    )


def _scans(data: bytes, offset: int, count: int) -> list[tuple[int, ...]]:
    """The components of each scan from `offset` to the end of the picture, which must be inside the file.

    Anything may follow the picture: old content of a driver's buffer, a second picture as preview.
    """
    scans: list[tuple[int, ...]] = []
    while True:
        marker, offset = _next_marker(data, offset)
        count += 1
        check_part_count(count, len(data))
        if marker == _END:
            return scans
        if marker not in _SEGMENTS:
            # A second picture starts inside this one, or bytes were lost: a decoder would fill the rest with grey.
            raise DamagedImageError(f"JPEG file of {len(data)} bytes is damaged at byte {offset}; {WHOLE_FILE}")
        length, components = struct.unpack_from(">HB", data, offset)
        if marker == _SCAN:
            if len(scans) == _MAX_SCANS:
                raise ImageError(f"JPEG file has more than {_MAX_SCANS} scans; expected at most {_MAX_SCANS}")
            scans.append(tuple(data[offset + 3 : offset + 3 + 2 * min(components, _MAX_COMPONENTS) : 2]))
        offset += length


def _decoding_ms(frame: _Frame, scans: list[tuple[int, ...]], size: int) -> float:
    """An upper estimate of the decoding time."""
    ns = _NS_PER_SAMPLE * frame.height * frame.width * len(frame.coefficients)
    if frame.marker in _SEQUENTIAL:
        ns += _NS_PER_SEQUENTIAL_BYTE * size
    else:
        ns += (_NS_PER_PROGRESSIVE_BYTE if frame.marker in _PROGRESSIVE else _NS_PER_OTHER_BYTE) * size
    if frame.marker not in _SEQUENTIAL or len(scans) > 1:
        ns += _NS_PER_COEFFICIENT * sum(frame.coefficients.values())
        ns += _NS_PER_VISIT * sum(frame.coefficients.get(name, 0.0) for scan in scans for name in scan)
    return ns * 1e-6
