"""Reads image files and masks: Python reads the file, checks it and decodes it from memory, with pixels as stored.

All tools and sources read files here, and messages that contain a file are decoded here: the same bytes give the same
samples wherever they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
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

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFile",
    "decode_stored",
    "encode_file",
    "first_image_size",
    "read_image_file",
    "read_mask_file",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".pbm", ".pnm", ".webp")

# An uncompressed pixel has at most four samples of 8 bytes; the rest is room for metadata of cameras.
_BYTES_PER_PIXEL = 32
_BYTES_BESIDE_PIXELS = 2**26
_COLOURS = 3
_TRIED = 5


@dataclass(frozen=True, eq=False)
class ImageFile:
    """The content of an image file.

    Attributes:
        samples: (H, W) grey or (H, W, 3) RGB as stored, in the file's sample type, without the alpha channel.
        orientation: EXIF orientation, 1 to 8; not applied to the samples.
        pages: Number of pictures in the file; the samples are those of the first.
    """

    samples: npt.NDArray[Any]
    orientation: int
    pages: int


def read_image_file(path: Path, max_pixels: int = MAX_IMAGE_PIXELS) -> ImageFile:
    """Reads an image file, whatever its name; `IMAGE_SUFFIXES` lists the formats.

    Raises:
        DamagedImageError: The file cannot be read, or is empty, truncated or damaged.
        ImageError: It is not an image, or has more than `max_pixels`. The texts do not name the file.
    """
    header = _checked_header(path, max_pixels)
    stored = decode_stored(header)
    samples = stored if stored.ndim == 2 else to_rgb(stored, cv2.COLOR_BGR2RGB)
    return ImageFile(samples, header.orientation, header.pages)


def first_image_size(files: Sequence[Path], max_pixels: int = MAX_IMAGE_PIXELS) -> tuple[int, int] | None:
    """(height, width) in px of the first image file that can be read; None if none of the first five can be."""
    for file in files[:_TRIED]:
        with suppress(ImageError):
            header = _checked_header(file, max_pixels)
            return header.height, header.width
    return None


def _checked_header(path: Path, max_pixels: int) -> ImageHeader:
    try:
        data = read_regular_file(path, _BYTES_BESIDE_PIXELS + _BYTES_PER_PIXEL * max_pixels)
    except OSError as error:
        msg = f"it cannot be read: {error.strerror or error}"
        # Without errno it is our own error: not a regular file, or too large.
        raise (ImageError if error.errno is None else DamagedImageError)(msg) from error
    return read_header(data, max_pixels)


def decode_stored(header: ImageHeader) -> npt.NDArray[Any]:
    """Decodes a checked file to (H, W) or (H, W, 3) samples in BGR order, in the file's sample type.

    Colours of a type that neither messages nor OpenCV's conversions support become 32-bit floats.

    Raises:
        DamagedImageError: The decoder rejects the file.
        ImageError: The decoded size differs from the declared one.
    """
    try:
        with decoders_are_quiet():
            # The only flag with which no version of OpenCV rotates, converts or truncates anything.
            stored = cv2.imdecode(np.frombuffer(header.data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        # Its text only names lines of OpenCV's source code.
        stored = None
    if stored is None:
        raise DamagedImageError(f"image of {len(header.data)} bytes is damaged: OpenCV cannot decode it")
    if stored.shape[:2] != (header.height, header.width):
        size = f"{stored.shape[1]}x{stored.shape[0]} px"
        raise ImageError(f"image announces {header.width}x{header.height} px and holds {size}; expected the same")
    samples = np.asarray(stored)
    if samples.ndim == 3 and samples.shape[2] < _COLOURS:
        samples = samples[:, :, 0]
    # OpenCV before 4.6 mistakes integers for other types of their size, or for floats.
    if header.sample and samples.dtype.itemsize == int(header.sample[1:]):
        samples = np.ascontiguousarray(samples).view(header.sample)
    # No message encoding has these types.
    if samples.dtype in _AS_FLOAT64:
        samples = samples.astype(np.float64)
    if samples.ndim == 3:
        samples = samples[:, :, :_COLOURS]
        if samples.dtype not in COLOUR_SAMPLES:
            samples = samples.astype(np.float32)
    return np.ascontiguousarray(samples)


def encode_file(path: Path, samples: npt.NDArray[Any], *options: int) -> None:
    """Writes (H, W) grey or (H, W, 3) RGB samples in the format of the suffix; renames the file once it is complete.

    Args:
        path: The file to write.
        samples: As `ImageFile.samples`.
        options: Options of OpenCV's encoder, alternating number and value.

    Raises:
        OSError: The file cannot be written.
    """
    stored = samples if samples.ndim == 2 else to_rgb(samples, cv2.COLOR_RGB2BGR)
    try:
        encoded, data = cv2.imencode(path.suffix, stored, options)
    except cv2.error:
        encoded = False
    if not encoded:
        raise OSError(f"OpenCV writes no image of type {samples.dtype} as {path.suffix!r}")
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data.tobytes())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


_AS_FLOAT64 = tuple(map(np.dtype, ("u4", "i8", "u8")))


def read_mask_file(path: str, max_pixels: int = MAX_IMAGE_PIXELS) -> npt.NDArray[np.uint8]:
    """Reads the mask file that the parameter `mask_path` names.

    Args:
        path: A PNG or another lossless format that OpenCV reads, grey or colour; "~" is the home folder.
        max_pixels: Maximum number of pixels, as for an image.

    Returns:
        (H, W) uint8: 0 where the grey level, or every colour channel, is 0; otherwise 255. Alpha is ignored.

    Raises:
        SettingsError: The file does not exist, is not a regular file, or is not an image within the limits.
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
