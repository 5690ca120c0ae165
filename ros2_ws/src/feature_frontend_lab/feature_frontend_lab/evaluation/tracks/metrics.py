"""Metrics of track survival and accuracy over the frames of a sequence.

A sequence has one entry per frame, even if nothing was found in it. A gap is a number of frames; consecutive frames
have gap 1. Points are (x, y) px of the images as published. Suffix 0 is the earlier frame, 1 the later one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import CameraCalibration, normalize_points
from feature_frontend.geometry.relative_pose import epipolar_distances, fundamental_matrix, relative_motion
from feature_frontend.types import Tracks

__all__ = [
    "CONFIDENCE",
    "EPIPOLAR_THRESHOLD_PX",
    "GAPS",
    "Difference",
    "Pairs",
    "epipolar_precision",
    "fraction_alive",
    "fraction_seen",
    "paired_difference",
    "pairs_at",
    "position_drift_px",
    "undistorted_px",
]

Points = npt.NDArray[np.floating]
FloatArray = npt.NDArray[np.float64]
Pairs = Iterable[tuple[int, Points, Points]]

GAPS = (1, 2, 5, 10)
EPIPOLAR_THRESHOLD_PX = 2.0
REDETECTION_RADIUS_PX = 3.0


def fraction_alive(tracks: Sequence[Tracks], gaps: Sequence[int] = GAPS) -> dict[int, float]:
    """Fraction of a frame's points whose id is present again exactly `gap` frames later, by gap.

    Averaged over the frames that have such a later frame and at least one point; NaN if there is none.
    """
    fractions: dict[int, float] = {}
    for gap in gaps:
        of_frames = [
            float(np.isin(earlier.ids, later.ids).mean())
            for earlier, later in zip(tracks, tracks[gap:], strict=False)
            if len(earlier)
        ]
        fractions[gap] = float(np.mean(of_frames)) if of_frames else float("nan")
    return fractions


def pairs_at(tracks: Sequence[Tracks], gap: int) -> Iterator[tuple[int, Points, Points]]:
    """For each frame that has one `gap` frames later, the points whose ids are present in both.

    Yields:
        Index of the earlier frame; (M, 2) px in the earlier and (M, 2) px in the later frame; rows correspond.
    """
    for index, (earlier, later) in enumerate(zip(tracks, tracks[gap:], strict=False)):
        _, rows0, rows1 = np.intersect1d(earlier.ids, later.ids, assume_unique=True, return_indices=True)
        yield index, earlier.keypoints[rows0], later.keypoints[rows1]


def undistorted_px(calibration: CameraCalibration, points: Points) -> FloatArray:
    """(M, 2) px as seen by a camera with the same matrix K and no distortion; NaN if a point cannot be undistorted."""
    fx, _, cx, _, fy, cy, *_ = calibration.camera_matrix
    return normalize_points(calibration, points).astype(np.float64) * [fx, fy] + [cx, cy]


def epipolar_precision(
    pairs: Pairs,
    gap: int,
    poses: Sequence[FloatArray],
    calibration: CameraCalibration,
    threshold_px: float = EPIPOLAR_THRESHOLD_PX,
) -> float:
    """Fraction of pairs within `threshold_px` of their true epipolar lines, averaged over the frames.

    Args:
        pairs: From `pairs_at`.
        gap: Gap that `pairs` was made with.
        poses: True camera-to-world matrices (4, 4), one per frame.
        calibration: Calibration of the camera; distances are measured in the undistorted image.
        threshold_px: Largest distance, in either image.

    Returns:
        In [0, 1]; NaN if no frame has a pair. A frame without a pair does not count.
    """
    fx, _, cx, _, fy, cy, *_ = calibration.camera_matrix
    camera = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    fractions = []
    for index, points0, points1 in pairs:
        if len(points0) == 0:
            continue
        fundamental = fundamental_matrix(relative_motion(poses[index], poses[index + gap]), camera)
        undistorted = undistorted_px(calibration, points0), undistorted_px(calibration, points1)
        # A point that cannot be undistorted is NaN and so never below the threshold.
        fractions.append(float((epipolar_distances(*undistorted, fundamental) <= threshold_px).mean()))
    return float(np.mean(fractions)) if fractions else float("nan")


def position_drift_px(
    tracks: Sequence[Tracks], detections: Sequence[Points], radius_px: float = REDETECTION_RADIUS_PX
) -> float:
    """Median distance of tracked points from the nearest fresh detection of the same place.

    Args:
        tracks: Observations of age 1 do not count: they are detections themselves.
        detections: (N, 2) px, independent detections in each frame.
        radius_px: Maximum distance to a detection; observations without one within it do not count.

    Returns:
        px; NaN if no observation has a detection near it.
    """
    distances = [np.zeros(0, np.float32)]
    for of_frame, detected in zip(tracks, detections, strict=True):
        points = of_frame.keypoints[of_frame.ages > 1]
        if len(points) and len(detected):
            pairs = cv2.BFMatcher(cv2.NORM_L2).match(
                np.ascontiguousarray(points, np.float32), np.ascontiguousarray(detected, np.float32)
            )
            distances.append(np.array([pair.distance for pair in pairs], np.float32))
    all_distances = np.concatenate(distances)
    near = all_distances[all_distances <= radius_px]
    return float(np.median(near)) if len(near) else float("nan")


def fraction_seen(tracks: Sequence[Tracks], index: int) -> float:
    """Fraction of the previous frame's tracks that frame `index` claims to continue, including re-linked ones.

    If frame `index` is an unrelated image, this is the fraction of false observations.
    """
    before, claimed = tracks[index - 1], tracks[index]
    return float(np.count_nonzero(claimed.ages > 1)) / max(len(before), 1)


CONFIDENCE = 0.95
_DRAWS = 10_000
_FEWEST_PAIRS = 5


@dataclass(frozen=True)
class Difference:
    """Mean difference between errors and reference errors over the same pairs of frames.

    Attributes:
        mean: Mean difference; negative if the errors are smaller.
        low: Lower end of its confidence interval; NaN if there are too few pairs of frames.
        high: Upper end of the interval.
    """

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """The conclusion: "smaller", "larger", or "alike" if the interval contains 0 or does not exist."""
        if self.high < 0:
            return "smaller"
        return "larger" if self.low > 0 else "alike"


def paired_difference(errors: Sequence[float], reference: Sequence[float]) -> Difference:
    """Mean difference with its bootstrap interval over pairs of frames, with a fixed seed.

    Neighbouring pairs of frames share images, and all share one ground truth and one calibration: the interval covers
    another choice among such frames, not another camera.

    Args:
        errors: One per pair of frames; a pair is excluded if either value is NaN.
        reference: Reference errors of the same pairs of frames.

    Raises:
        ValueError: The lengths differ.
    """
    if len(errors) != len(reference):
        raise ValueError(
            f"{len(errors)} errors and {len(reference)} to compare with; expected one for each pair of frames"
        )
    differences = np.subtract(errors, reference)
    differences = differences[np.isfinite(differences)]
    if len(differences) == 0:
        return Difference(float("nan"), float("nan"), float("nan"))
    mean = float(differences.mean())
    if len(differences) < _FEWEST_PAIRS:
        return Difference(mean, float("nan"), float("nan"))
    drawn = np.random.default_rng(0).integers(0, len(differences), (_DRAWS, len(differences)))
    low, high = np.quantile(differences[drawn].mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
    return Difference(mean, low, high)
