"""Which matches fit one rigid motion of the camera: the check behind `Matches.inlier` and `FrameStatus.inlier_ratio`.

The essential matrix decides where both images' keypoints are normalised, the fundamental matrix otherwise, each by
RANSAC with a fixed seed (`two_view.py`). A match that passes lies within the threshold of its epipolar line; that does
not make it right: one that is wrong along the line passes, too.

Degenerate motions lose no right match. A camera that stands still or only turns, and a scene that is one plane, fit
infinitely many epipolar geometries; every one of them has the right matches as inliers, and the freedom that is left
only lets some more wrong ones pass. With fewer than 8 matches nothing is said of any of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from feature_frontend.parameter_record import SettingsGroup, parameter
from feature_frontend.two_view import MINIMUM_PAIRS, Points, epipolar_inliers, essential_inliers

if TYPE_CHECKING:
    from feature_frontend.frontend import FrameResult
    from feature_frontend.rays import MatchRays

__all__ = ["EpipolarSettings", "MatchCheck", "check_frame", "check_matches"]


@dataclass(frozen=True)
class EpipolarSettings(SettingsGroup):
    """Whether and how strictly matches are checked against one motion of the camera."""

    epipolar_check: bool = parameter(
        False,
        "Whether each match is checked against the one motion of the camera that explains most of them; fills `inlier` "
        "in `matches` and `inlier_ratio` in `status`. With camera_info by the essential matrix, without by the "
        "fundamental matrix. Features and tracks do not wait for it, matches do.",
        live=True,
    )
    epipolar_threshold_px: float = parameter(
        2.0,
        "Largest distance of an accepted match from its epipolar line.",
        unit="px",
        minimum=0.01,
        maximum=100.0,
        live=True,
    )


@dataclass(frozen=True)
class MatchCheck:
    """What the check says of an image's matches.

    Attributes:
        inlier: (M,) uint8, 1 where a match is accepted, else 0; (0,) where nothing is said: the check is off, or there
            are fewer than 8 matches.
    """

    inlier: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))

    @property
    def ratio(self) -> float:
        """Share of the matches that are accepted, in [0, 1]; NaN where nothing is said."""
        return float(self.inlier.mean()) if len(self.inlier) else math.nan


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
