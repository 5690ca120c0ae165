"""A mask in a file: where in every image of a camera keypoints may lie."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from feature_frontend.errors import ImageError, SettingsError
from feature_frontend.image.image_file import read_image_file
from feature_frontend.runtime.files import user_path

__all__ = ["read_mask_file"]


def read_mask_file(path: str) -> npt.NDArray[np.uint8]:
    """The mask in an image file, as parameter `mask_path` names it.

    Args:
        path: A PNG or whatever else OpenCV reads losslessly, grey or colour; "~" is the user's folder.

    Returns:
        (H, W) uint8: 0 where the pixel's grey level, or each of its colours, is 0, else 255. Opacity is not looked at.

    Raises:
        SettingsError: There is no such file, or it holds no image.
    """
    file = user_path(path)
    if not os.path.isfile(file):
        msg = f"parameter mask_path is {path!r}, where there is no file; expected a PNG of the images' size, or ''"
        raise SettingsError(msg)
    try:
        pixels = read_image_file(file).samples
    except ImageError as error:
        msg = f"parameter mask_path is {path!r}, which holds no image; expected a PNG of the images' size: {error}"
        raise SettingsError(msg) from error
    usable = pixels != 0 if pixels.ndim == 2 else (pixels != 0).any(axis=2)
    return np.where(usable, 255, 0).astype(np.uint8)
