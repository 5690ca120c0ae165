"""Which matches fit one rigid motion of the camera: the check behind `Matches.inlier` and `FrameStatus.inlier_ratio`.

The essential matrix decides where both images' keypoints are normalised, the fundamental matrix otherwise, each by
RANSAC with a fixed seed. A match that passes lies within the threshold of its epipolar line; that
does not make it right: one that is wrong along the line passes, too.

Degenerate motions lose no right match. A camera that stands still or only turns, and a scene that is one plane, fit
infinitely many epipolar geometries; every one of them has the right matches as inliers, and the freedom that is left
only lets some more wrong ones pass. With fewer than 8 matches nothing is said of any of them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.settings.epipolar import EpipolarSettings
from feature_frontend.types import MatchCheck

if TYPE_CHECKING:
    from feature_frontend.geometry.rays import MatchRays
    from feature_frontend.types import FrameResult

__all__ = [
    "MINIMUM_PAIRS",
    "check_frame",
    "check_matches",
    "epipolar_inliers",
    "essential_inliers",
    "find_essential",
    "paired",
]

FloatArray = npt.NDArray[np.float64]
Points = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]

MINIMUM_PAIRS = 8
CONFIDENCE = 0.9999
MAX_ITERATIONS = 10_000
_CLEARLY_MORE = 1.05


def check_matches(
    keypoints0: Points,
    keypoints1: Points,
    normalized0: Points | None = None,
    normalized1: Points | None = None,
    focal_px: float = math.nan,
    threshold_px: float = EpipolarSettings.epipolar_threshold_px,
) -> MatchCheck:
    """Checks the matches of two images. The same input gives the same result.

    Args:
        keypoints0: (M, 2) px in image 0.
        keypoints1: (M, 2) px in image 1, row by row the same points.
        normalized0: (M, 2) undistorted (x/z, y/z) of the same rows; None without a calibration. A match with a row that
            is not finite (no ray) is not accepted.
        normalized1: As `normalized0`, in image 1.
        focal_px: Focal length that turns the threshold into a length on the normalised plane; needed with both of them.
        threshold_px: Largest distance of an accepted match from its epipolar line.

    Returns:
        All 0 where there are at least 8 matches and no motion explains 8 of them.

    Raises:
        ValueError: The arrays do not pair up.
    """
    if normalized0 is None or normalized1 is None:
        if len(keypoints0) < MINIMUM_PAIRS:
            return MatchCheck()
        return MatchCheck(epipolar_inliers(keypoints0, keypoints1, threshold_px).astype(np.uint8))
    has_ray = np.isfinite(normalized0).all(axis=1) & np.isfinite(normalized1).all(axis=1)
    if np.count_nonzero(has_ray) < MINIMUM_PAIRS:
        return MatchCheck()
    # As px of a camera without distortion, in which the threshold means what it says.
    fits = essential_inliers(
        normalized0[has_ray] * focal_px,
        normalized1[has_ray] * focal_px,
        np.diag([focal_px, focal_px, 1.0]),
        threshold_px,
    )
    inlier = np.zeros(len(normalized0), np.uint8)
    inlier[has_ray] = fits
    return MatchCheck(inlier)


def check_frame(result: FrameResult, rays: MatchRays, focal_px: float, settings: EpipolarSettings) -> FrameResult:
    """The same result with its `check`, where `settings` want one.

    Args:
        result: Of a frame.
        rays: Of its matches.
        focal_px: See `check_matches`; not used without rays.
        settings: In force.
    """
    if not settings.epipolar_check:
        return result
    check = check_matches(
        result.keypoints0.numpy(),
        result.features.keypoints.numpy()[result.matches.indices1.numpy()],
        rays.normalized0,
        rays.normalized1,
        focal_px,
        settings.epipolar_threshold_px,
    )
    return replace(result, check=check)


def epipolar_inliers(points0: Points, points1: Points, threshold_px: float = 1.0) -> BoolArray:
    """(M,) which pairs agree with one epipolar geometry, by RANSAC over the fundamental matrix: no calibration needed.

    All False where there are fewer than 8 pairs or no geometry explains 8 of them.

    Raises:
        ValueError: The two arrays do not pair up.
    """
    pairs0, pairs1 = paired(points0, points1)
    none = np.zeros(len(pairs0), np.bool_)
    if len(pairs0) < MINIMUM_PAIRS:
        return none
    cv2.setRNGSeed(0)
    options = (threshold_px, CONFIDENCE, MAX_ITERATIONS)
    try:
        fundamental, mask = cv2.findFundamentalMat(pairs0, pairs1, cv2.USAC_DEFAULT, *options)
    except cv2.error:
        # A failed assertion inside USAC, on some sets of up to 20 pairs in degenerate positions.
        fundamental, mask = cv2.findFundamentalMat(pairs0, pairs1, cv2.FM_RANSAC, *options)
    if fundamental is None or np.count_nonzero(mask) < MINIMUM_PAIRS:
        return none
    return np.asarray(mask, np.uint8).ravel().astype(np.bool_)


def essential_inliers(points0: Points, points1: Points, matrix: FloatArray, threshold_px: float = 1.0) -> BoolArray:
    """(M,) which pairs agree with one motion of a calibrated camera, by RANSAC over the essential matrix.

    All False where there are fewer than 8 pairs or no motion explains 8 of them.

    Raises:
        ValueError: The two arrays do not pair up.
    """
    pairs0, pairs1 = paired(points0, points1)
    return _find_best_essential(pairs0, pairs1, np.asarray(matrix, np.float64), threshold_px)[1]


def paired(points0: Points, points1: Points) -> tuple[FloatArray, FloatArray]:
    """The points as (M, 2) float64.

    Raises:
        ValueError: The two arrays do not pair up.
    """
    pairs0, pairs1 = np.asarray(points0, np.float64), np.asarray(points1, np.float64)
    if pairs0.shape != pairs1.shape or pairs0.ndim != 2 or pairs0.shape[1] != 2:
        msg = f"points of shapes {pairs0.shape} and {pairs1.shape} do not pair up; expected (M, 2) twice"
        raise ValueError(msg)
    return np.ascontiguousarray(pairs0), np.ascontiguousarray(pairs1)


def _find_best_essential(
    pairs0: FloatArray, pairs1: FloatArray, camera: FloatArray, threshold_px: float
) -> tuple[FloatArray | None, BoolArray]:
    """(3, 3) essential matrix that at least 8 pairs agree with, None for none, and (M,) which do."""
    none = None, np.zeros(len(pairs0), np.bool_)
    if len(pairs0) < MINIMUM_PAIRS:
        return none
    essential, inliers = find_essential(pairs0, pairs1, camera, threshold_px, cv2.USAC_DEFAULT)
    # It may settle on the geometry of a part of the scene, which MAGSAC rarely does. Where both see the same, the first
    # is the better: the second ends without the final least-squares fit.
    other = find_essential(pairs0, pairs1, camera, threshold_px, cv2.USAC_MAGSAC)
    if np.count_nonzero(other[1]) > _CLEARLY_MORE * np.count_nonzero(inliers):
        essential, inliers = other
    return (essential, inliers) if np.count_nonzero(inliers) >= MINIMUM_PAIRS else none


def find_essential(
    pairs0: FloatArray, pairs1: FloatArray, camera: FloatArray, threshold_px: float, method: int
) -> tuple[FloatArray | None, BoolArray]:
    """(3, 3) essential matrix, None for none, and (M,) which pairs agree with it."""
    # A fixed seed makes the result repeatable.
    cv2.setRNGSeed(0)
    essential, mask = cv2.findEssentialMat(
        pairs0, pairs1, camera, method=method, prob=CONFIDENCE, threshold=threshold_px
    )
    if essential is None or essential.shape != (3, 3):
        return None, np.zeros(len(pairs0), np.bool_)
    return np.asarray(essential, np.float64), np.asarray(mask).ravel().astype(np.bool_)
