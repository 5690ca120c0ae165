"""Computes figures from a bag: how many features and matches, how many inliers, and how long it took."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.geometry.relative_pose import RelativePose, epipolar_inliers
from feature_frontend_lab.demo.recording import STAGES, MatchesRecord, Recording, TracksRecord
from feature_frontend_lab.demo.sequence import RenderedSequence
from feature_frontend_lab.evaluation.tracks.trajectory import MotionErrors, undistorted_pose

__all__ = ["INLIER_PX", "RANSAC_PX", "WRONG_PX", "Distribution", "PoseErrors", "Summary", "summarize"]

FloatArray = npt.NDArray[np.float64]

INLIER_PX = 2.0
WRONG_PX = 3.0
RANSAC_PX = 1.0


@dataclass(frozen=True)
class Distribution:
    """Distribution of a number over frames, pairs or tracks; all NaN if there are none."""

    count: int
    median: float
    p95: float
    mean: float
    minimum: float
    maximum: float

    @staticmethod
    def of(values: Sequence[float] | npt.NDArray[np.floating]) -> Distribution:
        """The distribution of `values`, ignoring NaN."""
        array = np.asarray(values, np.float64)
        array = array[~np.isnan(array)]
        if not len(array):
            return Distribution(0, *[float("nan")] * 5)
        return Distribution(
            count=len(array),
            median=float(np.median(array)),
            p95=float(np.percentile(array, 95)),
            mean=float(array.mean()),
            minimum=float(array.min()),
            maximum=float(array.max()),
        )


@dataclass(frozen=True)
class PoseErrors:
    """Errors of the motion between consecutive frames, estimated from the matches alone.

    Attributes:
        rotation_deg: Rotation error; 180 for a pair without an estimate.
        translation_deg: Angle between the directions of translation; 180 for a pair without an estimate.
        pairs_without_pose: Number of pairs from whose matches no motion could be estimated.
    """

    rotation_deg: Distribution
    translation_deg: Distribution
    pairs_without_pose: int


@dataclass(frozen=True)
class Summary:
    """Figures of a run.

    Attributes:
        frames: Number of images that the recorder received.
        features_messages: Number of `Features` messages.
        matches_messages: Number of `Matches` messages.
        states: Number of frames by state.
        reasons: The distinct reasons given by the status messages.
        extractor: Name and hash of the extractor.
        keypoints: Keypoints per frame.
        matches: Matches per pair.
        inlier_ratio: Fraction of a pair's matches that are correct, in [0, 1].
        inlier_method: How inliers were determined.
        pose: Errors of the motion; None without known poses.
        track_length: Number of frames in which each track was seen, over all tracks.
        track_age: Age in frames of the active tracks, over all frames.
        wrong_steps: Fraction of the tracks of two consecutive frames that end more than `WRONG_PX` from where the known
            geometry puts them: the wrong lines of the picture; without known geometry there are none.
        milliseconds: Durations by stage, over the processed frames.
    """

    frames: int
    features_messages: int
    matches_messages: int
    states: dict[str, int]
    reasons: tuple[str, ...]
    extractor: str
    keypoints: Distribution
    matches: Distribution
    inlier_ratio: Distribution
    inlier_method: str
    pose: PoseErrors | None
    track_length: Distribution
    track_age: Distribution
    wrong_steps: Distribution
    milliseconds: dict[str, Distribution]


def summarize(recording: Recording, sequence: RenderedSequence | None) -> Summary:
    """Computes the figures of a recording, compared with the geometry of the rendered `sequence` if given."""
    states = [status.state for status in recording.status]
    reasons = dict.fromkeys(status.reason for status in recording.status if status.reason)
    extractors = dict.fromkeys(record.extractor for record in recording.features)
    lengths: dict[int, int] = {}
    for tracks in recording.tracks:
        lengths.update(zip(tracks.ids.tolist(), tracks.ages.tolist(), strict=True))
    ages = [record.ages for record in recording.tracks]
    processed = [status.milliseconds for status in recording.status if status.is_processed]
    return Summary(
        frames=recording.image_count,
        features_messages=len(recording.features),
        matches_messages=len(recording.matches),
        states={state: states.count(state) for state in dict.fromkeys(states)},
        reasons=tuple(reasons),
        extractor=", ".join(extractors),
        keypoints=Distribution.of([len(record.keypoints) for record in recording.features]),
        matches=Distribution.of([len(record.keypoints0) for record in recording.matches]),
        inlier_ratio=Distribution.of(
            [_inlier_ratio(record, recording.camera, sequence) for record in recording.matches]
        ),
        inlier_method=_inlier_method(recording.camera, sequence),
        pose=None if sequence is None else _pose_errors(recording, sequence),
        track_length=Distribution.of(list(lengths.values())),
        track_age=Distribution.of(np.concatenate(ages) if ages else []),
        wrong_steps=Distribution.of(
            [] if sequence is None else [_wrong_steps(*pair, sequence) for pair in itertools.pairwise(recording.tracks)]
        ),
        milliseconds={stage: Distribution.of([ms[stage] for ms in processed]) for stage in STAGES},
    )


def _inlier_method(camera: CameraCalibration | None, sequence: RenderedSequence | None) -> str:
    if sequence is not None:
        return f"within {INLIER_PX:g} px of the known geometry"
    model = "fundamental matrix" if camera is None else "essential matrix"
    return f"of the {model}, RANSAC {RANSAC_PX:g} px"


def _inlier_ratio(record: MatchesRecord, camera: CameraCalibration | None, sequence: RenderedSequence | None) -> float:
    """NaN for a pair without matches."""
    if not len(record.keypoints0):
        return float("nan")
    if sequence is not None:
        residuals = sequence.residuals_px(record.stamp0_ns, record.stamp1_ns, record.keypoints0, record.keypoints1)
        return float((residuals <= INLIER_PX).mean())
    if camera is None:
        return float(epipolar_inliers(record.keypoints0, record.keypoints1, RANSAC_PX).mean())
    pose = _estimate(record, camera)
    return 0.0 if pose is None else float(pose.inliers.mean())


def _wrong_steps(before: TracksRecord, now: TracksRecord, sequence: RenderedSequence) -> float:
    """NaN for two frames without a common track."""
    ids, rows0, rows1 = np.intersect1d(before.ids, now.ids, return_indices=True)
    if not len(ids):
        return float("nan")
    points = before.keypoints[rows0], now.keypoints[rows1]
    return float((sequence.residuals_px(before.stamp_ns, now.stamp_ns, *points) > WRONG_PX).mean())


def _pose_errors(recording: Recording, sequence: RenderedSequence) -> PoseErrors:
    errors = MotionErrors()
    for record in recording.matches:
        pose = None if recording.camera is None else _estimate(record, recording.camera)
        errors.add(pose, sequence.motion(record.stamp0_ns, record.stamp1_ns))
    return PoseErrors(
        Distribution.of(errors.rotations_deg), Distribution.of(errors.translations_deg), errors.without_pose
    )


def _estimate(record: MatchesRecord, camera: CameraCalibration) -> RelativePose | None:
    found = undistorted_pose(record.keypoints0, record.keypoints1, camera)
    return found and found[0]
