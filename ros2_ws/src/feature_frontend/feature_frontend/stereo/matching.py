"""From the features of two images to their stereo matches and to points in space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.errors import CalibrationError
from feature_frontend.settings import Settings
from feature_frontend.stereo.rig import StereoRig
from feature_frontend.stereo.row_matching import RowOptions, match_rows
from feature_frontend.stereo.subpixel import refine_right_points
from feature_frontend.types import Features, Matches

__all__ = ["Disparities", "StereoResult", "match_stereo"]

# The tolerance also covers the keypoints' own scatter, which refined points do not have: what is off now is wrong.
_REFINED_ROW_SHARE = 0.5


@dataclass(frozen=True)
class Disparities:
    """How far the left image's keypoints lie from their matches in the right one.

    Attributes:
        px: (N,) float32, between the columns of both in the rectified left image; NaN where there is no match.
        focal_baseline: Focal length in px times baseline in m, of the rectified cameras; 0 without a rig. By the
            disparity, it is the depth along the rectified optical axis in m.
    """

    px: npt.NDArray[np.float32]
    focal_baseline: float


@dataclass(frozen=True)
class StereoResult:
    """What a pair of images gave.

    Attributes:
        matches: From the left image (0) to the right one (1), on the CPU.
        points: (P, 3) float32, (x, y, z) m, as `StereoRig.triangulate` gives them; those that are finite. Empty
            without a rig.
        indices: (P,) uint32, rows of the left features.
        disparities: Of the left features.
    """

    matches: Matches
    points: npt.NDArray[np.float32]
    indices: npt.NDArray[np.uint32]
    disparities: Disparities


def match_stereo(
    left: Features,
    right: Features,
    rig: StereoRig | None,
    settings: Settings,
    images: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None = None,
) -> StereoResult:
    """Matches two images that were taken at one time.

    Args:
        left: Of the left image, on the CPU.
        right: Of the right image, by the same extractor, on the CPU.
        rig: The calibrated cameras; None for none, which does for matches of rectified images of one size.
        settings: Those that begin with `stereo_`, `min_similarity`, `ratio_threshold` and `rectified`.
        images: The left and the right one, for `stereo_subpixel`; None does without.

    Raises:
        CalibrationError: There is no rig and the rows of the two images have nothing to do with each other, or an
            image has another size than its calibration.
        MatchingError: The features come from different extractors.
    """
    if rig is None:
        _check_rows(left, right, rectified=settings.rectified)
        points0, points1 = (side.keypoints.double().numpy() for side in (left, right))
    else:
        rig.left.check_image(left.height, left.width, "the left image")
        rig.right.check_image(right.height, right.width, "the right image")
        points0 = rig.left_on_rows(left.keypoints.numpy())
        points1 = rig.right_on_rows(right.keypoints.numpy())
    options = RowOptions(
        row_tolerance_px=settings.stereo_row_tolerance_px,
        min_disparity_px=settings.stereo_min_disparity_px,
        max_disparity_px=settings.stereo_max_disparity_px,
        min_similarity=settings.min_similarity,
        ratio_threshold=settings.ratio_threshold,
    )
    matches = match_rows(left, right, torch.from_numpy(points0), torch.from_numpy(points1), options)
    indices0 = matches.indices0.numpy()
    matched1 = points1[matches.indices1.numpy()]
    disparities_px = np.full(len(left), np.nan, np.float32)
    if rig is None:
        disparities_px[indices0] = points0[indices0, 0] - matched1[:, 0]
        nothing = np.zeros((0, 3), np.float32), np.zeros(0, np.uint32)
        return StereoResult(matches, *nothing, Disparities(disparities_px, 0.0))
    if images is not None and settings.stereo_subpixel:
        of_left, of_right = left.keypoints[matches.indices0].numpy(), right.keypoints[matches.indices1].numpy()
        matched1 = rig.right_on_rows(refine_right_points(*images, of_left, of_right))
        is_off_row = np.abs(points0[indices0, 1] - matched1[:, 1]) > _REFINED_ROW_SHARE * options.row_tolerance_px
        matched1[is_off_row] = np.nan
    disparities_px[indices0] = points0[indices0, 0] - matched1[:, 0]
    points = rig.triangulate(points0[indices0], matched1)
    with np.errstate(over="ignore"):
        in_space = points.astype(np.float32)
    is_finite = np.isfinite(in_space).all(axis=1)
    return StereoResult(
        matches,
        in_space[is_finite],
        indices0[is_finite].astype(np.uint32),
        Disparities(disparities_px, rig.focal_baseline),
    )


def _check_rows(left: Features, right: Features, *, rectified: bool) -> None:
    if not rectified:
        msg = (
            "raw images have no rows in common without the camera_info of both; publish them, or set the parameter "
            "rectified if the images are rectified"
        )
        raise CalibrationError(msg)
    if (left.height, left.width) != (right.height, right.width):
        msg = (
            f"the left image is {left.width}x{left.height} px and the right one {right.width}x{right.height} px; "
            "without the camera_info of both, expected one size"
        )
        raise CalibrationError(msg)
