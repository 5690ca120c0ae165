"""Draws `visualization_msgs/ImageMarker` as its definition says, knowing nothing of who made it or how."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["draw_marker", "lines_of"]

_LINE_LIST = 2
_SHIFT = 6  # OpenCV gets positions in 1/64 px


def lines_of(marker: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The (S, 2, 2) ends of the lines in px, and the (S, 4) RGBA colour of each in [0, 1]."""
    assert marker.type == _LINE_LIST
    ends = np.array([(point.x, point.y) for point in marker.points], np.float64).reshape(-1, 2, 2)
    colours = np.array([(c.r, c.g, c.b, c.a) for c in marker.outline_colors], np.float64).reshape(-1, 4)
    assert len(colours) == len(ends), "one colour for each line"
    return ends, colours


def draw_marker(marker: Any, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The lines, drawn on a copy of an (H, W, 3) RGB image."""
    canvas = image.copy()
    for (begin, end), colour in zip(*lines_of(marker), strict=True):
        first, last = (tuple(np.round(point * 2**_SHIFT).astype(int).tolist()) for point in (begin, end))
        levels = tuple((colour[:3] * 255).tolist())
        cv2.line(canvas, first, last, levels, max(round(marker.scale), 1), cv2.LINE_AA, _SHIFT)
    return canvas
