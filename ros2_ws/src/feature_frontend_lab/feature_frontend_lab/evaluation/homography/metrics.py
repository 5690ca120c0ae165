"""Metrics on two images related by a known homography, as pure functions on NumPy arrays.

Convention: points are (x, y) px, pixel centres at integers; sizes are (height, width) px; an image covers x in
[-0.5, width - 0.5); a homography maps points of image 0 to image 1. A method that finds nothing scores 0 instead of
being skipped: finding nothing must not pay.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.errors import SettingsError
from feature_frontend_lab.evaluation.homography.pairs import normalize_homography, transform_points, visible_in

__all__ = [
    "HomographyScore",
    "accuracy",
    "area_under_curve",
    "corner_error",
    "estimate_homography",
    "homography_accuracy",
    "matching_accuracy",
    "matching_score",
    "repeatability",
]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Points = npt.NDArray[np.floating]

RANSAC_THRESHOLD_PX = 3.0
# OpenCV's defaults (0.995, 2000) leave a few pairs with many wrong matches to chance: an error of the estimator, not
# of the features.
RANSAC_CONFIDENCE = 0.9999
RANSAC_MAX_ITERATIONS = 10_000
_MINIMUM_MATCHES = 4
# Bounds the memory of the neighbour search if all points lie in one column.
_SEARCH_ROWS = 1024


@dataclass(frozen=True)
class HomographyScore:
    """Homography estimation over many pairs.

    Attributes:
        accuracy: Fraction of pairs whose corner error is within each threshold, in the order of the thresholds.
        area_under_curve: Area under the curve of that fraction up to each threshold, in [0, 1].
        median_error_px: Median corner error, px; infinite if more than half of the pairs failed.
    """

    accuracy: tuple[float, ...]
    area_under_curve: tuple[float, ...]
    median_error_px: float


def repeatability(
    points0: Points,
    points1: Points,
    homography: FloatArray,
    size0: tuple[int, int],
    size1: tuple[int, int],
    threshold_px: float,
) -> float:
    """Fraction of the points visible in both images that both detections contain (SuperPoint, section 7.2).

    Let V0 be the points x of image 0 with H x inside image 1, V1 the points y of image 1 with H^-1 y inside image 0.
    A point counts if the nearest visible point of the other image, mapped into its own image, is within the threshold:

        ( #{x in V0: min_y |x - H^-1 y| <= t} + #{y in V1: min_x |y - H x| <= t} ) / ( #V0 + #V1 )

    The value is symmetric in the images. 0 if V0 or V1 is empty. In a small image with many points, points are close to
    each other by chance: compare methods at the same number of points, and with random ones.

    Args:
        points0: (N0, 2) px in image 0.
        points1: (N1, 2) px in image 1.
        homography: (3, 3), the truth.
        size0: Image 0's height and width, px.
        size1: Image 1's height and width, px.
        threshold_px: t, in px.

    Raises:
        SettingsError: The homography is degenerate.
    """
    forward = normalize_homography(homography)
    own0, own1 = (np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in (points0, points1))
    carried0 = transform_points(own0, forward)
    carried1 = transform_points(own1, normalize_homography(np.linalg.inv(forward)))
    visible0, visible1 = visible_in(carried0, size1), visible_in(carried1, size0)
    total = int(visible0.sum()) + int(visible1.sum())
    if total == 0:
        return 0.0
    found0 = _has_neighbor(own0[visible0], carried1[visible1], threshold_px)
    found1 = _has_neighbor(own1[visible1], carried0[visible0], threshold_px)
    return (int(found0.sum()) + int(found1.sum())) / total


def matching_accuracy(matched0: Points, matched1: Points, homography: FloatArray, threshold_px: float) -> float:
    """Fraction of correct matches; its mean over pairs is the mean matching accuracy, MMA (D2-Net, SiLK).

        #{(x, y): |H x - y| <= t} / #matches

    Every match counts, even of a place that the other image does not show. 0 if there are no matches.

    Args:
        matched0: (M, 2) px in image 0.
        matched1: (M, 2) px in image 1, the matched points in the same order.
        homography: (3, 3), the truth.
        threshold_px: t, in px of image 1.

    Raises:
        SettingsError: The homography is degenerate.
    """
    if len(matched0) == 0:
        return 0.0
    errors = np.linalg.norm(transform_points(matched0, normalize_homography(homography)) - matched1, axis=1)
    return float(np.mean(errors <= threshold_px))


def matching_score(
    points0: Points,
    points1: Points,
    matches: npt.NDArray[np.int64],
    homography: FloatArray,
    size0: tuple[int, int],
    size1: tuple[int, int],
    threshold_px: float,
) -> float:
    """Ratio of correct matches to points visible in both images, mean over the two images (SuperPoint, section 7.2).

    With V0 and V1 as in `repeatability`, and correct as in `matching_accuracy`:

        #{right matches} (1 / #V0 + 1 / #V1) / 2

    Unlike the accuracy, it decreases if few of the points are matched. 0 if V0 or V1 is empty.

    Args:
        points0: (N0, 2) px in image 0.
        points1: (N1, 2) px in image 1.
        matches: (M, 2) indices into both.
        homography: (3, 3), the truth.
        size0: Image 0's height and width, px.
        size1: Image 1's height and width, px.
        threshold_px: t, in px of image 1.

    Raises:
        SettingsError: The homography is degenerate.
    """
    forward = normalize_homography(homography)
    visible0 = visible_in(transform_points(points0, forward), size1).sum()
    visible1 = visible_in(transform_points(points1, normalize_homography(np.linalg.inv(forward))), size0).sum()
    if min(visible0, visible1) == 0:
        return 0.0
    matched0, matched1 = points0[matches[:, 0]], points1[matches[:, 1]]
    right = matching_accuracy(matched0, matched1, homography, threshold_px) * len(matches)
    return float(right * (1 / visible0 + 1 / visible1) / 2)


def estimate_homography(matched0: Points, matched1: Points) -> FloatArray | None:
    """Estimates the homography by OpenCV's RANSAC (3 px); None if there is none or it is degenerate.

    Args:
        matched0: (M, 2) px in image 0.
        matched1: (M, 2) px in image 1, the matched points in the same order.
    """
    if len(matched0) < _MINIMUM_MATCHES:
        return None
    try:
        estimate, _ = cv2.findHomography(
            np.asarray(matched0, dtype=np.float64),
            np.asarray(matched1, dtype=np.float64),
            cv2.RANSAC,
            RANSAC_THRESHOLD_PX,
            maxIters=RANSAC_MAX_ITERATIONS,
            confidence=RANSAC_CONFIDENCE,
        )
        return None if estimate is None else normalize_homography(np.asarray(estimate, dtype=np.float64))
    except (cv2.error, SettingsError):
        # For collinear points, OpenCV returns nothing, returns a singular matrix or raises, depending on the version.
        return None


def corner_error(estimate: FloatArray | None, homography: FloatArray, size0: tuple[int, int]) -> float:
    """Mean distance in px between the four corners of image 0 mapped by the estimate and by the truth (SuperPoint).

        1/4 sum_c |H_est c - H c|,   c in {(0, 0), (w - 1, 0), (0, h - 1), (w - 1, h - 1)}

    Infinite if there is no estimate, or if it maps a corner behind the camera.

    Args:
        estimate: (3, 3) or None.
        homography: (3, 3), the truth.
        size0: Image 0's height and width, px.

    Raises:
        SettingsError: The truth is degenerate.
    """
    height, width = size0
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], dtype=np.float64)
    truth = transform_points(corners, normalize_homography(homography))
    if estimate is None:
        return float("inf")
    error = float(np.linalg.norm(transform_points(corners, estimate) - truth, axis=1).mean())
    return error if np.isfinite(error) else float("inf")


def accuracy(errors_px: Points, threshold_px: float) -> float:
    """Fraction of the errors that are at most the threshold, in [0, 1]; 0 if there are none."""
    errors = np.asarray(errors_px, dtype=np.float64)
    return float(np.mean(errors <= threshold_px)) if errors.size else 0.0


def area_under_curve(errors_px: Points, threshold_px: float) -> float:
    """Area under the curve "fraction of errors up to e" for e from 0 to the threshold, divided by it, in [0, 1].

        1/t integral_0^t accuracy(e) de = mean_i max(0, 1 - e_i / t)

    This is the exact area under the step function; SuperGlue and LoFTR interpolate linearly between the steps, which
    differs by less than 1 / #pairs. 0 if there are no errors.
    """
    errors = np.asarray(errors_px, dtype=np.float64)
    return float(np.mean(np.maximum(0.0, 1.0 - errors / threshold_px))) if errors.size else 0.0


def homography_accuracy(corner_errors_px: Points, thresholds_px: tuple[float, ...] = (1.0, 3.0)) -> HomographyScore:
    """Accuracy, area under the curve and median of the corner errors (`corner_error`) of many pairs.

    Args:
        corner_errors_px: (P,) px, infinite for a pair whose estimate failed.
        thresholds_px: Thresholds of the accuracy.
    """
    errors = np.asarray(corner_errors_px, dtype=np.float64)
    return HomographyScore(
        accuracy=tuple(accuracy(errors, threshold) for threshold in thresholds_px),
        area_under_curve=tuple(area_under_curve(errors, threshold) for threshold in thresholds_px),
        median_error_px=float(np.sort(errors)[errors.size // 2]) if errors.size else float("inf"),
    )


def _has_neighbor(points: FloatArray, others: FloatArray, radius: float) -> BoolArray:
    """(N,) bool: whether one of (M, 2) `others` is within `radius` of each of (N, 2) `points`."""
    found = np.zeros(len(points), dtype=np.bool_)
    # Neighbours lie in a vertical stripe around the point: in a typical image, a hundredth of all points.
    by_column = others[np.argsort(others[:, 0])]
    first = np.searchsorted(by_column[:, 0], points[:, 0] - radius, side="left")
    after = np.searchsorted(by_column[:, 0], points[:, 0] + radius, side="right")
    for start in range(0, len(points), _SEARCH_ROWS):
        block = slice(start, start + _SEARCH_ROWS)
        counts = after[block] - first[block]
        rows = np.repeat(np.arange(start, start + len(counts)), counts)
        offsets = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        candidates = by_column[np.repeat(first[block], counts) + offsets]
        near = np.linalg.norm(points[rows] - candidates, axis=1) <= radius
        found[rows[near]] = True
    return found
