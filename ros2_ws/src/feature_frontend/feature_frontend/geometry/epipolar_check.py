"""Which matches fit one rigid motion of the camera: the check behind `Matches.inlier` and `FrameStatus.inlier_ratio`.

The essential matrix decides where both images' keypoints are normalised, the fundamental matrix otherwise, each by
RANSAC with a fixed seed (`relative_pose.py`). A match that passes lies within the threshold of its epipolar line; that
does not make it right: one that is wrong along the line passes, too.

Degenerate motions lose no right match. A camera that stands still or only turns, and a scene that is one plane, fit
infinitely many epipolar geometries; every one of them has the right matches as inliers, and the freedom that is left
only lets some more wrong ones pass. With fewer than 8 matches nothing is said of any of them.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from feature_frontend.geometry.rays import MatchRays
from feature_frontend.geometry.relative_pose import MINIMUM_PAIRS, Points, epipolar_inliers, essential_inliers
from feature_frontend.settings.matching import EpipolarSettings
from feature_frontend.types import FrameResult, MatchCheck

__all__ = ["check_frame", "check_matches"]


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
