"""Evaluates matching of single image pairs, some frames apart in a sequence, against the true poses."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from feature_frontend.errors import SettingsError
from feature_frontend.geometry.relative_pose import relative_motion
from feature_frontend_lab.evaluation.homography.baselines import DescribedPoints, MethodProtocol, match_points
from feature_frontend_lab.evaluation.tracks.metrics import epipolar_precision
from feature_frontend_lab.evaluation.tracks.sequence import EvaluationSequence, SequenceFrame
from feature_frontend_lab.evaluation.tracks.trajectory import MotionErrors, undistorted_pose

__all__ = ["PairsResult", "evaluate_pairs"]


@dataclass(frozen=True)
class PairsResult:
    """Results of one method at one gap. Means and medians are over all pairs.

    Attributes:
        method: Its name in this run.
        identity: Name with the version or the hash of the weights.
        gap: Frames from the earlier to the later image.
        pairs: Number of pairs.
        matches: Mean number of matches.
        precision: Mean fraction of matches within the threshold of their true epipolar lines; 0 for a pair without any.
        right: Mean number of such matches.
        without_pose: Pairs whose matches gave no motion.
        rotation_deg: Median rotation error of the motion from the matches; 180 if there is none.
        translation_deg: Median angle between the directions of translation; NaN if the camera stands still.
        seconds_per_match: Median time to match one pair.
    """

    method: str
    identity: str
    gap: int
    pairs: int
    matches: float
    precision: float
    right: float
    without_pose: int
    rotation_deg: float
    translation_deg: float
    seconds_per_match: float


@dataclass
class _Tally:
    matches: list[int] = field(default_factory=list)
    precision: list[float] = field(default_factory=list)
    errors: MotionErrors = field(default_factory=MotionErrors)
    seconds: list[float] = field(default_factory=list)


def evaluate_pairs(
    methods: Mapping[str, MethodProtocol],
    sequence: EvaluationSequence,
    gaps: Sequence[int],
    keypoints: int,
    threshold_px: float,
    on_frame: Callable[[str], object] = lambda _: None,
) -> list[PairsResult]:
    """Matches every pair of images with known poses that is one of `gaps` apart.

    Args:
        methods: Methods by name.
        sequence: Images with calibration and poses.
        gaps: Frames between the two images, at least 1.
        keypoints: Maximum number of keypoints per image.
        threshold_px: Maximum distance of a match from its true epipolar line, in the undistorted image.
        on_frame: Called after each image with the name of the method.

    Raises:
        SettingsError: No two images with known poses and a calibration are that far apart.
    """
    results = []
    for name, method in methods.items():
        tallies = {gap: _Tally() for gap in gaps}
        latest: deque[tuple[SequenceFrame, DescribedPoints]] = deque(maxlen=max(gaps))
        for frame in sequence.frames():
            found = method.detect_and_describe(frame.image, keypoints)
            for gap, tally in tallies.items():
                if gap <= len(latest):
                    _score(*latest[-gap], frame, found, threshold_px, tally)
            latest.append((frame, found))
            on_frame(name)
        for gap, tally in tallies.items():
            if not tally.matches:
                raise SettingsError(
                    f"{sequence.name} has no two images {gap} frames apart with poses and a calibration; expected "
                    "camera.yaml and groundtruth.txt or poses.txt beside the images, and a smaller gap than images"
                )
            results.append(_summary(name, method.identity, gap, tally))
    return results


def _score(
    frame0: SequenceFrame,
    found0: DescribedPoints,
    frame1: SequenceFrame,
    found1: DescribedPoints,
    threshold_px: float,
    tally: _Tally,
) -> None:
    if frame0.pose is None or frame1.pose is None or frame1.camera is None:
        return
    start = time.perf_counter()
    rows = match_points(found0, found1)
    tally.seconds.append(time.perf_counter() - start)
    points0, points1 = found0.points[rows[:, 0]], found1.points[rows[:, 1]]
    tally.matches.append(len(rows))
    poses = [frame0.pose, frame1.pose]
    precision = epipolar_precision([(0, points0, points1)], 1, poses, frame1.camera, threshold_px)
    tally.precision.append(precision if len(rows) else 0.0)
    found = undistorted_pose(points0, points1, frame1.camera)
    tally.errors.add(found and found[0], relative_motion(*poses))


def _summary(name: str, identity: str, gap: int, tally: _Tally) -> PairsResult:
    directions = [error for error in tally.errors.translations_deg if not np.isnan(error)]
    return PairsResult(
        method=name,
        identity=identity,
        gap=gap,
        pairs=len(tally.matches),
        matches=float(np.mean(tally.matches)),
        precision=float(np.mean(tally.precision)),
        right=float(np.mean(np.array(tally.precision) * tally.matches)),
        without_pose=tally.errors.without_pose,
        rotation_deg=float(np.median(tally.errors.rotations_deg)),
        translation_deg=float(np.median(directions)) if directions else float("nan"),
        seconds_per_match=float(np.median(tally.seconds)),
    )
