"""The header of an image file, known before decoding, and the limits it is checked against."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from feature_frontend.errors import DamagedImageError, ImageError
from feature_frontend.image.limits import MAX_IMAGE_PIXELS, check_image_size
from feature_frontend.image.tiff import ORIENTATION, is_tiff, tiff_directories

__all__ = [
    "WHOLE_FILE",
    "ImageHeader",
    "Limits",
    "check_part_count",
    "cut_off",
    "exif_orientation",
    "live_decoding_ms",
    "valid_orientation",
]

WHOLE_FILE = "expected a complete file"
# Parts of a file (chunks, segments) take time to walk through, however small: writers use 8 KiB and more.
_PARTS, _BYTES_PER_PART = 1000, 1024
# Maximum time that decoding a frame may delay the next ones; enough for a JPEG image of 20 megapixels.
_LIVE_DECODING_MS = 250.0


@dataclass(frozen=True)
class ImageHeader:
    """Facts about an image file that are known without decoding it.

    Attributes:
        height: Height of the pixels as stored, px.
        width: Width of the pixels as stored, px.
        data: The file for the decoder, without parts that the picture does not need.
        orientation: EXIF orientation, 1 to 8, in which a viewer would show it; 1 for unchanged.
        pages: Number of pictures in the file; a decoder reads the first.
        sample: NumPy's name of the sample type, if a decoder may mistake it for another of its size; otherwise empty.
    """

    height: int
    width: int
    data: bytes
    orientation: int = 1
    pages: int = 1
    sample: str = ""


@dataclass(frozen=True)
class Limits:
    """Limits for an image.

    Attributes:
        max_pixels: Maximum number of pixels.
        max_decoding_ms: Maximum decoding time, as estimated from the header, ms.
    """

    max_pixels: int = MAX_IMAGE_PIXELS
    max_decoding_ms: float = math.inf

    def check_size(self, height: int, width: int) -> None:
        """Checks a size before anything is allocated for it.

        Raises:
            ImageError: A side is zero, or there are too many pixels.
        """
        check_image_size(height, width, self.max_pixels)

    def check_density(self, height: int, width: int, size: int, pixels_per_byte: int) -> None:
        """Checks that a file of `size` bytes can hold the picture, at no more than `pixels_per_byte`.

        Raises:
            ImageError: It cannot.
        """
        if height * width > pixels_per_byte * size:
            raise ImageError(f"image of {size} bytes cannot hold the {width}x{height} px that it announces")

    def check_decoding(self, decoding_ms: float, what: str) -> None:
        """Checks the estimated decoding time of a file.

        Args:
            decoding_ms: Estimated time, ms.
            what: Description of the file, for the error.

        Raises:
            ImageError: The time is too long.
        """
        if decoding_ms > self.max_decoding_ms:
            pixels = math.ceil(decoding_ms / _LIVE_DECODING_MS * MAX_IMAGE_PIXELS / 1e6) * 1_000_000
            raise ImageError(
                f"{what} takes about {decoding_ms:.0f} ms to decode; expected at most {self.max_decoding_ms:.0f} ms "
                f"while other frames wait: send a smaller or a baseline JPEG image, or raw ones, or raise "
                f"max_image_pixels to {pixels}"
            )


def live_decoding_ms(max_pixels: int) -> float:
    """The `max_decoding_ms` of a live node, for its parameter `max_image_pixels`: 250 ms or more.

    Raising the parameter above its default raises the time limit in proportion.
    """
    return _LIVE_DECODING_MS * max(1.0, max_pixels / MAX_IMAGE_PIXELS)


def check_part_count(count: int, size: int) -> None:
    """Checks the number of chunks or segments in a file of `size` bytes.

    Raises:
        ImageError: There are more than a picture needs.
    """
    most = _PARTS + size // _BYTES_PER_PART
    if count > most:
        raise ImageError(
            f"image of {size} bytes has more than {most} parts; expected at most one for each KiB, and {_PARTS}"
        )


def cut_off(size: int) -> DamagedImageError:
    """The error of a file that ends after `size` bytes."""
    return DamagedImageError(f"image ends after {size} bytes, before the picture does; the rest is missing")


def exif_orientation(data: bytes) -> int:
    """Orientation from EXIF data; 1 if the data are invalid, which is not an error."""
    try:
        return valid_orientation(next(tiff_directories(data)).value(ORIENTATION, 1)) if is_tiff(data) else 1
    except (ValueError, struct.error, StopIteration):
        return 1


def valid_orientation(orientation: int) -> int:
    """`orientation` if EXIF defines it, otherwise 1."""
    return orientation if 1 <= orientation <= 8 else 1
