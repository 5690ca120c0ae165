"""Decodes `sensor_msgs/CompressedImage`, as written by compressed_image_transport, without ROS."""

from __future__ import annotations

import math
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.errors import ImageError
from feature_frontend.image.encodings import ENCODINGS, to_rgb
from feature_frontend.image.headers import read_header
from feature_frontend.image.image_file import decode_stored
from feature_frontend.image.intensity import DEFAULT_INTENSITY, IntensityRange
from feature_frontend.image.limits import MAX_IMAGE_PIXELS
from feature_frontend.system.text import quoted

__all__ = ["CompressedImageMessage", "compressed_image_samples", "decode_compressed_image"]

Uint8Array = npt.NDArray[np.uint8]

_RGB_ENCODINGS = {"rgb8", "rgba8", "rgb16", "rgba16"}
# The codecs that a sender may use.
_KINDS = ("JPEG", "PNG")


class CompressedImageMessage(Protocol):
    """The fields of `sensor_msgs/CompressedImage` that define the pixels; `data` is any buffer of bytes."""

    format: str
    data: Any


def decode_compressed_image(
    message: CompressedImageMessage,
    intensity: IntensityRange = DEFAULT_INTENSITY,
    max_pixels: int = MAX_IMAGE_PIXELS,
    max_decoding_ms: float = math.inf,
) -> Uint8Array:
    """Decodes a compressed image message to (H, W) grey or (H, W, 3) RGB uint8.

    The data determine the codec; `format` says what the pixels were before ("rgb8; jpeg compressed bgr8").

    Args:
        message: A `sensor_msgs/CompressedImage` with a JPEG or PNG file, read by any library.
        intensity: How 16-bit samples are converted to grey levels.
        max_pixels: Maximum number of pixels.
        max_decoding_ms: Maximum decoding time, as estimated from the header, ms; in a node
            `live_decoding_ms(max_pixels)`.

    Raises:
        DamagedImageError: The data are empty, truncated or damaged.
        ImageError: The data are not a JPEG or PNG file, declare more than `max_pixels`, or would take longer than
            `max_decoding_ms`; or the message is a compressedDepth image.
    """
    return intensity.to_grey_levels(compressed_image_samples(message, max_pixels, max_decoding_ms))


def compressed_image_samples(
    message: CompressedImageMessage, max_pixels: int = MAX_IMAGE_PIXELS, max_decoding_ms: float = math.inf
) -> npt.NDArray[Any]:
    """Decodes a compressed image message to (H, W) grey or (H, W, 3) RGB samples with the bit depth of its file.

    Args:
        message: As for `decode_compressed_image`.
        max_pixels: As for `decode_compressed_image`.
        max_decoding_ms: As for `decode_compressed_image`.

    Raises:
        ImageError: As for `decode_compressed_image`.
    """
    if "compressedDepth" in message.format:
        raise ImageError(
            f"image format {quoted(message.format)} is a depth image in a container of its own; republish it as raw "
            "(ros2 run image_transport republish) and set image_transport to raw"
        )
    try:
        pixels = decode_stored(read_header(bytes(message.data), max_pixels, _KINDS, max_decoding_ms))
    except ImageError as error:
        raise type(error)(f"compressed {error}") from error
    original, _, codec = message.format.partition(";")
    original = original.strip()
    if pixels.ndim == 3:
        # RGB that was encoded without conversion comes out as RGB, although OpenCV treats it as BGR.
        is_rgb = bool(codec) and original in _RGB_ENCODINGS and "compressed bgr" not in codec
        return pixels if is_rgb else to_rgb(pixels, cv2.COLOR_BGR2RGB)
    # A Bayer mosaic compressed directly, mostly as PNG; "compressed mono8" was converted to grey before.
    encoding = ENCODINGS.get(original)
    if encoding is not None and encoding.is_bayer and codec.split()[-1:] == ["compressed"]:
        assert encoding.to_rgb is not None
        return to_rgb(pixels, encoding.to_rgb)
    return pixels
