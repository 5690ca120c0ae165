"""The pixels of a `sensor_msgs/CompressedImage`, as compressed_image_transport writes it, without ROS.

What a file announces is read and checked before a decoder sees it: a few hundred bytes can claim gigapixels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.encodings import ENCODINGS, MAX_IMAGE_PIXELS, check_image_size, quoted, to_rgb
from feature_frontend.errors import ImageError
from feature_frontend.intensity import DEFAULT_INTENSITY, IntensityRange

__all__ = ["CompressedImageMessage", "decode_compressed_image"]

Uint8Array = npt.NDArray[np.uint8]

# As stored: calibrations are for the sensor's image, which an orientation in the file's metadata would turn.
_FLAGS = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
_RGB_ENCODINGS = {"rgb8", "rgba8", "rgb16", "rgba16"}
# Each scan of a progressive file is a pass over the whole image; encoders write about ten.
_MAX_JPEG_SCANS = 100


class CompressedImageMessage(Protocol):
    """The fields of `sensor_msgs/CompressedImage` that say what the pixels are; `data` is any buffer of bytes."""

    format: str
    data: Any


def decode_compressed_image(
    message: CompressedImageMessage, intensity: IntensityRange = DEFAULT_INTENSITY, max_pixels: int = MAX_IMAGE_PIXELS
) -> Uint8Array:
    """The pixels of a compressed image message as (H, W) grey or (H, W, 3) RGB uint8.

    Which codec it is, the data say; `format` says what the pixels were before ("rgb8; jpeg compressed bgr8").

    Args:
        message: A `sensor_msgs/CompressedImage` with a JPEG or PNG file, whichever library read it.
        intensity: How samples of 16 bits become grey levels.
        max_pixels: Most pixels of an image that is accepted.

    Raises:
        ImageError: The data are no JPEG or PNG file, are cut off or damaged, or announce more than `max_pixels`; or the
            message is a compressedDepth image.
    """
    if "compressedDepth" in message.format:
        msg = (
            f"image format {quoted(message.format)} is a depth image in a container of its own; republish it as raw "
            "(ros2 run image_transport republish) and set image_transport to raw"
        )
        raise ImageError(msg)
    data = bytes(message.data)
    pixels = _decode(_checked(data, max_pixels), message.format)
    if pixels.dtype != np.uint8:
        pixels = intensity.to_grey_levels(pixels)
    original, _, codec = message.format.partition(";")
    original = original.strip()
    if pixels.ndim == 3:
        # What went into the encoder as RGB, unconverted, comes out of OpenCV, which believes it is BGR, as RGB.
        is_rgb = bool(codec) and original in _RGB_ENCODINGS and "compressed bgr" not in codec
        return pixels if is_rgb else to_rgb(pixels, cv2.COLOR_BGR2RGB)
    # A mosaic that was compressed as it was, by PNG mostly; "compressed mono8" has been made grey before.
    encoding = ENCODINGS.get(original)
    if encoding is not None and encoding.is_bayer and codec.split()[-1:] == ["compressed"]:
        assert encoding.to_rgb is not None
        return to_rgb(pixels, encoding.to_rgb)
    return pixels


def _checked(data: bytes, max_pixels: int) -> bytes:
    """The file as a decoder may see it.

    Raises:
        ImageError: It is not what `decode_compressed_image` takes.
    """
    for signature, (read_header, pixels_per_byte) in _READERS.items():
        if data.startswith(signature):
            try:
                height, width, file = read_header(data)
            except (IndexError, ValueError, struct.error) as error:
                raise ImageError(_cut_off(data)) from error
            check_image_size(height, width, max_pixels)
            if height * width > pixels_per_byte * len(data):
                msg = f"compressed image of {len(data)} bytes cannot hold the {width}x{height} px that it announces"
                raise ImageError(msg)
            return file
    start = data[:8].hex(" ") or "nothing"
    msg = f"compressed image of {len(data)} bytes begins with {start}; expected JPEG (ff d8 ff) or PNG (89 50 4e 47)"
    raise ImageError(msg)


def _decode(file: bytes, description: str) -> npt.NDArray[Any]:
    try:
        pixels = cv2.imdecode(np.frombuffer(file, np.uint8), _FLAGS)
    except cv2.error:
        # Its text names lines of OpenCV's sources.
        pixels = None
    if pixels is None:
        kind = f"format {quoted(description)} and {len(file)} bytes"
        msg = f"compressed image of {kind} is damaged: OpenCV cannot decode it"
        raise ImageError(msg)
    return pixels


def _read_jpeg(data: bytes) -> tuple[int, int, bytes]:
    """(height, width, file) of a JPEG file."""
    offset = 2
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
            msg = "JPEG file has no frame header before its image data; expected a complete file"
            raise ImageError(msg)
        (length,) = struct.unpack_from(">H", data, offset)
        offset += max(length, 2)
    height, width = struct.unpack_from(">HH", data, offset + 3)
    if data.rfind(b"\xff\xd9") < offset:
        raise ImageError(_cut_off(data))
    scans = data.count(b"\xff\xda", offset)
    if scans > _MAX_JPEG_SCANS:
        msg = f"JPEG file has {scans} scans; expected at most {_MAX_JPEG_SCANS}"
        raise ImageError(msg)
    return height, width, data


def _read_png(data: bytes) -> tuple[int, int, bytes]:
    """(height, width, file) of a PNG file, the file without what a picture does without.

    Texts and colour profiles are compressed as well, and inflate when the file is read; animations allocate frames.
    """
    kept = [data[:8]]
    offset = 8
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, offset)
        end = offset + 12 + length
        if end > len(data):
            raise ImageError(_cut_off(data))
        # The decoder would find out too, and print it for each frame.
        if data[end - 4 : end] != struct.pack(">I", zlib.crc32(data[offset + 4 : end - 4])):
            msg = f"PNG file of {len(data)} bytes is damaged: the checksum of its chunk {kind!r} is wrong"
            raise ImageError(msg)
        if kind[0] & 0x20 == 0:
            kept.append(data[offset:end])
        offset = end
    if kept[1][4:8] != b"IHDR":
        msg = f"PNG file begins with the chunk {kept[1][4:8]!r}; expected IHDR"
        raise ImageError(msg)
    width, height = struct.unpack_from(">II", kept[1], 8)
    return height, width, b"".join(kept)


def _cut_off(data: bytes) -> str:
    return f"compressed image ends after {len(data)} bytes, before the file does; the rest is missing"


# With each, the most pixels that a byte can stand for: of JPEG, 64 for each bit, which a block of 8x8 px takes at least
# for its mean; of PNG, those of a bit a pixel that Deflate has shrunk 1032 times.
_READERS: dict[bytes, tuple[Callable[[bytes], tuple[int, int, bytes]], int]] = {
    b"\xff\xd8\xff": (_read_jpeg, 64 * 8),
    b"\x89PNG\r\n\x1a\n": (_read_png, 1032 * 8),
}
# SOF0 to SOF15 without the tables (DHT, JPG, DAC) between them.
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# A stuffed byte, TEM, and the restart markers.
_JPEG_WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xD8)}
_JPEG_IMAGE_DATA = {0xD9, 0xDA}
