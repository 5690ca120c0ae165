"""`sensor_msgs/Image` to and from NumPy, without a per-pixel copy where the layout allows it.

`image_to_array` covers the encodings of `ENCODINGS` itself; any other goes through cv_bridge where that is installed.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image

from feature_frontend.errors import ImageError

__all__ = ["ENCODINGS", "array_to_image", "image_to_array"]

Uint8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Layout:
    channels: int
    to_rgb: int | None  # OpenCV conversion code; None where the array is already mono or RGB


ENCODINGS = {
    "mono8": _Layout(1, None),
    "8UC1": _Layout(1, None),
    "rgb8": _Layout(3, None),
    "bgr8": _Layout(3, cv2.COLOR_BGR2RGB),
    "8UC3": _Layout(3, cv2.COLOR_BGR2RGB),
    "rgba8": _Layout(4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Layout(4, cv2.COLOR_BGRA2RGB),
    "8UC4": _Layout(4, cv2.COLOR_BGRA2RGB),
}


def image_to_array(message: Image) -> Uint8Array:
    """The pixels of `message` as (H, W) grey or (H, W, 3) RGB uint8; a view of the message's buffer where possible.

    Row padding (`step` larger than a row) is respected. `is_bigendian` has no effect on 8-bit samples; encodings with
    larger samples go through cv_bridge, which honours it.

    Raises:
        ImageError: The size is zero, the buffer is shorter than `height` rows of `step` bytes, `step` is shorter than a
            row, or the encoding is not supported here and cv_bridge is missing or refuses it.
    """
    height, width, step = int(message.height), int(message.width), int(message.step)
    if height == 0 or width == 0:
        msg = f"image is {width}x{height} px; expected at least one row and one column"
        raise ImageError(msg)
    layout = ENCODINGS.get(message.encoding)
    if layout is None:
        return _through_cv_bridge(message)
    row_bytes = width * layout.channels
    if step < row_bytes:
        msg = f"image step is {step} bytes; a row of {width} px in {message.encoding} needs at least {row_bytes}"
        raise ImageError(msg)
    # The last row may come without its padding: some drivers leave it out.
    needed = step * (height - 1) + row_bytes
    buffer = np.frombuffer(message.data, np.uint8)
    if buffer.size < needed:
        msg = f"image data holds {buffer.size} bytes; {height} rows of {step} bytes need {needed}"
        raise ImageError(msg)
    shape = (height, width) if layout.channels == 1 else (height, width, layout.channels)
    strides = (step, 1) if layout.channels == 1 else (step, layout.channels, 1)
    view: Uint8Array = np.lib.stride_tricks.as_strided(buffer, shape, strides, writeable=False)
    if layout.to_rgb is None:
        return view
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(view), layout.to_rgb), dtype=np.uint8)


def array_to_image(pixels: Uint8Array, encoding: str, stamp: Time, frame_id: str) -> Image:
    """An image message that holds `pixels` as they are; nothing is converted.

    Args:
        pixels: (H, W) or (H, W, C) uint8, its channels in the order that `encoding` says.
        encoding: A key of `ENCODINGS`.
        stamp: The header's stamp.
        frame_id: The header's frame.

    Raises:
        ImageError: The encoding is unknown, or the array does not have its type and number of channels.
    """
    layout = ENCODINGS.get(encoding)
    if layout is None:
        msg = f"cannot write encoding {encoding!r}; expected one of {', '.join(ENCODINGS)}"
        raise ImageError(msg)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in {2, 3} or channels != layout.channels:
        got = f"pixels have shape {pixels.shape} and type {pixels.dtype}"
        msg = f"{got}; {encoding} is uint8 with {layout.channels} channel(s)"
        raise ImageError(msg)
    message = Image()
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.height, message.width = (int(side) for side in pixels.shape[:2])
    message.encoding = encoding
    message.is_bigendian = 0
    message.step = message.width * layout.channels
    # Into the message's own array: assigning one to the field would copy it again.
    message.data.frombytes(np.ascontiguousarray(pixels).data)
    return message


def _through_cv_bridge(message: Image) -> Uint8Array:
    known = ", ".join(ENCODINGS)
    try:
        bridge = importlib.import_module("cv_bridge")
    except ImportError as error:
        msg = (
            f"image encoding {message.encoding!r} is not supported without cv_bridge; expected one of {known}, "
            "or install it (apt install ros-$ROS_DISTRO-cv-bridge)"
        )
        raise ImageError(msg) from error
    try:
        pixels = bridge.CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8")
    except Exception as error:
        # cv_bridge raises its own, OpenCV's and plain TypeErrors for a message it cannot convert.
        msg = f"cv_bridge cannot convert image encoding {message.encoding!r} to rgb8: {error}"
        raise ImageError(msg) from error
    return np.asarray(pixels, dtype=np.uint8)
