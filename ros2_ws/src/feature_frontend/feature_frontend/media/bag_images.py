"""Pixels of the image messages of a bag, which are not ROS objects and may come from any camera driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.errors import ImageError

__all__ = ["ENCODINGS", "CompressedImageMessage", "ImageMessage", "decode_compressed_image", "decode_image"]

Uint8Array = npt.NDArray[np.uint8]


class ImageMessage(Protocol):
    """The fields of `sensor_msgs/Image` that say what the pixels are."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Uint8Array


class CompressedImageMessage(Protocol):
    """The fields of `sensor_msgs/CompressedImage` that say what the pixels are."""

    format: str
    data: Uint8Array


@dataclass(frozen=True)
class _Layout:
    channels: int
    to_rgb: int | None = None  # OpenCV conversion code; None where the pixels are already grey or RGB
    sample_bytes: int = 1


# OpenCV names a Bayer pattern after its second row and column, ROS after its first.
ENCODINGS = {
    "mono8": _Layout(1),
    "8UC1": _Layout(1),
    "mono16": _Layout(1, sample_bytes=2),
    "rgb8": _Layout(3),
    "bgr8": _Layout(3, cv2.COLOR_BGR2RGB),
    "8UC3": _Layout(3, cv2.COLOR_BGR2RGB),
    "rgba8": _Layout(4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Layout(4, cv2.COLOR_BGRA2RGB),
    "8UC4": _Layout(4, cv2.COLOR_BGRA2RGB),
    "bayer_rggb8": _Layout(1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _Layout(1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _Layout(1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _Layout(1, cv2.COLOR_BayerGB2RGB),
    "yuv422": _Layout(2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": _Layout(2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": _Layout(2, cv2.COLOR_YUV2RGB_YUYV),
    "yuyv": _Layout(2, cv2.COLOR_YUV2RGB_YUYV),
}


def decode_image(message: ImageMessage) -> Uint8Array:
    """The pixels of a `sensor_msgs/Image` as (H, W) grey or (H, W, 3) RGB; 16-bit grey is reduced to its high byte.

    Raises:
        ImageError: The encoding is not one of `ENCODINGS`, or the buffer does not hold the image it announces.
    """
    layout = ENCODINGS.get(message.encoding)
    if layout is None:
        msg = f"image encoding {message.encoding!r} cannot be played; expected one of {', '.join(ENCODINGS)}"
        raise ImageError(msg)
    height, width, step = int(message.height), int(message.width), int(message.step)
    row_bytes = width * layout.channels * layout.sample_bytes
    # Some drivers leave out the padding of the last row.
    needed = step * (height - 1) + row_bytes
    buffer = np.asarray(message.data, dtype=np.uint8)
    if height < 1 or width < 1 or step < row_bytes or buffer.size < needed:
        msg = (
            f"an image of {width}x{height} px in {message.encoding} with rows of {step} bytes cannot lie in "
            f"{buffer.size} bytes; expected rows of at least {row_bytes} bytes and {max(needed, 1)} bytes in all"
        )
        raise ImageError(msg)
    rows = np.lib.stride_tricks.as_strided(buffer, (height, row_bytes), (step, 1), writeable=False)
    if layout.sample_bytes == 2:
        high_byte = 0 if message.is_bigendian else 1
        return np.ascontiguousarray(rows[:, high_byte::2])
    samples = np.ascontiguousarray(rows)
    if layout.channels > 1:
        samples = samples.reshape(height, width, layout.channels)
    if layout.to_rgb is None:
        return samples
    return np.asarray(cv2.cvtColor(samples, layout.to_rgb), dtype=np.uint8)


def decode_compressed_image(message: CompressedImageMessage) -> Uint8Array:
    """The pixels of a `sensor_msgs/CompressedImage` as (H, W) grey or (H, W, 3) RGB.

    Raises:
        ImageError: The data are no picture that OpenCV can decode.
    """
    image = cv2.imdecode(np.asarray(message.data, dtype=np.uint8), cv2.IMREAD_ANYCOLOR) if len(message.data) else None
    if image is None:
        msg = f"compressed image of format {message.format!r} and {len(message.data)} bytes cannot be decoded"
        raise ImageError(msg)
    if image.ndim == 2 or _is_stored_as_rgb(message.format):
        return np.asarray(image, dtype=np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _is_stored_as_rgb(description: str) -> bool:
    # As compressed_image_transport's subscriber reads it: "rgb8; jpeg compressed bgr8" went through a conversion before
    # the encoder, "rgb8; jpeg compressed" did not, so that the decoder's "BGR" is the RGB of the original.
    encoding, separator, compression = description.partition(";")
    if not separator or "compressed bgr" in compression:
        return False
    return encoding.strip() in {"rgb8", "rgba8", "rgb16", "rgba16"}
