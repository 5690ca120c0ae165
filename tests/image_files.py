"""Image files as cameras and programs leave them, made byte by byte where OpenCV writes none."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["LOSSLESS", "encoded", "tiff", "with_orientation"]

# By suffix, the types of samples and the numbers of channels that files of the kind can have, with an alpha channel
# as the fourth, or the second where there is one of grey.
LOSSLESS = {
    ".png": (("u1", "u2"), (1, 3, 4)),
    ".tiff": (("u1", "i1", "u2", "i2", "i4", "f4", "f8"), (1, 3)),
    ".pgm": (("u1", "u2"), (1,)),
    ".ppm": (("u1", "u2"), (3,)),
    ".bmp": (("u1",), (1, 3)),
    ".webp": (("u1",), (3,)),
}


def encoded(samples: npt.NDArray[Any], suffix: str, *options: int) -> bytes:
    """A file of (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA samples, as far as possible without loss."""
    if suffix == ".tiff":
        return tiff(samples)
    order = slice(None) if samples.ndim == 2 else [2, 1, 0, 3][: samples.shape[2]]
    stored = np.ascontiguousarray(samples if samples.ndim == 2 else samples[..., order])
    options = options or ((cv2.IMWRITE_WEBP_QUALITY, 101) if suffix == ".webp" else ())
    done, data = cv2.imencode(suffix, stored, options)
    assert done
    return data.tobytes()


def tiff(
    samples: npt.NDArray[Any],
    *,
    planar: bool = False,
    bits: int = 0,
    pixels: bytes | None = None,
    tags: tuple[tuple[int, int, int], ...] = (),
    directories: int = 1,
) -> bytes:
    """A plain TIFF file; `tags` are (number, type, value) of more entries, `bits` and `pixels` replace its own."""
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    if pixels is None:
        pixels = (np.moveaxis(samples, -1, 0) if planar else samples).tobytes()
    planes = channels if planar else 1
    size = len(pixels) // planes
    entries = [
        *((256, 4, (width,)), (257, 4, (height,)), (259, 3, (1,)), (262, 3, (2 if channels >= 3 else 1,))),
        (258, 3, (bits or 8 * samples.dtype.itemsize,) * channels),
        (273, 4, tuple(8 + plane * size for plane in range(planes))),
        *((277, 3, (channels,)), (278, 4, (height,)), (279, 4, (size,) * planes), (284, 3, (2 if planar else 1,))),
        (339, 3, ({"u": 1, "i": 2, "f": 3}[samples.dtype.kind],) * channels),
        *((number, kind, (value,)) for number, kind, value in tags),
    ]
    data = b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels
    for number in range(directories):
        data += _directory(sorted(entries), len(data), is_last=number == directories - 1)
    return data


def _directory(entries: list[tuple[int, int, tuple[int, ...]]], start: int, *, is_last: bool) -> bytes:
    behind = start + 2 + 12 * len(entries) + 4
    listed, values = b"", b""
    for number, kind, content in entries:
        packed = struct.pack(f"<{len(content)}{ {3: 'H', 4: 'I'}[kind] }", *content)
        place = packed.ljust(4, b"\0")
        if len(packed) > 4:
            place = struct.pack("<I", behind + len(values))
            values += packed
        listed += struct.pack("<HHI", number, kind, len(content)) + place
    next_one = 0 if is_last else behind + len(values)
    return struct.pack("<H", len(entries)) + listed + struct.pack("<I", next_one) + values


def with_orientation(data: bytes, suffix: str, orientation: int) -> bytes:
    """The JPEG, PNG or WebP file with an EXIF orientation, 1 to 8."""
    # TIFF header, one entry: orientation (0x0112), a SHORT, once.
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)
    if suffix == ".jpg":
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif + data[2:]
    if suffix == ".png":
        chunk = b"eXIf" + exif
        return data[:33] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    assert suffix == ".webp"
    (width, height), image = _webp_size(data), data[12:]
    extended = (
        b"VP8X" + struct.pack("<II", 10, 8) + b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    )
    body = b"WEBP" + extended + image + b"EXIF" + struct.pack("<I", len(exif)) + exif
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_size(data: bytes) -> tuple[int, int]:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return decoded.shape[1], decoded.shape[0]
