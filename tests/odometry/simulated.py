"""Tracks of simulated points, seen from a rendered flight's poses: no image is rendered."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_frontend_lab.odometry.views import TrackedView
from feature_frontend_lab.rendering.camera import invert_pose
from feature_frontend_lab.rendering.flights import Flight

FloatArray = npt.NDArray[np.float64]

_POINTS = 600
_SEEN = 150
_NEAREST_M, _FARTHEST_M = 0.5, 12.0


def simulated_views(flown: Flight, rows: range, seed: int = 0, noise_px: float = 0.5) -> list[TrackedView]:
    """Views with up to 150 tracks each; a track ends with a chance of 5 % an image, and its point gets a new id."""
    rng = np.random.default_rng(seed)
    focal = float(flown.camera.matrix[0, 0])
    half = np.array([flown.camera.width, flown.camera.height]) / 2 / focal
    # Points before the cameras all along the way.
    anchors = flown.poses[rng.choice(np.array(rows), _POINTS)]
    depths = rng.uniform(2, 8, _POINTS)
    rays = np.column_stack([rng.uniform(-half, half, (_POINTS, 2)), np.ones(_POINTS)]) * depths[:, None]
    points = np.einsum("nij,nj->ni", anchors[:, :3, :3], rays) + anchors[:, :3, 3]
    ids, next_id = np.arange(_POINTS), _POINTS
    views = []
    for row in rows:
        to_camera = invert_pose(flown.poses[row])
        local = points @ to_camera[:3, :3].T + to_camera[:3, 3]
        seen = local[:, :2] / local[:, 2:]
        is_seen = (np.abs(seen) < half).all(axis=1) & (local[:, 2] > _NEAREST_M) & (local[:, 2] < _FARTHEST_M)
        has_ended = ~is_seen | (rng.random(_POINTS) < 0.05)
        ids[has_ended] = next_id + np.arange(np.count_nonzero(has_ended))
        next_id += np.count_nonzero(has_ended)
        chosen = np.flatnonzero(is_seen)[:_SEEN]
        measured = seen[chosen] + rng.normal(0, noise_px / focal, (len(chosen), 2))
        views.append(TrackedView.of(int(flown.stamps_ns[row]), ids[chosen], measured, 1 / focal))
    return views
