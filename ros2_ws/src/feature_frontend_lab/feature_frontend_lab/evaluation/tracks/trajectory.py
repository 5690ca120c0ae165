"""A trajectory from tracks alone: relative poses, chained. No map, no optimisation: what the front-end gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.geometry.relative_pose import (
    RelativePose,
    relative_pose,
    rotation_error_deg,
    translation_error_deg,
)
from feature_frontend.types import Tracks
from feature_frontend_lab.evaluation.tracks.metrics import undistorted_px

__all__ = ["MonocularTrajectory", "MotionErrors", "align", "camera_matrix", "chain_poses", "undistorted_pose"]

FloatArray = npt.NDArray[np.float64]
Points = npt.NDArray[np.floating]

# Fewer points than this say nothing reliable about the ratio of two lengths.
_LEAST_COMMON_POINTS = 8
# Least angle between the two rays of a point whose depth is used.
_LEAST_PARALLAX_RAD = np.radians(0.2)
_NO_POSE_DEG = 180.0


@dataclass(frozen=True, eq=False)
class MonocularTrajectory:
    """Where the camera was, up to one rotation, translation and scale of the whole.

    Attributes:
        frames: Index of each pose's frame; a frame whose tracks gave no pose is left out.
        poses: (4, 4) camera-to-world each, the first one the identity. The length of the first step is 1.
        kept_scales: Steps with too few points in common with the step before: their length is taken over from it.
    """

    frames: tuple[int, ...]
    poses: tuple[FloatArray, ...]
    kept_scales: int


@dataclass(frozen=True, eq=False)
class _Depths:
    """Depths of points in a frame, in the trajectory's unit."""

    ids: npt.NDArray[np.uint64]
    depths: FloatArray


@dataclass
class MotionErrors:
    """Motions estimated from pairs of points alone, against the known ones.

    Attributes:
        rotations_deg: Angles of the rotations that are left; 180 for two images whose points gave no motion.
        translations_deg: Angles between the directions of translation, likewise; NaN where the camera stands still.
        without_pose: How many gave none.
    """

    rotations_deg: list[float] = field(default_factory=list)
    translations_deg: list[float] = field(default_factory=list)
    without_pose: int = 0

    def add(self, pose: RelativePose | None, motion: FloatArray) -> None:
        """Takes what was estimated, None for nothing, and the motion (4, 4)."""
        self.without_pose += pose is None
        self.rotations_deg.append(_NO_POSE_DEG if pose is None else rotation_error_deg(pose.rotation, motion[:3, :3]))
        self.translations_deg.append(
            _NO_POSE_DEG if pose is None else translation_error_deg(pose.translation, motion[:3, 3])
        )


def camera_matrix(calibration: CameraCalibration) -> FloatArray:
    """The camera's matrix K (3, 3)."""
    return np.array(calibration.camera_matrix, np.float64).reshape(3, 3)


def undistorted_pose(
    points0: Points, points1: Points, calibration: CameraCalibration
) -> tuple[RelativePose, FloatArray, FloatArray, npt.NDArray[np.bool_]] | None:
    """The motion between two frames from px of the images as delivered, RANSAC at 1 px; None where there is none.

    Returns:
        The motion; (M, 2) and (M, 2) undistorted px of the pairs it was estimated from; which of the pairs those are.
    """
    flat0, flat1 = undistorted_px(calibration, points0), undistorted_px(calibration, points1)
    usable = np.asarray(np.isfinite(np.column_stack([flat0, flat1])).all(axis=1))
    pose = relative_pose(flat0[usable], flat1[usable], camera_matrix(calibration))
    return None if pose is None else (pose, flat0[usable], flat1[usable], usable)


def chain_poses(tracks: Sequence[Tracks], calibration: CameraCalibration) -> MonocularTrajectory:
    """Chains the motions between consecutive frames.

    A pair of images does not tell how far the camera moved. The points that three frames share do: their depth in the
    middle frame must be the same from the step before and from this one; the median ratio gives the length of this
    step. Errors of the lengths multiply, so the scale drifts. A frame without a pose is skipped, and the next one is
    joined to the last frame with a pose.

    Args:
        tracks: One entry a frame.
        calibration: The camera's.
    """
    if not tracks:
        return MonocularTrajectory((), (), 0)
    frames, poses = [0], [np.eye(4)]
    length, kept_scales = 1.0, 0
    known: _Depths | None = None
    for index in range(1, len(tracks)):
        earlier, later = tracks[frames[-1]], tracks[index]
        ids, rows0, rows1 = np.intersect1d(earlier.ids, later.ids, assume_unique=True, return_indices=True)
        found = undistorted_pose(earlier.keypoints[rows0], later.keypoints[rows1], calibration)
        if found is None:
            continue
        pose, flat0, flat1, usable = found
        depths0, depths1 = _triangulated(pose, flat0, flat1, camera_matrix(calibration))
        ids = ids[usable]
        if known is not None:
            _, rows, known_rows = np.intersect1d(ids, known.ids, assume_unique=True, return_indices=True)
            ratios = known.depths[known_rows] / depths0[rows]
            ratios = ratios[np.isfinite(ratios)]
            if len(ratios) >= _LEAST_COMMON_POINTS:
                length = float(np.median(ratios))
            else:
                kept_scales += 1
        good = np.isfinite(depths1)
        known = _Depths(ids[good], depths1[good] * length)
        # A pose maps camera to world; the motion maps the earlier camera's frame to the later one's.
        step = np.eye(4)
        step[:3, :3] = pose.rotation.T
        step[:3, 3] = -length * pose.rotation.T @ pose.translation
        frames.append(index)
        poses.append(poses[-1] @ step)
    return MonocularTrajectory(tuple(frames), tuple(poses), kept_scales)


def align(positions: FloatArray, reference: FloatArray) -> FloatArray:
    """(N, 3) `positions` rotated, scaled and shifted onto `reference` (N, 3), least squares (Umeyama, 1991)."""
    mean, mean_reference = positions.mean(axis=0), reference.mean(axis=0)
    centred, centred_reference = positions - mean, reference - mean_reference
    left, values, right = np.linalg.svd(centred_reference.T @ centred)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = (left * signs) @ right
    spread = float((centred**2).sum())
    scale = float((values * signs).sum()) / spread if spread > 0 else 1.0
    return np.asarray(scale * centred @ rotation.T + mean_reference, np.float64)


def _triangulated(
    pose: RelativePose, points0: FloatArray, points1: FloatArray, matrix: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(M,) and (M,) depths in both frames where the translation has length 1; NaN where they are not to be trusted."""
    inverse = np.linalg.inv(matrix).T
    rays0 = np.column_stack([points0, np.ones(len(points0))]) @ inverse @ pose.rotation.T
    rays1 = np.column_stack([points1, np.ones(len(points1))]) @ inverse
    # In the later frame: depth0 rays0 + translation = depth1 rays1, least squares of the two depths.
    a00, a01, a11 = (rays0**2).sum(axis=1), (rays0 * rays1).sum(axis=1), (rays1**2).sum(axis=1)
    b0, b1 = rays0 @ pose.translation, rays1 @ pose.translation
    determinant = a00 * a11 - a01**2
    with np.errstate(all="ignore"):
        depths0, depths1 = (a01 * b1 - a11 * b0) / determinant, (a00 * b1 - a01 * b0) / determinant
        sine = np.sqrt(determinant / (a00 * a11))
    trusted = pose.inliers & (depths0 > 0) & (depths1 > 0) & (sine > np.sin(_LEAST_PARALLAX_RAD))
    return np.where(trusted, depths0, np.nan), np.where(trusted, depths1, np.nan)
