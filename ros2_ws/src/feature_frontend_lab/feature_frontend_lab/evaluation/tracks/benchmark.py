"""Metrics of a run over a sequence: track length, image coverage and accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.geometry.relative_pose import epipolar_inliers, relative_motion
from feature_frontend.types import Tracks
from feature_frontend_lab.evaluation.tracks.baselines import Detections
from feature_frontend_lab.evaluation.tracks.metrics import (
    GAPS,
    Pairs,
    epipolar_precision,
    fraction_alive,
    pairs_at,
    position_drift_px,
    undistorted_px,
)
from feature_frontend_lab.evaluation.tracks.track_history import POSE_GAPS, Pair, TrackHistory
from feature_frontend_lab.evaluation.tracks.trajectory import (
    MonocularTrajectory,
    MotionErrors,
    align,
    chain_poses,
    undistorted_pose,
)

__all__ = [
    "PoseErrors",
    "SequenceReport",
    "TrackResult",
    "coverage",
    "measure",
    "parallax_over_life",
    "refound",
    "track_lengths",
]

FloatArray = npt.NDArray[np.float64]
Points = npt.NDArray[np.floating]

SURVIVAL_GAPS = tuple(range(1, max(GAPS) + 1))
GRID_ROWS, GRID_COLUMNS = 6, 8
# Tolerance for rounding differences between two runs of a network; distinct detections are further apart.
_SAME_POINT_PX = 0.01


@dataclass(frozen=True)
class PoseErrors:
    """Errors of the motion between two frames, estimated from tracks alone; a pair without a motion counts as 180.

    Attributes:
        pairs: Number of pairs of frames with known poses.
        without_pose: Number of pairs whose tracks gave no motion.
        median_rotation_deg: Median rotation error.
        mean_rotation_deg: Mean rotation error.
        median_translation_deg: Median angle between the directions of translation; NaN if the camera stands still.
        mean_translation_deg: Mean of that angle.
        rotations_deg: Rotation error of each pair, in the order of the frames.
        translations_deg: Angle between the directions of each pair; NaN if the camera stands still.
    """

    pairs: int
    without_pose: int
    median_rotation_deg: float
    mean_rotation_deg: float
    median_translation_deg: float
    mean_translation_deg: float
    rotations_deg: tuple[float, ...]
    translations_deg: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class TrackResult:
    """One configuration on one sequence. Metrics by gap are dictionaries keyed by the number of frames; NaN: no value.

    Attributes:
        configuration: As the user named it.
        identity: Name and version of the front-end.
        frames: Number of images.
        keypoints: Mean number of keypoints per image.
        matches: Mean number of points that a frame has in common with the previous frame, by id.
        alive: Fraction of a frame's points that are present again so many frames later (1 to 10).
        lengths: Number of tracks by the number of frames they were seen in.
        coverage: Mean fraction of the 6x8 cells of an image that hold a point with an age of at least 2.
        inlier_ratio: Fraction of the pairs over a gap that fit one epipolar geometry, RANSAC at 1 px.
        parallax_px: Median distance that a point moves in the image over a gap.
        life_parallax_px: The same from the first to the last sighting of each track with at least two sightings.
        drift_px: Median distance of tracked points from the detection within 3 px of them.
        refound_drift_px: The same, only for points that the detector does not pick within its budget; NaN if none.
        unrelated: Fraction of the tracks reported as seen in an unrelated image; None if not measured.
        precision: Fraction of the pairs over a gap within 2 px of their true epipolar lines; None without ground truth.
        nearest_precision: The same for mutual nearest neighbours without tracking; None also without descriptors.
        pose: Errors of the motion over a gap; None without ground truth.
        trajectory: Chained motions; None without calibration.
        trajectory_rmse_m: RMSE of its positions after alignment with the true ones; None without ground truth.
        aligned: (N, 3) positions after alignment; None without ground truth.
        extraction_ms: Median extraction time per image.
        tracking_ms: Median time for matching or tracking per image.
    """

    configuration: str
    identity: str
    frames: int
    keypoints: float
    matches: float
    alive: dict[int, float]
    lengths: dict[int, int]
    coverage: float
    inlier_ratio: dict[int, float]
    parallax_px: dict[int, float]
    life_parallax_px: float
    drift_px: float
    refound_drift_px: float
    unrelated: float | None
    precision: dict[int, float] | None
    nearest_precision: dict[int, float] | None
    pose: dict[int, PoseErrors] | None
    trajectory: MonocularTrajectory | None
    trajectory_rmse_m: float | None
    aligned: FloatArray | None
    extraction_ms: float
    tracking_ms: float

    @property
    def mean_length(self) -> float:
        """Mean number of frames in which a track was seen, including tracks cut off by the end of the sequence."""
        return sum(length * count for length, count in self.lengths.items()) / max(sum(self.lengths.values()), 1)


@dataclass(frozen=True)
class SequenceReport:
    """Results for one sequence.

    Attributes:
        name: Name of the sequence.
        description: Description of the images.
        stamps_ns: Times of the images.
        poses: Known camera-to-world matrices (4, 4); None if unknown.
        results: One for each configuration.
    """

    name: str
    description: str
    stamps_ns: Sequence[int]
    poses: Sequence[FloatArray | None]
    results: Sequence[TrackResult]


def measure(configuration: str, recording: TrackHistory, unrelated: float | None = None) -> TrackResult:
    """Computes all metrics of a recorded run.

    Args:
        configuration: Name of the configuration.
        recording: From `record_sequence`.
        unrelated: From `fraction_seen_in_unrelated`, if measured.
    """
    tracks, camera = recording.tracks, recording.camera
    pairs = {gap: list(pairs_at(tracks, gap)) for gap in POSE_GAPS}
    has_truth = recording.has_truth and camera is not None
    trajectory = None if camera is None else chain_poses(tracks, camera)
    aligned, rmse_m = _against_truth(trajectory, recording.poses) if has_truth and trajectory else (None, None)
    nearest, detected = recording.nearest_pairs, [of_frame.points for of_frame in recording.detections]
    return TrackResult(
        configuration=configuration,
        identity=recording.identity,
        frames=len(tracks),
        keypoints=float(np.mean(recording.keypoints)),
        matches=float(np.mean([len(points0) for _, points0, _ in pairs[1]])),
        alive=fraction_alive(tracks, SURVIVAL_GAPS),
        lengths=track_lengths(tracks),
        coverage=coverage(tracks, recording.height, recording.width),
        inlier_ratio={gap: _inlier_ratio(of_gap, camera) for gap, of_gap in pairs.items()},
        parallax_px={gap: _parallax(of_gap) for gap, of_gap in pairs.items()},
        life_parallax_px=parallax_over_life(tracks),
        drift_px=position_drift_px(tracks, detected),
        refound_drift_px=position_drift_px(refound(tracks, recording.detections), detected),
        unrelated=unrelated,
        precision=_precision(pairs, recording) if has_truth else None,
        nearest_precision=_precision(nearest, recording) if has_truth and any(nearest.values()) else None,
        pose={gap: _pose_errors(pairs[gap], gap, recording) for gap in POSE_GAPS} if has_truth else None,
        trajectory=trajectory,
        trajectory_rmse_m=rmse_m,
        aligned=aligned,
        extraction_ms=float(np.median(recording.extraction_ms)),
        tracking_ms=float(np.median(recording.tracking_ms)),
    )


def track_lengths(tracks: Sequence[Tracks]) -> dict[int, int]:
    """Number of tracks by the number of frames in which their id was seen, in ascending order."""
    _, sightings = np.unique(np.concatenate([of_frame.ids for of_frame in tracks]), return_counts=True)
    lengths, counts = np.unique(sightings, return_counts=True)
    return dict(zip(lengths.tolist(), counts.tolist(), strict=True))


def coverage(tracks: Sequence[Tracks], height: int, width: int) -> float:
    """Mean fraction of the cells of a 6x8 grid with a previously seen point; NaN for fewer than two frames.

    The first frame is excluded, as it has no such point.
    """
    fractions = []
    for of_frame in tracks[1:]:
        points = of_frame.keypoints[of_frame.ages > 1]
        cells = np.floor((points + 0.5) / [width, height] * [GRID_COLUMNS, GRID_ROWS]).astype(int)
        cells = np.clip(cells, 0, [GRID_COLUMNS - 1, GRID_ROWS - 1])
        fractions.append(len(np.unique(cells, axis=0)) / (GRID_ROWS * GRID_COLUMNS))
    return float(np.mean(fractions)) if fractions else float("nan")


def parallax_over_life(tracks: Sequence[Tracks]) -> float:
    """Median px between the first and last sighting of each id with at least two sightings; NaN if there is none."""
    ids = np.concatenate([of_frame.ids for of_frame in tracks])
    points = np.concatenate([of_frame.keypoints for of_frame in tracks])
    _, first, counts = np.unique(ids, return_index=True, return_counts=True)
    _, last = np.unique(ids[::-1], return_index=True)
    moved = np.linalg.norm(points[len(ids) - 1 - last] - points[first], axis=1)[counts > 1]
    return float(np.median(moved)) if len(moved) else float("nan")


def refound(tracks: Sequence[Tracks], detections: Sequence[Detections]) -> list[Tracks]:
    """The same tracks without points that coincide, to 0.01 px, with detections within the budget."""
    return [
        _rows(of_frame, ~_on(of_frame, found.points[found.in_budget]))
        for of_frame, found in zip(tracks, detections, strict=True)
    ]


def _on(tracks: Tracks, detections: Points) -> npt.NDArray[np.bool_]:
    on = np.zeros(len(tracks), np.bool_)
    if len(tracks) and len(detections):
        points, found = (np.ascontiguousarray(array, np.float32) for array in (tracks.keypoints, detections))
        for nearest in cv2.BFMatcher(cv2.NORM_L2).match(points, found):
            on[nearest.queryIdx] = nearest.distance < _SAME_POINT_PX
    return on


def _rows(tracks: Tracks, rows: npt.NDArray[np.bool_]) -> Tracks:
    arrays: dict[str, Any] = {name: None if array is None else array[rows] for name, array in vars(tracks).items()}
    return Tracks(**arrays)


def _parallax(pairs: Iterable[Pair]) -> float:
    distances = [np.linalg.norm(points1 - points0, axis=1) for _, points0, points1 in pairs]
    joined = np.concatenate(distances) if distances else np.zeros(0)
    return float(np.median(joined)) if len(joined) else float("nan")


def _inlier_ratio(pairs: Iterable[Pair], camera: CameraCalibration | None) -> float:
    """Mean over the frames with at least one pair; undistorted if the camera is known."""
    ratios = []
    for _, points0, points1 in pairs:
        if camera is not None:
            points0, points1 = undistorted_px(camera, points0), undistorted_px(camera, points1)  # noqa: PLW2901
            seen = np.isfinite(np.column_stack([points0, points1])).all(axis=1)
            points0, points1 = points0[seen], points1[seen]  # noqa: PLW2901
        if len(points0):
            ratios.append(float(epipolar_inliers(points0, points1).mean()))
    return float(np.mean(ratios)) if ratios else float("nan")


def _with_truth(pairs: Iterable[Pair], gap: int, recording: TrackHistory) -> Iterator[Pair]:
    for index, points0, points1 in pairs:
        if recording.poses[index] is not None and recording.poses[index + gap] is not None:
            yield index, points0, points1


def _precision(pairs: dict[int, list[Pair]], recording: TrackHistory) -> dict[int, float]:
    assert recording.camera is not None
    # `_with_truth` excludes frames without a pose; their placeholder is never used.
    poses = [np.eye(4) if pose is None else pose for pose in recording.poses]
    known: dict[int, Pairs] = {gap: _with_truth(of_gap, gap, recording) for gap, of_gap in pairs.items()}
    return {gap: epipolar_precision(of_gap, gap, poses, recording.camera) for gap, of_gap in known.items()}


def _pose_errors(pairs: Iterable[Pair], gap: int, recording: TrackHistory) -> PoseErrors:
    assert recording.camera is not None
    errors = MotionErrors()
    for index, points0, points1 in _with_truth(pairs, gap, recording):
        pose0, pose1 = recording.poses[index], recording.poses[index + gap]
        assert pose0 is not None
        assert pose1 is not None
        found = undistorted_pose(points0, points1, recording.camera)
        errors.add(found and found[0], relative_motion(pose0, pose1))
    return PoseErrors(
        len(errors.rotations_deg),
        errors.without_pose,
        *_median_and_mean(errors.rotations_deg),
        *_median_and_mean([error for error in errors.translations_deg if not np.isnan(error)]),
        rotations_deg=tuple(errors.rotations_deg),
        translations_deg=tuple(errors.translations_deg),
    )


def _median_and_mean(values: Sequence[float]) -> tuple[float, float]:
    return (float(np.median(values)), float(np.mean(values))) if values else (float("nan"), float("nan"))


def _against_truth(
    trajectory: MonocularTrajectory, poses: Sequence[FloatArray | None]
) -> tuple[FloatArray, float] | tuple[None, None]:
    """Aligned positions of the frames with known poses, and their root mean square error in m."""
    known = [
        (pose[:3, 3], truth[:3, 3])
        for frame, pose in zip(trajectory.frames, trajectory.poses, strict=True)
        if (truth := poses[frame]) is not None
    ]
    if len(known) < 3:
        return None, None
    positions, reference = (np.array(column) for column in zip(*known, strict=True))
    aligned = align(positions, reference)
    return aligned, float(np.sqrt(((aligned - reference) ** 2).sum(axis=1).mean()))
