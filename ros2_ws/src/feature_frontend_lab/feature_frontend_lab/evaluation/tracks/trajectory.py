"""A trajectory from chained relative poses of tracks alone, without a map or optimisation."""

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

# With fewer points, the ratio of two lengths is not reliable.
_LEAST_COMMON_POINTS = 8
# Minimum angle between the two rays of a point for its depth to be used.
_LEAST_PARALLAX_RAD = np.radians(0.2)
_NO_POSE_DEG = 180.0


@dataclass(frozen=True, eq=False)
class MonocularTrajectory:
    """Camera poses up to one global rotation, translation and scale.

    Attributes:
        frames: Frame index of each pose; frames whose tracks gave no pose are excluded.
        poses: (4, 4) camera-to-world each, the first one the identity. The first step has length 1.
        kept_scales: Number of steps that reuse the previous step's length, as too few points are common to both.
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
    """Errors of motions estimated from pairs of points alone.

    Attributes:
        rotations_deg: Rotation errors; 180 for two images whose points gave no motion.
        translations_deg: Angles between the directions of translation, likewise; NaN if the camera stands still.
        without_pose: Number of pairs without an estimated motion.
    """

    rotations_deg: list[float] = field(default_factory=list)
    translations_deg: list[float] = field(default_factory=list)
    without_pose: int = 0

    def add(self, pose: RelativePose | None, motion: FloatArray) -> None:
        """Adds an estimate, None if there is none, and the true motion (4, 4)."""
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
    """Motion between two frames from px of the images as delivered, RANSAC at 1 px; None if there is none.

    Returns:
        The motion; (M, 2) and (M, 2) undistorted px of the pairs used to estimate it; mask of those pairs.
    """
    flat0, flat1 = undistorted_px(calibration, points0), undistorted_px(calibration, points1)
    usable = np.asarray(np.isfinite(np.column_stack([flat0, flat1])).all(axis=1))
    pose = relative_pose(flat0[usable], flat1[usable], camera_matrix(calibration))
    return None if pose is None else (pose, flat0[usable], flat1[usable], usable)


def chain_poses(tracks: Sequence[Tracks], calibration: CameraCalibration) -> MonocularTrajectory:
    """Chains the motions between consecutive frames.

    Two images do not determine how far the camera moved. Points common to three frames do: their depth in the middle
    frame must agree between the previous step and this one, and the median ratio gives the length of this step. Length
    errors multiply, so the scale drifts. A frame without a pose is skipped; the next is joined to the last one
    with a pose.

    Args:
        tracks: One entry per frame.
        calibration: Calibration of the camera.
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


def align(positions: FloatArray, reference: FloatArray, *, with_scale: bool = True) -> FloatArray:
    """(N, 3) `positions` rotated, scaled and shifted onto `reference` (N, 3), least squares (Umeyama, 1991)."""
    mean, mean_reference = positions.mean(axis=0), reference.mean(axis=0)
    centred, centred_reference = positions - mean, reference - mean_reference
    left, values, right = np.linalg.svd(centred_reference.T @ centred)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = (left * signs) @ right
    spread = float((centred**2).sum())
    scale = float((values * signs).sum()) / spread if with_scale and spread > 0 else 1.0
    return np.asarray(scale * centred @ rotation.T + mean_reference, np.float64)


def _triangulated(
    pose: RelativePose, points0: FloatArray, points1: FloatArray, matrix: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(M,) and (M,) depths in both frames for a translation of length 1; NaN where unreliable."""
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
