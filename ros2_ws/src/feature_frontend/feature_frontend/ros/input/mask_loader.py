"""Reads the mask of `mask_path` in a background thread: a slow disk or a large file delays no frame or service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.image.image_file import read_mask_file
from feature_frontend.ros.background_loader import BackgroundLoader
from feature_frontend.system.text import short_text

__all__ = ["LoadedMask", "MaskLoader"]


@dataclass(frozen=True, eq=False)
class LoadedMask:
    """The result of reading a mask file.

    Attributes:
        path: Value of `mask_path`.
        mask: (H, W) uint8, 0 = do not use; None if it cannot be read.
        problem: Why it cannot be read; empty otherwise.
    """

    path: str
    mask: npt.NDArray[np.uint8] | None
    problem: str = ""


class MaskLoader(BackgroundLoader[str, LoadedMask]):
    """Reads one file at a time; a request is a path. Call its methods from one thread only.

    Args:
        on_done: Called in the loading thread when a result is ready for `take`.
        max_pixels: Called in the loading thread; returns the maximum number of pixels of a mask.
    """

    def __init__(self, on_done: Callable[[], object], max_pixels: Callable[[], int]) -> None:
        super().__init__("mask-loader", lambda path: _load(path, max_pixels()), on_done)


def _load(path: str, max_pixels: int) -> LoadedMask:
    try:
        return LoadedMask(path, read_mask_file(path, max_pixels))
    except FeatureFrontendError as error:
        return LoadedMask(path, None, str(error))
    except Exception as error:
        # Such as out of memory: the stream continues with the current mask.
        return LoadedMask(path, None, f"{type(error).__name__}: {short_text(error)}")
