"""From an image file to its samples or a mask: read by Python, checked, decoded from memory, pixels as stored.

All tools and sources read files here, and messages that hold a file are decoded here: the same bytes give the same
samples wherever they come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.errors import DamagedImageError, ImageError, SettingsError
from feature_frontend.image.encodings import COLOUR_SAMPLES, to_rgb
from feature_frontend.image.headers import read_header
from feature_frontend.image.image_header import ImageHeader
from feature_frontend.image.limits import MAX_IMAGE_PIXELS
from feature_frontend.system.c_stderr import decoders_are_quiet
from feature_frontend.system.files import read_regular_file, user_path
from feature_frontend.system.text import PATH_CHARACTERS, quoted

__all__ = ["IMAGE_SUFFIXES", "ImageFile", "decode_stored", "encode_file", "read_image_file", "read_mask_file"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".pbm", ".pnm", ".webp")

# An uncompressed pixel has at most four samples of 8 bytes; beside them there is room for what cameras add.
_BYTES_PER_PIXEL = 32
_BYTES_BESIDE_PIXELS = 2**26
_COLOURS = 3


@dataclass(frozen=True, eq=False)
class ImageFile:
    """What an image file holds.

    Attributes:
        samples: (H, W) grey or (H, W, 3) RGB as stored, of the file's own type; opacity is left out.
        orientation: 1 to 8 as EXIF counts them; the samples are not turned by it.
        pages: Pictures in the file; the samples are the first.
    """

    samples: npt.NDArray[Any]
    orientation: int
    pages: int


def read_image_file(path: Path, max_pixels: int = MAX_IMAGE_PIXELS) -> ImageFile:
    """Reads an image file, whatever its name; `IMAGE_SUFFIXES` says what there is.

    Raises:
        DamagedImageError: It cannot be read, or is empty, cut off or damaged.
        ImageError: It holds no image, or one of more than `max_pixels`. No text says which file.
    """
    try:
        data = read_regular_file(path, _BYTES_BESIDE_PIXELS + _BYTES_PER_PIXEL * max_pixels)
    except OSError as error:
        msg = f"it cannot be read: {error.strerror or error}"
        # Without a number it is our own word: it is no regular file, or too large.
        raise (ImageError if error.errno is None else DamagedImageError)(msg) from error
    header = read_header(data, max_pixels)
    stored = decode_stored(header)
    samples = stored if stored.ndim == 2 else to_rgb(stored, cv2.COLOR_BGR2RGB)
    return ImageFile(samples, header.orientation, header.pages)


def decode_stored(header: ImageHeader) -> npt.NDArray[Any]:
    """The samples of a file that has been checked, (H, W) or (H, W, 3) in the order BGR, of the file's own type.

    Colours of a type that neither messages nor OpenCV's conversions have become 32-bit floats.

    Raises:
        DamagedImageError: The decoder refuses it.
        ImageError: It holds another size than it announces.
    """
    try:
        with decoders_are_quiet():
            # The only flag with which no version of OpenCV turns, converts or shortens anything.
            stored = cv2.imdecode(np.frombuffer(header.data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        # Its text names lines of OpenCV's sources.
        stored = None
    if stored is None:
        msg = f"image of {len(header.data)} bytes is damaged: OpenCV cannot decode it"
        raise DamagedImageError(msg)
    if stored.shape[:2] != (header.height, header.width):
        size = f"{stored.shape[1]}x{stored.shape[0]} px"
        msg = f"image announces {header.width}x{header.height} px and holds {size}; expected the same"
        raise ImageError(msg)
    samples = np.asarray(stored)
    if samples.ndim == 3 and samples.shape[2] < _COLOURS:
        samples = samples[:, :, 0]
    # OpenCV before 4.6 takes integers for others of their size, or for floats.
    if header.sample and samples.dtype.itemsize == int(header.sample[1:]):
        samples = np.ascontiguousarray(samples).view(header.sample)
    # No encoding of messages has these.
    if samples.dtype in _AS_FLOAT64:
        samples = samples.astype(np.float64)
    if samples.ndim == 3:
        samples = samples[:, :, :_COLOURS]
        if samples.dtype not in COLOUR_SAMPLES:
            samples = samples.astype(np.float32)
    return np.ascontiguousarray(samples)


def encode_file(path: Path, samples: npt.NDArray[Any], *options: int) -> None:
    """Writes (H, W) grey or (H, W, 3) RGB samples in the format of the suffix; the file has its name once it is whole.

    Args:
        path: Of the file.
        samples: As `ImageFile.samples`.
        options: Of OpenCV's encoder, by turns number and value.

    Raises:
        OSError: It cannot be written.
    """
    stored = samples if samples.ndim == 2 else to_rgb(samples, cv2.COLOR_RGB2BGR)
    try:
        encoded, data = cv2.imencode(path.suffix, stored, options)
    except cv2.error:
        encoded = False
    if not encoded:
        msg = f"OpenCV writes no image of type {samples.dtype} as {path.suffix!r}"
        raise OSError(msg)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data.tobytes())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


_AS_FLOAT64 = tuple(map(np.dtype, ("u4", "i8", "u8")))


def read_mask_file(path: str, max_pixels: int = MAX_IMAGE_PIXELS) -> npt.NDArray[np.uint8]:
    """The mask in an image file, as parameter `mask_path` names it.

    Args:
        path: A PNG or whatever else OpenCV reads losslessly, grey or colour; "~" is the user's folder.
        max_pixels: Most pixels that are accepted: those of an image.

    Returns:
        (H, W) uint8: 0 where the pixel's grey level, or each of its colours, is 0, else 255. Opacity is not looked at.

    Raises:
        SettingsError: There is no such file, or it is no regular one, or it holds no image within the limits of one.
    """
    try:
        pixels = read_image_file(user_path(path), max_pixels).samples
    except ImageError as error:
        is_missing = isinstance(error.__cause__, FileNotFoundError)
        reason = "where there is no file" if is_missing else "which holds no image"
        msg = f"parameter mask_path is {quoted(path, PATH_CHARACTERS)}, {reason}; expected a PNG of the images' size"
        raise SettingsError(f"{msg}, or ''" if is_missing else f"{msg}: {error}") from error
    usable = pixels != 0 if pixels.ndim == 2 else (pixels != 0).any(axis=2)
    return np.where(usable, np.uint8(255), np.uint8(0))
