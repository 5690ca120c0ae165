"""How long tracks live, and whether what they say is true: measured over the frames of a sequence.

A sequence is one entry a frame, also for a frame in which nothing was found. A gap is a number of frames: a gap of 1 is
a frame and the next. Points are (x, y) px of the images as published. Suffix 0 is the earlier frame, 1 the later one.
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
    "paired_difference",
    "pairs_at",
    "position_drift_px",
    "share_alive",
    "share_seen",
    "undistorted_px",
]

Points = npt.NDArray[np.floating]
FloatArray = npt.NDArray[np.float64]
Pairs = Iterable[tuple[int, Points, Points]]

GAPS = (1, 2, 5, 10)
EPIPOLAR_THRESHOLD_PX = 2.0
REDETECTION_RADIUS_PX = 3.0


def share_alive(tracks: Sequence[Tracks], gaps: Sequence[int] = GAPS) -> dict[int, float]:
    """By gap: of all points of a frame, the share whose id is present exactly that many frames later.

    Averaged over the frames that have such a later frame and at least one point; NaN where there is none.
    """
    shares: dict[int, float] = {}
    for gap in gaps:
        of_frames = [
            float(np.isin(earlier.ids, later.ids).mean())
            for earlier, later in zip(tracks, tracks[gap:], strict=False)
            if len(earlier)
        ]
        shares[gap] = float(np.mean(of_frames)) if of_frames else float("nan")
    return shares


def pairs_at(tracks: Sequence[Tracks], gap: int) -> Iterator[tuple[int, Points, Points]]:
    """For each frame that has one `gap` frames later, the points whose ids are present in both.

    Yields:
        Index of the earlier frame; (M, 2) px in the earlier and (M, 2) px in the later frame, row by row one id.
    """
    for index, (earlier, later) in enumerate(zip(tracks, tracks[gap:], strict=False)):
        _, rows0, rows1 = np.intersect1d(earlier.ids, later.ids, assume_unique=True, return_indices=True)
        yield index, earlier.keypoints[rows0], later.keypoints[rows1]


def undistorted_px(calibration: CameraCalibration, points: Points) -> FloatArray:
    """(M, 2) px at which a camera with the same matrix K and no distortion sees the points; NaN where nowhere."""
    fx, _, cx, _, fy, cy, *_ = calibration.camera_matrix
    return normalize_points(calibration, points).astype(np.float64) * [fx, fy] + [cx, cy]


def epipolar_precision(
    pairs: Pairs,
    gap: int,
    poses: Sequence[FloatArray],
    calibration: CameraCalibration,
    threshold_px: float = EPIPOLAR_THRESHOLD_PX,
) -> float:
    """The share of pairs that lie within `threshold_px` of their true epipolar lines, averaged over the frames.

    Args:
        pairs: From `pairs_at`.
        gap: That they were made with.
        poses: True camera-to-world matrices (4, 4), one a frame.
        calibration: The camera's; distances are those in the undistorted image.
        threshold_px: Largest distance, in either image.

    Returns:
        In [0, 1]; NaN where no frame has a pair. A frame without a pair does not count.
    """
    fx, _, cx, _, fy, cy, *_ = calibration.camera_matrix
    camera = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    shares = []
    for index, points0, points1 in pairs:
        if len(points0) == 0:
            continue
        fundamental = fundamental_matrix(relative_motion(poses[index], poses[index + gap]), camera)
        undistorted = undistorted_px(calibration, points0), undistorted_px(calibration, points1)
        # A point that the lens model puts nowhere is NaN, which is not below the threshold.
        shares.append(float((epipolar_distances(*undistorted, fundamental) <= threshold_px).mean()))
    return float(np.mean(shares)) if shares else float("nan")


def position_drift_px(
    tracks: Sequence[Tracks], detections: Sequence[Points], radius_px: float = REDETECTION_RADIUS_PX
) -> float:
    """Median distance of tracked points from the keypoint that a detector finds anew at the same place.

    Args:
        tracks: Observations of age 1 do not count: they are where they were detected.
        detections: (N, 2) px, what the detector finds in each frame without knowing the tracks.
        radius_px: How far away a keypoint may be and count as the same point; observations without one do not count.

    Returns:
        px; NaN where no observation has a keypoint near it.
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


def share_seen(tracks: Sequence[Tracks], index: int) -> float:
    """Of the tracks of the frame before, the share that frame `index` claims to continue, re-linked ones included.

    With an unrelated image in the place of frame `index`, this is the share of invented observations.
    """
    before, claimed = tracks[index - 1], tracks[index]
    return float(np.count_nonzero(claimed.ages > 1)) / max(len(before), 1)


CONFIDENCE = 0.95
_DRAWS = 10_000
_FEWEST_PAIRS = 5


@dataclass(frozen=True)
class Difference:
    """How much larger errors are than those they are compared with, over the same pairs of frames.

    Attributes:
        mean: Mean difference; below 0 they are smaller.
        low: Lower end of its interval; NaN where there are too few pairs of frames for one.
        high: Its upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What can be said: "smaller", "larger", or "alike" where the interval holds 0 or there is none."""
        if self.high < 0:
            return "smaller"
        return "larger" if self.low > 0 else "alike"


def paired_difference(errors: Sequence[float], reference: Sequence[float]) -> Difference:
    """The mean difference and its interval by the bootstrap over pairs of frames, with a fixed seed.

    Neighbouring pairs of frames share images, and all share one ground truth and one calibration: the interval says
    what another choice among such frames would have given, not what another camera would.

    Args:
        errors: One for each pair of frames; a pair where either is NaN is left out.
        reference: Of the same pairs of frames.

    Raises:
        ValueError: They are not as many.
    """
    if len(errors) != len(reference):
        msg = f"{len(errors)} errors and {len(reference)} to compare with; expected one for each pair of frames"
        raise ValueError(msg)
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
