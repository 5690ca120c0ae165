"""Errors of an estimated trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_frontend.geometry.relative_pose import rotation_error_deg
from feature_frontend_lab.evaluation.tracks.trajectory import align

__all__ = ["LEAST_POSES", "TrajectoryErrors", "ate_m", "trajectory_errors"]

FloatArray = npt.NDArray[np.float64]

_NS_PER_S = 1_000_000_000
# Half a frame of a slow camera: how far an image may be from the second it is taken for.
_TOLERANCE_NS = _NS_PER_S // 20
LEAST_POSES = 3
"""With fewer positions, an alignment leaves no errors."""
_SPAN_NS = _NS_PER_S


@dataclass(frozen=True, eq=False)
class TrajectoryErrors:
    """Errors of estimated camera poses against the true ones; NaN where there are too few to compare.

    Attributes:
        ate_m: Root mean square distance of the positions after alignment (ATE).
        relative_m: Root mean square error of the translation over 1 s.
        relative_deg: Root mean square error of the rotation over 1 s.
        positions: (N, 3) estimated positions after alignment.
    """

    ate_m: float
    relative_m: float
    relative_deg: float
    positions: FloatArray


def trajectory_errors(
    stamps_ns: Sequence[int],
    poses: Sequence[FloatArray],
    truth: Sequence[FloatArray],
    pieces: Sequence[int],
    *,
    with_scale: bool = False,
) -> TrajectoryErrors:
    """Compares poses (4, 4), camera-to-world, with the true ones of the same images.

    Args:
        stamps_ns: Stamps of the images, ascending.
        poses: Estimated poses.
        truth: True poses.
        pieces: Number of the piece of each pose. Nothing is relative between pieces: the odometry was lost there.
        with_scale: Whether the alignment also scales, for a camera alone.
    """
    if len(poses) < LEAST_POSES:
        nan = float("nan")
        return TrajectoryErrors(nan, nan, nan, np.zeros((0, 3)))
    positions, reference = (np.array([pose[:3, 3] for pose in some]) for some in (poses, truth))
    aligned = align(positions, reference, with_scale=with_scale)
    shifts: list[float] = []
    turns: list[float] = []
    stamps = np.asarray(stamps_ns, np.int64)
    for row in range(len(poses)):
        later = int(np.abs(stamps - stamps[row] - _SPAN_NS).argmin())
        is_near = abs(int(stamps[later] - stamps[row]) - _SPAN_NS) < _TOLERANCE_NS
        if not is_near or pieces[row] != pieces[later]:
            continue
        motion, true_motion = (np.linalg.solve(some[row], some[later]) for some in (poses, truth))
        error: FloatArray = np.linalg.solve(true_motion, motion)
        shifts.append(float(np.linalg.norm(error[:3, 3])))
        turns.append(rotation_error_deg(error[:3, :3], np.eye(3)))
    return TrajectoryErrors(
        ate_m=ate_m(aligned, reference),
        relative_m=_root_mean_square(shifts),
        relative_deg=_root_mean_square(turns),
        positions=aligned,
    )


def ate_m(aligned: FloatArray, reference: FloatArray) -> float:
    """Root mean square distance of positions (N, 3) from the true ones (N, 3), with which they are aligned."""
    return float(np.sqrt(((aligned - reference) ** 2).sum(axis=1).mean()))


def _root_mean_square(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values else float("nan")
