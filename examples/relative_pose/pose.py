"""The camera's motion between two images, from one `feature_frontend_msgs/Matches` message; C++ version in cpp/.

Robust least squares on the distances to the epipolar lines, started from seven directions of motion; the best result
is kept. It is designed for consecutive images, between which the camera rotates by at most about 20 degrees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["relative_pose"]

FloatArray = npt.NDArray[np.float64]
_TOLERANCES_PX = (32, 16, 8, 4, 2, 1, 1, 1, 1)  # one per step, from coarse to fine
_STARTS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]], np.float64)
_STEP = 1e-6


def relative_pose(message: Any) -> tuple[FloatArray, FloatArray] | None:
    """Rotation (3, 3) and direction (3,) of length 1 with x1 ~ rotation @ x0 + s * direction, s > 0; None if unknown.

    x0 and x1 are a point in the optical frames of image 0 and 1. A single camera does not determine s.
    """
    rays0, rays1, points1 = (
        np.asarray(flat, np.float64).reshape(-1, 2)
        for flat in (message.normalized_keypoints0, message.normalized_keypoints1, message.keypoints1)
    )
    if message.run_id0 == 0 or not message.count == len(rays0) == len(rays1):
        return None  # there is no image 0 or no calibration
    is_good = np.isfinite(rays0).all(axis=1) & np.isfinite(rays1).all(axis=1)
    is_good &= np.asarray(message.inlier, bool) if len(message.inlier) else True
    if np.count_nonzero(is_good) < 8:
        return None
    px = np.ptp(rays1[is_good], axis=0).sum() / np.ptp(points1[is_good], axis=0).sum()  # 1 / focal length
    rays = [np.column_stack([side[is_good], np.ones(np.count_nonzero(is_good))]) for side in (rays0, rays1)]
    _, rotation, direction = min((_refined(start, *rays, px) for start in _STARTS), key=lambda found: found[0])
    is_ahead = (np.cross(rays[1], rays[0] @ rotation.T) * np.cross(direction, rays[1])).sum(axis=1) > 0
    return rotation, direction if 2 * np.count_nonzero(is_ahead) > len(is_ahead) else -direction


def _refined(t: FloatArray, rays0: FloatArray, rays1: FloatArray, px: float) -> tuple[float, FloatArray, FloatArray]:
    """Cost and motion after optimisation, started from direction `t` without rotation."""
    turn, t = np.eye(3), t / np.linalg.norm(t)
    for tolerance_px in _TOLERANCES_PX:
        unit = tolerance_px * px
        r = _distances(turn, t, rays0, rays1) / unit
        side = np.cross(t, [1.0, 0, 0] if abs(t[0]) < 0.6 else [0, 1.0, 0])
        sides = np.stack([side, np.cross(t, side)]) / np.linalg.norm(side)
        moved = [_distances(_turn(_STEP * axis) @ turn, t, rays0, rays1) for axis in np.eye(3)]
        moved += [_distances(turn, t + _STEP * axis, rays0, rays1) for axis in sides]
        slopes = (np.stack(moved, axis=1) / unit - r[:, None]) / _STEP
        weighted = slopes / (1 + r[:, None] ** 2) ** 2
        normal = weighted.T @ slopes
        step = -np.linalg.solve(normal + 1e-9 * np.trace(normal) * np.eye(5), weighted.T @ r)
        turn, t = _turn(step[:3]) @ turn, t + step[3:] @ sides
        t = t / np.linalg.norm(t)
    squares = (_distances(turn, t, rays0, rays1) / px) ** 2
    return float((squares / (1 + squares)).sum()), turn, t


def _distances(turn: FloatArray, t: FloatArray, rays0: FloatArray, rays1: FloatArray) -> FloatArray:
    """(M,) Sampson distances on the normalised plane."""
    lines1 = np.cross(t, rays0 @ turn.T)
    lines0 = np.cross(rays1, t) @ turn
    return np.asarray((rays1 * lines1).sum(1) / np.sqrt((lines1[:, :2] ** 2).sum(1) + (lines0[:, :2] ** 2).sum(1)))


def _turn(v: FloatArray) -> FloatArray:
    angle = max(float(np.linalg.norm(v)), 1e-300)
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]]) / angle
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
