"""The motion of a drone that flies through the hall."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering.camera import FloatArray
from feature_frontend_lab.rendering.indoor_scene import HALL_LENGTH_M
from feature_frontend_lab.rendering.inertial import GRAVITY_M_S2
from feature_frontend_lab.rendering.trajectory import SplineTrajectory

__all__ = ["SPACING_S", "fly", "quiver", "smooth_step"]

SPACING_S = 0.1
_STATIC_S, _RAMP_S = 1.0, 2.0
# A control point acts 3 spacings early, the tilt before an acceleration 2 more.
_REACH_S = 5.5 * SPACING_S
# A quintic step of this angle in this time peaks at 200 deg/s, once the B-spline has rounded it.
_BURST_RAD, _BURST_S, _BURST_EVERY_S = np.radians(154.0), 1.4, 3.0


def smooth_step(at: npt.NDArray[np.floating]) -> FloatArray:
    """From 0 at 0 to 1 at 1, twice differentiable; constant outside."""
    x = np.clip(at, 0, 1)
    return np.asarray(x**3 * (10 + x * (6 * x - 15)), np.float64)


def quiver(rng: np.random.Generator, count: int, width: int, amplitude: float) -> FloatArray:
    """(count, width) random control points without sudden steps: unrest of the standard deviation `amplitude`."""
    raw = rng.standard_normal((count + 4, width))
    smooth = sum(weight * raw[shift : shift + count] for shift, weight in enumerate((1, 2, 3, 2, 1)))
    return np.asarray(amplitude * smooth / np.sqrt(19), np.float64)


def fly(rng: np.random.Generator, start_s: float, end_s: float, *, bursts: bool = False) -> SplineTrajectory:
    """A flight from rest at 1 s on, all over the hall at up to 1.5 m/s, turning all the way round.

    Args:
        rng: Of the path.
        start_s: Begin of the trajectory, at rest until 1 s.
        end_s: End of the trajectory.
        bursts: Turn to and fro at 200 deg/s instead.
    """
    times = start_s + SPACING_S * np.arange(int(np.ceil((end_s - start_s) / SPACING_S)) + 8) - 3 * SPACING_S
    moving = smooth_step((times - _STATIC_S - _REACH_S) / _RAMP_S)
    flown_s = np.cumsum(moving) * SPACING_S

    def wave(amplitude: float, period_s: float) -> FloatArray:
        phase, period = rng.uniform(0, 2 * np.pi), period_s * rng.uniform(0.85, 1.15)
        return np.asarray(amplitude * np.sin(2 * np.pi * flown_s / period + phase), np.float64)

    positions = np.column_stack([HALL_LENGTH_M / 2 + wave(7.2, 45), wave(3.1, 17), 1.7 + wave(0.6, 11)])
    turn = rng.choice([-1.0, 1.0])
    yaw = rng.uniform(0, 2 * np.pi) + turn * 2 * np.pi / 40 * flown_s + wave(0.5, 6.5)
    if bursts:
        yaw = np.full(len(times), yaw[0])
        for number, begin_s in enumerate(np.arange(_STATIC_S + 3, end_s, _BURST_EVERY_S)):
            yaw += turn * (-1) ** (number // 3) * _BURST_RAD * smooth_step((times - begin_s) / _BURST_S)
    # Drawn last and at once: a flight that lasts longer begins alike.
    shaken = moving[:, None] * quiver(rng, len(times), 6, 1.0)
    positions += 0.01 * shaken[:, :3]
    # A drone tilts into the direction of its acceleration.
    acceleration = np.gradient(np.gradient(positions, SPACING_S, axis=0), SPACING_S, axis=0)
    forward = acceleration[:, 0] * np.cos(yaw) + acceleration[:, 1] * np.sin(yaw)
    left = acceleration[:, 1] * np.cos(yaw) - acceleration[:, 0] * np.sin(yaw)
    tilt = np.column_stack([np.zeros(len(times)), forward / GRAVITY_M_S2, -left / GRAVITY_M_S2])
    angles = tilt + np.column_stack([yaw, np.zeros(len(times)), np.zeros(len(times))])
    angles += np.radians(0.6) * shaken[:, 3:]
    return SplineTrajectory(float(times[0]), SPACING_S, positions, angles)
