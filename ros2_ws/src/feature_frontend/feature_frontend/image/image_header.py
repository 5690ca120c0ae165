"""What is known of an image file before it is decoded, and the limits that it is held against."""

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
# Parts of a file (chunks, segments) take time to walk through, however small: writers make them of 8 KiB and more.
_PARTS, _BYTES_PER_PART = 1000, 1024
# Longest that a frame may keep those behind it; enough for a JPEG image of 20 megapixels.
_LIVE_DECODING_MS = 250.0


@dataclass(frozen=True)
class ImageHeader:
    """What is known of an image file without decoding it.

    Attributes:
        height: Of the pixels as stored, px.
        width: As `height`.
        data: The file as a decoder may see it: without what a picture does without.
        orientation: 1 to 8 as EXIF counts them, in which a viewer would show it; 1 where it stays as it is.
        pages: Pictures in the file; a decoder reads the first.
        sample: NumPy's name of the type of a sample, where a decoder may take it for another of its size; else empty.
    """

    height: int
    width: int
    data: bytes
    orientation: int = 1
    pages: int = 1
    sample: str = ""


@dataclass(frozen=True)
class Limits:
    """What an image may ask for.

    Attributes:
        max_pixels: Most pixels.
        max_decoding_ms: Longest that decoding may take, by an estimate from the header, ms.
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
        """Checks that a file of `size` bytes can hold a picture, of which a byte stands for so many pixels at most.

        Raises:
            ImageError: It cannot.
        """
        if height * width > pixels_per_byte * size:
            msg = f"image of {size} bytes cannot hold the {width}x{height} px that it announces"
            raise ImageError(msg)

    def check_decoding(self, decoding_ms: float, what: str) -> None:
        """Checks the time that a file would keep the decoder.

        Args:
            decoding_ms: Estimated, ms.
            what: What takes so long.

        Raises:
            ImageError: It is too long.
        """
        if decoding_ms > self.max_decoding_ms:
            pixels = math.ceil(decoding_ms / _LIVE_DECODING_MS * MAX_IMAGE_PIXELS / 1e6) * 1_000_000
            msg = (
                f"{what} takes about {decoding_ms:.0f} ms to decode; expected at most {self.max_decoding_ms:.0f} ms "
                f"while other frames wait: send a smaller or a baseline JPEG image, or raw ones, or raise "
                f"max_image_pixels to {pixels}"
            )
            raise ImageError(msg)


def live_decoding_ms(max_pixels: int) -> float:
    """The `max_decoding_ms` of a node that must not be late, for its parameter `max_image_pixels`: 250 ms or more.

    Who raises the parameter above its default allows for longer times too, in proportion.
    """
    return _LIVE_DECODING_MS * max(1.0, max_pixels / MAX_IMAGE_PIXELS)


def check_part_count(count: int, size: int) -> None:
    """Checks the number of chunks or segments in a file of `size` bytes.

    Raises:
        ImageError: They are more than a picture needs.
    """
    most = _PARTS + size // _BYTES_PER_PART
    if count > most:
        msg = f"image of {size} bytes has more than {most} parts; expected at most one for each KiB, and {_PARTS}"
        raise ImageError(msg)


def cut_off(size: int) -> DamagedImageError:
    """The error of a file that ends after `size` bytes."""
    return DamagedImageError(f"image ends after {size} bytes, before the picture does; the rest is missing")


def exif_orientation(data: bytes) -> int:
    """That of EXIF data, which is not worth an error."""
    try:
        return valid_orientation(next(tiff_directories(data)).value(ORIENTATION, 1)) if is_tiff(data) else 1
    except (ValueError, struct.error, StopIteration):
        return 1


def valid_orientation(orientation: int) -> int:
    """`orientation` where EXIF knows it, else 1."""
    return orientation if 1 <= orientation <= 8 else 1
