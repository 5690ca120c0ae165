"""Decodes `sensor_msgs/Image` in all supported encodings, without ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.errors import ImageError
from feature_frontend.image.intensity import DEFAULT_INTENSITY, IntensityRange
from feature_frontend.image.limits import MAX_IMAGE_PIXELS, check_image_size
from feature_frontend.system.text import nearest_name, quoted

__all__ = [
    "COLOUR_SAMPLES",
    "ENCODINGS",
    "Encoding",
    "ImageMessage",
    "decode_image",
    "encoding_of",
    "expected_encodings",
    "image_samples",
    "to_rgb",
]

Uint8Array = npt.NDArray[np.uint8]
SampleT = TypeVar("SampleT", bound=np.generic)

_NAME_CHARACTERS, _LIKENESS = 60, 0.6


class ImageMessage(Protocol):
    """The fields of `sensor_msgs/Image` that define the pixels; `data` is any buffer of bytes."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


@dataclass(frozen=True)
class Encoding:
    """Memory layout of an encoding's pixels.

    Attributes:
        channels: Number of samples per pixel in a row.
        to_rgb: OpenCV's code for the conversion of 8-bit samples to RGB; None if they are already grey or RGB.
        sample: NumPy's name of the sample type, without byte order.
        multiple: (rows, columns): the image size must be a multiple of these.
        has_chroma_plane: Whether a colour plane with half as many rows follows the image's rows.
    """

    channels: int
    to_rgb: int | None = None
    sample: str = "u1"
    multiple: tuple[int, int] = (1, 1)
    has_chroma_plane: bool = False

    @property
    def is_bayer(self) -> bool:
        """Whether each pixel holds one colour of a Bayer mosaic."""
        return self.channels == 1 and self.to_rgb is not None and not self.has_chroma_plane


_UYVY = Encoding(2, cv2.COLOR_YUV2RGB_UYVY, multiple=(1, 2))
_YUYV = Encoding(2, cv2.COLOR_YUV2RGB_YUYV, multiple=(1, 2))
# ROS names a Bayer pattern by its first two rows, OpenCV by the second and third pixel of its second row.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
_GREY_SAMPLES = {"8U": "u1", "8S": "i1", "16U": "u2", "16S": "i2", "32S": "i4", "32F": "f4", "64F": "f8"}
_COLOURS = ("8U", "16U", "32F")
COLOUR_SAMPLES = tuple(np.dtype(_GREY_SAMPLES[name]) for name in _COLOURS)
"""Sample types of colour images: those whose channels OpenCV can swap."""

ENCODINGS: dict[str, Encoding] = {
    "mono8": Encoding(1),
    "mono16": Encoding(1, sample="u2"),
    **{f"{name}C1": Encoding(1, sample=sample) for name, sample in _GREY_SAMPLES.items()},
    **{
        f"{name}{8 * size}": Encoding(channels, code, sample=f"u{size}")
        for size in (1, 2)
        for name, channels, code in (
            ("rgb", 3, None),
            ("bgr", 3, cv2.COLOR_BGR2RGB),
            ("rgba", 4, cv2.COLOR_RGBA2RGB),
            ("bgra", 4, cv2.COLOR_BGRA2RGB),
        )
    },
    **{
        f"{name}C{channels}": Encoding(channels, code, sample=_GREY_SAMPLES[name])
        for name in _COLOURS
        for channels, code in ((3, cv2.COLOR_BGR2RGB), (4, cv2.COLOR_BGRA2RGB))
    },
    **{
        f"bayer_{pattern}{8 * size}": Encoding(1, code, sample=f"u{size}")
        for size in (1, 2)
        for pattern, code in _BAYER.items()
    },
    "uyvy": _UYVY,
    "yuv422": _UYVY,
    "yuyv": _YUYV,
    "yuv422_yuy2": _YUYV,
    "nv12": Encoding(1, cv2.COLOR_YUV2RGB_NV12, multiple=(2, 2), has_chroma_plane=True),
    "nv21": Encoding(1, cv2.COLOR_YUV2RGB_NV21, multiple=(2, 2), has_chroma_plane=True),
}


def decode_image(
    message: ImageMessage, intensity: IntensityRange = DEFAULT_INTENSITY, max_pixels: int = MAX_IMAGE_PIXELS
) -> Uint8Array:
    """Decodes an image message to (H, W) grey or (H, W, 3) RGB uint8; returns a view of its buffer if possible.

    Supports row padding (`step` larger than a row) and `is_bigendian`. Allocates nothing before the declared sizes have
    been checked against the buffer.

    Args:
        message: A `sensor_msgs/Image`, read by any library.
        intensity: How samples with more than 8 bits are converted to grey levels.
        max_pixels: Maximum number of pixels.

    Raises:
        ImageError: The encoding is not one of `ENCODINGS`; the size is zero, above `max_pixels`, or not a multiple that
            the encoding needs; or the buffer is too small for the declared image.
    """
    return intensity.to_grey_levels(image_samples(message, max_pixels))


def expected_encodings(encoding: str) -> str:
    """A hint at alternatives to an unknown encoding, short enough for every image's status."""
    known = {name.casefold(): name for name in ENCODINGS}
    nearest = known.get(nearest_name(encoding[:_NAME_CHARACTERS], known, _LIKENESS))
    return (f"the nearest is {nearest}; " if nearest else "") + "docs/image_input.md lists those that are"


def image_samples(message: ImageMessage, max_pixels: int = MAX_IMAGE_PIXELS) -> npt.NDArray[Any]:
    """Decodes an image message to (H, W) grey or (H, W, 3) RGB samples with the bit depth of its encoding.

    Args:
        message: A `sensor_msgs/Image`, read by any library.
        max_pixels: Maximum number of pixels.

    Raises:
        ImageError: As for `decode_image`.
    """
    encoding = ENCODINGS.get(message.encoding)
    if encoding is None:
        raise ImageError(
            f"image encoding {quoted(message.encoding)} is not supported; {expected_encodings(message.encoding)}"
        )
    samples = _samples(message, encoding, max_pixels)
    return samples if encoding.to_rgb is None else to_rgb(samples, encoding.to_rgb)


def encoding_of(samples: npt.NDArray[Any]) -> tuple[str, npt.NDArray[Any]]:
    """The encoding that stores (H, W) grey or (H, W, 3) RGB samples losslessly, and the samples in its channel order.

    `image_samples` is the inverse.

    Args:
        samples: Grey of any type in `ENCODINGS`; colour of a type in `COLOUR_SAMPLES`.
    """
    kind = f"{samples.dtype.kind}{samples.dtype.itemsize}"
    if kind in _NAMED:
        return _NAMED[kind][samples.ndim == 3], samples
    name = next(name for name, sample in _GREY_SAMPLES.items() if sample == kind)
    return (f"{name}C1", samples) if samples.ndim == 2 else (f"{name}C3", to_rgb(samples, cv2.COLOR_RGB2BGR))


def to_rgb(pixels: npt.NDArray[SampleT], code: int) -> npt.NDArray[SampleT]:
    """`pixels` converted by OpenCV's conversion `code`, in their own type."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), code), dtype=pixels.dtype)


def _samples(message: ImageMessage, encoding: Encoding, max_pixels: int) -> npt.NDArray[Any]:
    """(H, W[, C]) samples in native byte order, chroma rows below; a view if the message has native byte order."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    sample = np.dtype(encoding.sample)
    row_bytes = width * encoding.channels * sample.itemsize
    rows = height + (height // 2 if encoding.has_chroma_plane else 0)
    # Some drivers omit the padding of the last row.
    needed = step * (rows - 1) + row_bytes
    if step < row_bytes:
        raise ImageError(
            f"image step is {step} bytes; a row of {width} px in {message.encoding} needs at least {row_bytes}"
        )
    if len(message.data) < needed:
        raise ImageError(f"image data holds {len(message.data)} bytes; {rows} rows of {step} bytes need {needed}")
    check_image_size(height, width, max_pixels)
    if height % encoding.multiple[0] or width % encoding.multiple[1]:
        multiple = f"a multiple of {encoding.multiple[1]} columns and {encoding.multiple[0]} rows"
        raise ImageError(f"image is {width}x{height} px; {message.encoding} needs {multiple}")
    buffer = np.frombuffer(message.data, np.uint8)
    lines = np.lib.stride_tricks.as_strided(buffer, (rows, row_bytes), (step, 1), writeable=False)
    samples = lines.view(sample.newbyteorder(">" if message.is_bigendian else "<")).astype(sample, copy=False)
    if encoding.channels == 1:
        return samples
    strides = (samples.strides[0], encoding.channels * sample.itemsize, sample.itemsize)
    return np.lib.stride_tricks.as_strided(samples, (rows, width, encoding.channels), strides, writeable=False)


# Encodings with special names, grey and colour.
_NAMED = {"u1": ("mono8", "rgb8"), "u2": ("mono16", "rgb16")}
