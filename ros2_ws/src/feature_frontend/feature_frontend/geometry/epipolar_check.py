"""Epipolar check of matches, behind `Matches.inlier` and `FrameStatus.inlier_ratio`.

Uses the essential matrix if the keypoints of both images are normalised, else the fundamental matrix, by RANSAC with a
fixed seed (`relative_pose.py`). A match passes if it lies within the threshold of its epipolar line; it may still be
wrong along that line.

Degenerate motions lose no correct match. A camera that stands still or only rotates, and a planar scene, fit infinitely
many epipolar geometries; the correct matches are inliers of all of them, and only some more wrong matches pass. With
fewer than 8 matches, none is checked.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from feature_frontend.geometry.rays import MatchRays
from feature_frontend.geometry.relative_pose import MINIMUM_PAIRS, Points, epipolar_inliers, essential_inliers
from feature_frontend.settings.matching import EpipolarSettings
from feature_frontend.types import FrameResult, MatchCheck, Matches

__all__ = ["check_frame", "check_matches", "explained_matches"]


def check_matches(
    keypoints0: Points,
    keypoints1: Points,
    normalized0: Points | None = None,
    normalized1: Points | None = None,
    focal_px: float = math.nan,
    threshold_px: float = EpipolarSettings.epipolar_threshold_px,
) -> MatchCheck:
    """Checks the matches of two images. Deterministic.

    Args:
        keypoints0: (M, 2) px in image 0.
        keypoints1: (M, 2) px in image 1, row by row the same points.
        normalized0: (M, 2) undistorted (x/z, y/z) of the same rows; None without a calibration. A match with a row that
            is not finite (no ray) is rejected.
        normalized1: As `normalized0`, in image 1.
        focal_px: Focal length that converts the threshold to the normalised plane; needed with both of them.
        threshold_px: Maximum distance of an accepted match from its epipolar line.

    Returns:
        All 0 if there are at least 8 matches but no motion explains 8 of them.

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
    # As px of an ideal camera without distortion, so that the threshold is in px.
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
    """Adds the `check` to a result, if `settings` enable it.

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


def explained_matches(matches: Matches, keypoints0: Points, keypoints1: Points, threshold_px: float) -> Matches:
    """The matches that one camera motion explains: tracks chain only these. Deterministic.

    Args:
        matches: Of two images, on the CPU.
        keypoints0: (M, 2) px, of the matches in image 0.
        keypoints1: (M, 2) px, of the matches in image 1.
        threshold_px: Maximum distance of a match from its epipolar line; 0 keeps all.

    Returns:
        All if there are fewer than 8; none if no motion explains 8 of them.
    """
    if threshold_px <= 0:
        return matches
    check = check_matches(keypoints0, keypoints1, threshold_px=threshold_px)
    if len(check.inlier) == 0:
        return matches
    rows = torch.from_numpy(np.flatnonzero(check.inlier))
    return Matches(
        matches.indices0[rows], matches.indices1[rows], matches.similarity[rows], matches.margin[rows], matches.matcher
    )
