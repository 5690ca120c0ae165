"""The default flight: smooth, through the hall, with translation and rotation in every direction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering.camera import FloatArray, look_at

__all__ = ["default_trajectory", "smooth_path"]

# Camera positions and the points it looks at, metres in the hall, for a flight of 60 frames.
POSITIONS = (
    (1.2, -1.6, 1.3), (2.7, -0.9, 1.5), (4.4, 0.2, 1.75), (6.0, 0.5, 1.9), (7.6, 0.0, 1.75),
    (9.1, -0.7, 1.5), (10.5, -1.3, 1.4), (11.9, -2.3, 1.6), (13.4, -2.1, 1.8),
)  # fmt: skip
TARGETS = (
    (8.0, 1.8, 1.3), (9.5, 1.6, 1.4), (11.0, 0.2, 1.5), (12.6, -1.2, 1.4), (14.5, -1.6, 1.3),
    (16.5, -0.6, 1.5), (18.0, 1.0, 1.6), (19.0, 1.6, 1.5), (20.0, 1.2, 1.6),
)  # fmt: skip


def smooth_path(points: npt.NDArray[np.floating], count: int) -> FloatArray:
    """(count, D) points on a natural cubic spline through `points` (K, D), equally far apart in parameter.

    Raises:
        ValueError: Fewer than 3 points to go through, or fewer than 1 asked for.
    """
    knots = np.asarray(points, np.float64)
    if len(knots) < 3 or count < 1:
        msg = f"{count} points on a path through {len(knots)} points; expected at least 1 through at least 3"
        raise ValueError(msg)
    # Second derivatives of a spline with unit knot distance: M[i-1] + 4 M[i] + M[i+1] = 6 (second difference).
    inner = len(knots) - 2
    system = 4 * np.eye(inner) + np.eye(inner, k=1) + np.eye(inner, k=-1)
    bends = np.zeros_like(knots)
    bends[1:-1] = np.linalg.solve(system, 6 * (knots[:-2] - 2 * knots[1:-1] + knots[2:]))
    at = np.linspace(0, len(knots) - 1, count)
    left = np.minimum(at.astype(np.int64), len(knots) - 2)
    b = (at - left)[:, None]
    a = 1 - b
    chord = a * knots[left] + b * knots[left + 1]
    bend = (a**3 - a) * bends[left] + (b**3 - b) * bends[left + 1]
    return np.asarray(chord + bend / 6, np.float64)


def default_trajectory(count: int = 60) -> list[FloatArray]:
    """`count` poses (4, 4 camera-to-world) along the flight, about 0.2 m and 1.5 degrees apart when there are 60.

    More frames fly the same way more slowly; fewer than 60 fly only its beginning, so that the steps stay as small.
    """
    total = max(count, 60)
    positions = smooth_path(np.asarray(POSITIONS), total)[:count]
    targets = smooth_path(np.asarray(TARGETS), total)[:count]
    return [look_at(position, target) for position, target in zip(positions, targets, strict=True)]
