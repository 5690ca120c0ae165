"""Where a left keypoint's surroundings lie in the right image, to a fraction of a pixel.

SiLK's keypoints are whole pixels, and ALIKED finds one corner of the world a fifth of a pixel apart in two images.
Depth is as wrong as the disparity: half a pixel of ten is 5 %.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["refine_right_points"]

Uint8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
# Small enough to lie on one surface mostly; larger windows make depth worse at edges.
_WINDOW = (9, 9)
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)
# Keypoints of a true match are off by less; what moves further has lost its corner.
_MOST_PX = 1.5


def refine_right_points(left: Uint8Array, right: Uint8Array, points0: FloatArray, points1: FloatArray) -> FloatArray:
    """(M, 2) float32, the right points moved to where the left ones' surroundings fit best, by Lucas-Kanade.

    A point that would move by more than 1.5 px, or out of the image, stays.

    Args:
        left: (H, W) grey or (H, W, 3) RGB.
        right: Of the same kind and size.
        points0: (M, 2) (x, y) px in the left image.
        points1: (M, 2) px in the right image, at most about a pixel off.
    """
    if len(points0) == 0 or left.shape[:2] != right.shape[:2]:
        return points1
    refined, found, _ = cv2.calcOpticalFlowPyrLK(
        _grey(left),
        _grey(right),
        points0.reshape(-1, 1, 2),
        points1.reshape(-1, 1, 2).copy(),
        winSize=_WINDOW,
        maxLevel=0,
        criteria=_STEPS,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    refined = np.asarray(refined, np.float32).reshape(-1, 2)
    stays = (found.ravel() == 0) | ~(np.hypot(*(refined - points1).T) <= _MOST_PX)
    return np.where(stays[:, None], points1, refined)


def _grey(image: Uint8Array) -> Uint8Array:
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
