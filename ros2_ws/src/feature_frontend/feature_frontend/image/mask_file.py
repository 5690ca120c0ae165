"""A mask in a file: where in every image of a camera keypoints may lie."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_frontend.errors import ImageError, SettingsError
from feature_frontend.image.image_file import read_image_file
from feature_frontend.image.limits import MAX_IMAGE_PIXELS
from feature_frontend.system.files import user_path
from feature_frontend.system.text import PATH_CHARACTERS, quoted

__all__ = ["read_mask_file"]


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
