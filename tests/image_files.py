"""Image files as cameras and programs write them, created byte by byte where OpenCV cannot."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "LOSSLESS",
    "damaged_corpus",
    "encoded",
    "jpeg_by_hand",
    "png_by_hand",
    "png_chunk",
    "tiff",
    "with_orientation",
]

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


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_by_hand(
    width: int, height: int, bits: int, colour: int, compressed: bytes, before: bytes = b"", *, interlaced: bool = False
) -> bytes:
    """A PNG file of any header, around compressed pixels of any kind; `before` are chunks in front of them."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + before + png_chunk(b"IDAT", compressed) + png_chunk(b"IEND", b"")


def jpeg_by_hand(
    width: int, height: int, scans: list[tuple[bytes, int, int, int, int]], codes: bytes, *, frame: int = 0xC2
) -> bytes:
    """A JPEG file of three components and any scans: (components, first and last coefficient, high and low bit).

    The Huffman code 0 is the difference 0 and, of other coefficients, a run of blocks that end; `codes` fill each scan.
    """
    file = b"\xff\xd8" + _segment(0xDB, b"\0" + b"\1" * 64)
    components = b"".join(bytes((number, 0x11, 0)) for number in (1, 2, 3))
    file += _segment(frame, struct.pack(">BHHB", 8, height, width, 3) + components)
    file += _segment(0xC4, bytes((0, 1, *[0] * 15, 0)))
    file += _segment(0xC4, bytes((0x10, 1, 1, *[0] * 14, 0xE0, 0)))
    for names, first, last, high, low in scans:
        listed = b"".join(bytes((name, 0)) for name in names)
        file += _segment(0xDA, bytes((len(names),)) + listed + bytes((first, last, high << 4 | low))) + codes
    return file + b"\xff\xd9"


def damaged_corpus(count: int) -> list[bytes]:
    """Files of every kind that is read, `count` times each with other damage, and PNG and JPEG damaged with care."""
    chance = np.random.default_rng(0)
    noise = chance.integers(0, 255, (48, 64, 3), np.uint8)
    whole = [encoded(noise, suffix) for suffix in (".png", ".jpg", ".bmp", ".webp", ".tiff", ".ppm")]
    whole.append(cv2.imencode(".tiff", noise)[1].tobytes())
    whole.append(encoded(noise, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    whole.append(encoded(noise, ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2))
    corpus = []
    for data in whole:
        for number in range(count):
            damaged = bytearray(data)
            # By turns at the front, where the headers are, and anywhere.
            limit = min(len(data), 300) if number % 2 else len(data)
            for place in chance.integers(0, limit, chance.integers(1, 9)):
                damaged[place] = chance.integers(0, 256)
            cut = chance.integers(1, len(data)) if number % 5 == 0 else len(data)
            corpus.append(bytes(damaged[:cut]) + (data[-2:] if data[:1] == b"\xff" else b""))
    rows = b"".join(b"\0" + row.tobytes() for row in noise[..., 0])
    pixels = zlib.compress(rows)
    short, long, filtered = zlib.compress(rows[:999]), zlib.compress(rows * 9), zlib.compress(b"\x09" * len(rows))
    corpus += [png_by_hand(64, 48, 8, 0, data) for data in (short, long, filtered, b"", pixels[:-4] + b"1234")]
    corpus += [png_by_hand(64, 48, 8, 0, b"\x78\x9c" + b"\xff" * 99), png_by_hand(1, 2_000_000, 8, 0, pixels)]
    corpus += [png_by_hand(64, 48, bits, colour, pixels) for bits in (1, 3, 8, 16) for colour in (0, 2, 3, 5, 6)]
    odd = [(b"PLTE", 6), (b"PLTE", 7), (b"PLTE", 0), (b"ABCD", 7), (b"IHDR", 13), (b"iCCP", 9), (b"tRNS", 1)]
    corpus += [
        png_by_hand(64, 48, 8, colour, pixels, png_chunk(kind, bytes(size)) * times)
        for kind, size in odd
        for times in (1, 3, 400)
        for colour in (0, 3)
    ]
    corpus += [
        jpeg_by_hand(64, 48, [scan] * 3, codes) for scan in _ODD_SCANS for codes in (b"", b"\0" * 99, b"\x5a" * 99)
    ]
    corpus += [whole[1][:-2] + b"\x12\x34" * 9 + whole[1][-2:], whole[1][: len(whole[1]) // 2] + whole[1][-2:]]
    return corpus


# In a progressive file: one after the other where they may not, of components that are not there.
_ODD_SCANS = (
    (b"\1\2\3", 0, 0, 0, 0),
    (b"\1\2\3", 0, 0, 1, 0),
    (b"\1", 1, 63, 0, 0),
    (b"\1", 1, 63, 3, 1),
    (b"\1", 0, 63, 0, 0),
    (b"\1", 40, 20, 0, 0),
    (b"\7", 1, 63, 0, 0),
    (b"", 0, 0, 0, 0),
)


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def _webp_size(data: bytes) -> tuple[int, int]:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return decoded.shape[1], decoded.shape[0]
