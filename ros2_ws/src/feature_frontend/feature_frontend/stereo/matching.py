"""Stereo matching: from the features of two images to matches and 3-D points."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.errors import CalibrationError
from feature_frontend.matchers.base import check_comparable
from feature_frontend.settings import Settings
from feature_frontend.stereo.rig import StereoRig
from feature_frontend.types import Features, Matches

__all__ = [
    "ROW_MATCHER",
    "Disparities",
    "RowOptions",
    "StereoResult",
    "match_rows",
    "match_stereo",
    "refine_right_points",
]

Uint8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
# Small enough to lie mostly on one surface; larger windows degrade depth at edges.
_WINDOW = (9, 9)
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)
# Keypoints of a correct match are off by less; a point that moves further has lost its corner.
_MOST_PX = 1.5


def refine_right_points(left: Uint8Array, right: Uint8Array, points0: FloatArray, points1: FloatArray) -> FloatArray:
    """(M, 2) float32, the right points refined to sub-pixel positions by Lucas-Kanade.

    A point that would move by more than 1.5 px, or out of the image, is not changed.

    Args:
        left: (H, W) grey or (H, W, 3) RGB.
        right: Of the same type and size.
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


ROW_MATCHER = "mnn-rows"
_BLOCK_ROWS = 256
# 64 MiB of float32 similarities, for images with all keypoints on a few rows.
_BLOCK_ELEMENTS = 16 * 1024 * 1024
_NO_SIMILARITY = -1.0


@dataclass(frozen=True)
class RowOptions:
    """Candidate selection and gates of the matcher; each has the meaning of the parameter of the same name."""

    row_tolerance_px: float
    min_disparity_px: float
    max_disparity_px: float
    min_similarity: float
    ratio_threshold: float


@torch.no_grad()
def match_rows(
    features0: Features,
    features1: Features,
    points0: torch.Tensor,
    points1: torch.Tensor,
    options: RowOptions,
    block_elements: int = _BLOCK_ELEMENTS,
) -> Matches:
    """Matches keypoints that are mutually the most similar candidates and pass the gates, sorted by `indices0`.

    Two keypoints are candidates if their rows differ by at most the tolerance and their disparity, x0 - x1, is in the
    range. The ratio test and the margin compare with the second best candidate. Of equal candidates the upper one wins,
    on one row the first.

    Args:
        features0: Of the left image.
        features1: Of the right image, by the same extractor, on the same device.
        points0: (N0, 2) float64, (x, y) px of the left keypoints in the rectified image; NaN to exclude one.
        points1: (N1, 2) float64, of the right ones.
        options: Candidate selection and gates.
        block_elements: Maximum number of similarities in memory; the result does not depend on it.

    Raises:
        MatchingError: The features come from different extractors.
    """
    check_comparable(features0, features1)
    order0, order1 = _by_row(points0), _by_row(points1)
    if len(order0) == 0 or len(order1) == 0:
        return Matches.empty(ROW_MATCHER, features1.device)
    sorted0, sorted1 = points0[order0], points1[order1]
    descriptors0, descriptors1 = features0.descriptors[order0].float(), features1.descriptors[order1].float()
    rows1 = sorted1[:, 1].contiguous()
    # The row band of each left keypoint, as positions among the sorted right ones.
    begin = torch.searchsorted(rows1, sorted0[:, 1] - options.row_tolerance_px)
    end = torch.searchsorted(rows1, sorted0[:, 1] + options.row_tolerance_px, right=True)
    begins, ends = begin.tolist(), end.tolist()
    position1 = torch.arange(len(order1), device=order1.device)
    index = torch.zeros_like(order0)
    best = descriptors0.new_full((len(order0),), -torch.inf)
    second = torch.full_like(best, -torch.inf)
    best_of_column = descriptors0.new_full((len(order1),), -torch.inf)
    row_of_column = torch.full_like(order1, -1)
    step = max(1, min(_BLOCK_ROWS, block_elements // len(order1)))
    for start in range(0, len(order0), step):
        rows = slice(start, min(start + step, len(order0)))
        band = slice(begins[rows.start], ends[rows.stop - 1])
        if band.start >= band.stop:
            continue
        similarity = descriptors0[rows] @ descriptors1[band].T
        disparity = sorted0[rows, None, 0] - sorted1[None, band, 0]
        is_candidate = (position1[band] >= begin[rows, None]) & (position1[band] < end[rows, None])
        is_candidate &= (disparity >= options.min_disparity_px) & (disparity <= options.max_disparity_px)
        similarity.masked_fill_(~is_candidate, -torch.inf)
        value, row = similarity.max(dim=0)
        is_better = value > best_of_column[band]
        best_of_column[band] = torch.where(is_better, value, best_of_column[band])
        row_of_column[band] = torch.where(is_better, row + start, row_of_column[band])
        best[rows], column = similarity.max(dim=1)
        index[rows] = column + band.start
        second[rows] = similarity.scatter_(1, column[:, None], -torch.inf).amax(dim=1)
    second.clamp_(min=_NO_SIMILARITY)
    keep = (row_of_column[index] == torch.arange(len(order0), device=index.device)) & (best >= options.min_similarity)
    if options.ratio_threshold < 1.0:
        keep &= 1.0 - best < options.ratio_threshold * (1.0 - second)
    indices0 = order0[keep]
    by_index = indices0.argsort()
    similarity, margin = best[keep][by_index], (best - second)[keep][by_index]
    return Matches(indices0[by_index], order1[index[keep]][by_index], similarity, margin, ROW_MATCHER)


def _by_row(points: torch.Tensor) -> torch.Tensor:
    """Indices of the finite points, sorted by row; stable within a row."""
    finite = points.isfinite().all(dim=1).nonzero()[:, 0]
    return finite[points[finite, 1].argsort(stable=True)]


# The row tolerance includes the scatter of keypoints, which refined points do not have: a fraction is enough for them.
_REFINED_ROW_FRACTION = 0.5


@dataclass(frozen=True)
class Disparities:
    """The disparities of the left image's keypoints.

    Attributes:
        px: (N,) float32, difference of the columns of both in the rectified left image; NaN without a match.
        focal_baseline: Focal length in px times baseline in m, of the rectified cameras; 0 without a rig. Divided by
            the disparity, it is the depth along the rectified optical axis in m.
    """

    px: npt.NDArray[np.float32]
    focal_baseline: float


@dataclass(frozen=True)
class StereoResult:
    """The result of matching a stereo pair.

    Attributes:
        matches: From the left image (0) to the right one (1), on the CPU.
        points: (P, 3) float32, (x, y, z) m, the finite points of `StereoRig.triangulate`. Empty without a rig.
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
    """Matches two images that were taken at the same time.

    Args:
        left: Of the left image, on the CPU.
        right: Of the right image, by the same extractor, on the CPU.
        rig: The calibrated cameras; None is enough to match rectified images of equal size.
        settings: Uses `stereo_*`, `min_similarity`, `ratio_threshold` and `rectified`.
        images: The left and the right one, for `stereo_subpixel`; None to skip refinement.

    Raises:
        CalibrationError: There is no rig and the rows of the two images do not correspond, or an image differs in size
            from its calibration.
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
        is_off_row = np.abs(points0[indices0, 1] - matched1[:, 1]) > _REFINED_ROW_FRACTION * options.row_tolerance_px
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
        raise CalibrationError(
            "raw images have no rows in common without the camera_info of both; publish them, or set the parameter "
            "rectified if the images are rectified"
        )
    if (left.height, left.width) != (right.height, right.width):
        raise CalibrationError(
            f"the left image is {left.width}x{left.height} px and the right one {right.width}x{right.height} px; "
            "without the camera_info of both, expected one size"
        )
