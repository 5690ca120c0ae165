"""Compressed image messages: compressed_image_transport's are read, harmful ones are refused before decoding."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.errors import ImageError
from feature_frontend.image.compressed import decode_compressed_image
from feature_frontend.image.intensity import IntensityRange
from tests.image_messages import mosaic
from tests.memory import peak_mib

Uint8Array = npt.NDArray[np.uint8]


@dataclass
class Compressed:
    """What a decoder reads of a `sensor_msgs/CompressedImage`."""

    format: str
    data: bytes


def _file(pixels: npt.NDArray[np.integer], suffix: str, *options: int) -> bytes:
    encoded, data = cv2.imencode(suffix, pixels, options)
    assert encoded
    return data.tobytes()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, *chunks: bytes, rows: bytes = b"") -> bytes:
    """An 8-bit grey PNG file of any announced size; `rows` is its picture before compression."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"".join((b"\x89PNG\r\n\x1a\n", header, *chunks, _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")))


def _with_jpeg_size(file: bytes, width: int, height: int) -> bytes:
    frame = file.index(b"\xff\xc0")
    return file[: frame + 5] + struct.pack(">HH", height, width) + file[frame + 9 :]


@pytest.mark.parametrize(
    ("description", "is_stored_as_rgb"),
    [
        ("png", False),
        ("", False),
        ("rgb8; png compressed bgr8", False),
        ("bgr8; png compressed bgr8", False),
        ("rgba8; png compressed bgr8", False),
        ("yuv422_yuy2; png compressed bgr8", False),
        # What was RGB and went into the encoder as it was comes out of it as it was.
        ("rgb8; png compressed ", True),
        ("rgb8;png compressed rgb8", True),
        ("bgr8; png compressed ", False),
        ("something else; entirely", False),
    ],
)
def test_colours_are_those_that_the_format_says(
    description: str, is_stored_as_rgb: bool, photographs: list[Uint8Array]
) -> None:
    rgb = photographs[0]
    file = _file(rgb if is_stored_as_rgb else rgb[..., ::-1], ".png")
    np.testing.assert_array_equal(decode_compressed_image(Compressed(description, file)), rgb)


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 4)])
def test_jpeg_photographs(options: tuple[int, ...], photographs: list[Uint8Array]) -> None:
    rgb = photographs[0]
    data = _file(rgb[..., ::-1], ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95, *options)
    pixels = decode_compressed_image(Compressed("rgb8; jpeg compressed bgr8", data))
    assert np.abs(pixels.astype(int) - rgb).mean() < 2
    # Drivers that reuse a buffer leave something behind the end of the file.
    padded = decode_compressed_image(Compressed("rgb8; jpeg compressed bgr8", data + bytes(1000)))
    np.testing.assert_array_equal(padded, pixels)
    grey = decode_compressed_image(Compressed("mono8; jpeg compressed mono8", _file(rgb[..., 1], ".jpg")))
    assert grey.shape == rgb.shape[:2]


@pytest.mark.parametrize("description", ["mono16; png compressed ", "16UC1; png compressed "])
def test_16_bit_files_take_the_scaling_of_raw_images(description: str, photographs: list[Uint8Array]) -> None:
    grey = photographs[0][..., 1]
    file = _file(grey.astype(np.uint16) * 3 + 7000, ".png")
    fixed = IntensityRange("fixed", 7000, 7000 + 255 * 3)
    np.testing.assert_array_equal(decode_compressed_image(Compressed(description, file), fixed), grey)
    colour = photographs[0].astype(np.uint16) * 257
    message = Compressed("rgb16; png compressed bgr16", _file(colour[..., ::-1], ".png"))
    np.testing.assert_array_equal(decode_compressed_image(message, IntensityRange("full")), photographs[0])


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_mosaic_that_was_compressed_as_it_was_becomes_a_picture(pattern: str, photographs: list[Uint8Array]) -> None:
    rgb = photographs[0]
    data = _file(mosaic(rgb, pattern), ".png")
    pixels = decode_compressed_image(Compressed(f"bayer_{pattern}8; png compressed ", data))
    assert np.abs(pixels[2:-2, 2:-2].astype(int) - rgb[2:-2, 2:-2]).mean() < 3
    # With the pixel format named, the mosaic was made grey before it was compressed.
    grey = Compressed(f"bayer_{pattern}8; jpeg compressed mono8", _file(rgb[..., 1], ".jpg"))
    assert decode_compressed_image(grey).ndim == 2


@pytest.mark.parametrize(
    ("suffix", "options"), [(".jpg", ()), (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)), (".png", ())]
)
def test_the_emptiest_picture_holds_what_it_announces(suffix: str, options: tuple[int, ...]) -> None:
    blank = np.full((3000, 4000), 255, np.uint8)
    optimal = (cv2.IMWRITE_JPEG_OPTIMIZE, 1) if suffix == ".jpg" else (cv2.IMWRITE_PNG_COMPRESSION, 9)
    file = _file(blank, suffix, *options, *optimal)
    np.testing.assert_array_equal(decode_compressed_image(Compressed("mono8", file)), blank)
    if suffix == ".png":
        two_levels = _file(blank, suffix, *optimal, cv2.IMWRITE_PNG_BILEVEL, 1)
        np.testing.assert_array_equal(decode_compressed_image(Compressed("mono8", two_levels)), blank)


def test_an_orientation_in_the_file_does_not_turn_the_picture(photographs: list[Uint8Array]) -> None:
    data = _file(photographs[0], ".jpg")
    # TIFF header, one entry: orientation (0x0112), a SHORT, once, 6 (a quarter turn).
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (640, 480, 3)
    np.testing.assert_array_equal(
        decode_compressed_image(Compressed("jpeg", turned)), decode_compressed_image(Compressed("jpeg", data))
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_file_cut_off_anywhere_is_refused(suffix: str, photographs: list[Uint8Array]) -> None:
    file = _file(photographs[0][:48, :64], suffix)
    for length in range(4, len(file) - 1, 7):
        with pytest.raises(ImageError, match=rf" {length} bytes"):
            decode_compressed_image(Compressed("jpeg", file[:length]))


def test_sizes_are_checked_before_anything_is_decoded(photographs: list[Uint8Array]) -> None:
    before_mib = peak_mib()
    small = _file(photographs[0][:48, :64], ".jpg")
    for file in (
        _png(60_000, 60_000, rows=bytes(60_000)),
        _png(2**31 - 1, 2**31 - 1),
        _png(2**32 - 1, 1, rows=bytes(100)),
        _with_jpeg_size(small, 65_535, 65_535),
    ):
        with pytest.raises(ImageError, match="at most 50000000 px"):
            decode_compressed_image(Compressed("jpeg", file))
    for file in (_png(7000, 7000, rows=bytes(1000)), _with_jpeg_size(small, 7000, 7000)):
        with pytest.raises(ImageError, match=f"of {len(file)} bytes .* 7000x7000 px"):
            decode_compressed_image(Compressed("jpeg", file))
    assert peak_mib() - before_mib < 20
    with pytest.raises(ImageError, match=r"64x48 px.* at most 3071 px"):
        decode_compressed_image(Compressed("jpeg", small), max_pixels=3071)
    with pytest.raises(ImageError, match="0x48 px"):
        decode_compressed_image(Compressed("jpeg", _with_jpeg_size(small, 0, 48)))


def test_texts_and_profiles_in_a_png_file_are_not_inflated() -> None:
    bomb = zlib.compress(bytes(64 * 2**20))
    texts = [_chunk(b"zTXt", b"name%d\0\0" % number + bomb) for number in range(8)]
    profile = _chunk(b"iCCP", b"profile\0\0" + bomb)
    rows = bytes((0, *range(64))) * 48
    file = _png(64, 48, profile, *texts, rows=rows)
    before_mib = peak_mib()
    pixels = decode_compressed_image(Compressed("mono8; png compressed ", file))
    np.testing.assert_array_equal(pixels, np.tile(np.arange(64, dtype=np.uint8), (48, 1)))
    assert peak_mib() - before_mib < 20


def test_a_jpeg_file_of_endless_scans_is_refused(photographs: list[Uint8Array]) -> None:
    file = _file(photographs[0][:48, :64], ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    scan = file[file.index(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match=r"scans.* at most 100"):
        decode_compressed_image(Compressed("jpeg", file[:-2] + scan * 1000 + file[-2:]))


@pytest.mark.parametrize(
    ("description", "data", "expected"),
    [
        ("16UC1; compressedDepth png", b"\0" * 12 + _png(1, 1), "image_transport"),
        ("jpeg", b"", r"of 0 bytes .*JPEG \(ff d8 ff\) or PNG"),
        ("tiff", b"II*\0\x08\0\0\0", "49 49 2a 00 08 00 00 00.* JPEG"),
        (
            "png",
            _png(64, 48, rows=b"\0" * 100),
            "PNG .* 3020 of 3120 bytes",
        ),
        ("png", _png(64, 48, rows=bytes(65 * 48)).replace(b"IDAT", b"IDAX"), "checksum .*b'IDAX'"),
        ("png", b"\x89PNG\r\n\x1a\n" + _chunk(b"PLTE", b"\0" * 30) + _chunk(b"IEND", b""), "IHDR"),
        ("jpeg", b"\xff\xd8\xff\xd9", "frame header"),
        ("jpeg", b"\xff\xd8\xff\xc0\0\x11\x08\0\x20\0\x20" + bytes(50) + b"\xff\xd9", "has 0 components"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_reason(description: str, data: bytes, expected: str) -> None:
    with pytest.raises(ImageError, match=expected):
        decode_compressed_image(Compressed(description, data))
