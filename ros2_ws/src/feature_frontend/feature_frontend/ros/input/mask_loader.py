"""The mask of `mask_path`, read beside the stream: a slow disk or a large picture holds up neither it nor a service."""

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
    """What came of a path.

    Attributes:
        path: As `mask_path` has it.
        mask: (H, W) uint8, 0 = do not use; None where it cannot be had.
        problem: Why not; empty where it can.
    """

    path: str
    mask: npt.NDArray[np.uint8] | None
    problem: str = ""


class MaskLoader(BackgroundLoader[str, LoadedMask]):
    """Reads one file after another; a wish is a path. Its methods are called by one thread.

    Args:
        on_done: Called in the loading thread when there is something to `take`.
        max_pixels: What to ask, in the loading thread, how many pixels a mask may have.
    """

    def __init__(self, on_done: Callable[[], object], max_pixels: Callable[[], int]) -> None:
        super().__init__("mask-loader", lambda path: _load(path, max_pixels()), on_done)


def _load(path: str, max_pixels: int) -> LoadedMask:
    try:
        return LoadedMask(path, read_mask_file(path, max_pixels))
    except FeatureFrontendError as error:
        return LoadedMask(path, None, str(error))
    except Exception as error:
        # Out of memory: whatever it is, the stream goes on with the mask that it has.
        return LoadedMask(path, None, f"{type(error).__name__}: {short_text(error)}")
