"""The maximum size of an image."""

from __future__ import annotations

from feature_frontend.errors import ImageError

__all__ = ["MAX_IMAGE_PIXELS", "check_image_size"]


MAX_IMAGE_PIXELS = 50_000_000


def check_image_size(height: int, width: int, max_pixels: int) -> None:
    """Checks a size before anything is allocated for it.

    Raises:
        ImageError: A side is zero, or there are more than `max_pixels` pixels.
    """
    if height < 1 or width < 1:
        raise ImageError(f"image is {width}x{height} px; expected at least one row and one column")
    if height * width > max_pixels:
        raise ImageError(
            f"image is {width}x{height} px; expected at most {max_pixels} px in all (parameter max_image_pixels)"
        )
