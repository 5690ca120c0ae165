"""Conversion of `sensor_msgs/Image` and `CompressedImage` to NumPy and back, without a copy where possible.

`encodings.py` handles most encodings; cv_bridge, if installed, handles the others.
"""

from __future__ import annotations

import importlib
import math
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image

from feature_frontend.errors import ImageError
from feature_frontend.image.compressed import decode_compressed_image
from feature_frontend.image.encodings import ENCODINGS, decode_image, expected_encodings
from feature_frontend.image.intensity import DEFAULT_INTENSITY, IntensityRange
from feature_frontend.image.limits import MAX_IMAGE_PIXELS, check_image_size
from feature_frontend.ros.distribution import apt_package
from feature_frontend.system.text import quoted, short_text

__all__ = ["array_to_image", "image_to_array"]

Uint8Array = npt.NDArray[np.uint8]


def image_to_array(
    message: Image | CompressedImage,
    intensity: IntensityRange = DEFAULT_INTENSITY,
    max_pixels: int = MAX_IMAGE_PIXELS,
    max_decoding_ms: float = math.inf,
) -> Uint8Array:
    """The pixels of `message` as (H, W) grey or (H, W, 3) RGB uint8; a view of the message's buffer where possible.

    Args:
        message: A raw image, or a JPEG or PNG file in a message.
        intensity: Conversion of samples of more than 8 bits to grey levels.
        max_pixels: Maximum number of pixels of an accepted image.
        max_decoding_ms: As in `decode_compressed_image`; in a node `live_decoding_ms(max_pixels)`.

    Raises:
        ImageError: As `decode_image` and `decode_compressed_image`; or the encoding is not supported and cv_bridge is
            missing or refuses it.
    """
    if isinstance(message, CompressedImage):
        return decode_compressed_image(message, intensity, max_pixels, max_decoding_ms)
    if message.encoding in ENCODINGS:
        return decode_image(message, intensity, max_pixels)
    check_image_size(message.height, message.width, max_pixels)
    return _through_cv_bridge(message)


def array_to_image(pixels: npt.NDArray[Any], encoding: str, stamp: Time, frame_id: str) -> Image:
    """An image message that holds `pixels` without conversion.

    Args:
        pixels: (H, W) or (H, W, C), with the channel order and sample type of `encoding`.
        encoding: A key of `ENCODINGS`, but not one with a separate chroma plane.
        stamp: The header's stamp.
        frame_id: The header's frame.

    Raises:
        ImageError: The encoding is unknown, or type or number of channels of the array do not match it.
    """
    layout = ENCODINGS.get(encoding)
    if layout is None or layout.has_chroma_plane:
        writable = ", ".join(name for name, known in ENCODINGS.items() if not known.has_chroma_plane)
        raise ImageError(f"cannot write encoding {encoding!r}; expected one of {writable}")
    sample = np.dtype(layout.sample)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != sample or pixels.ndim not in {2, 3} or channels != layout.channels:
        got = f"pixels have shape {pixels.shape} and type {pixels.dtype}"
        raise ImageError(f"{got}; {encoding} is {sample} with {layout.channels} channel(s)")
    message = Image()
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.height, message.width = (int(side) for side in pixels.shape[:2])
    message.encoding = encoding
    message.is_bigendian = int(sys.byteorder == "big")
    message.step = message.width * layout.channels * sample.itemsize
    # Fill the message's own array: assigning to the field would copy once more.
    message.data.frombytes(np.ascontiguousarray(pixels).view(np.uint8).data)
    return message


def _through_cv_bridge(message: Image) -> Uint8Array:
    try:
        bridge = importlib.import_module("cv_bridge")
    except ImportError as error:
        raise ImageError(
            f"image encoding {quoted(message.encoding)} is not supported without cv_bridge (apt install "
            f"{apt_package('cv_bridge')}); {expected_encodings(message.encoding)}"
        ) from error
    try:
        pixels = bridge.CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8")
    except Exception as error:
        # For a message that it cannot convert, cv_bridge raises its own errors, OpenCV's or TypeError.
        raise ImageError(
            f"cv_bridge cannot convert image encoding {quoted(message.encoding)} to rgb8: {short_text(error)}"
        ) from error
    return np.asarray(pixels, dtype=np.uint8)
