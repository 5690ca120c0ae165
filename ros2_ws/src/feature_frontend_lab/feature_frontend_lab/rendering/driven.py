"""The motion of a vehicle along a street or a corridor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_frontend_lab.rendering.flown import SPACING_S, quiver, smooth_step
from feature_frontend_lab.rendering.trajectory import SplineTrajectory

__all__ = ["CORRIDOR_RIDE", "STEADY_DRIVE", "VARIED_DRIVE", "Ride", "drive"]

_FINE_S = 0.01
_SMOOTHED_S = 1.0
# Of a car on its springs, rad per m/s^2.
_DIVE, _LEAN = 0.006, 0.008
_FULL_UNREST_M_S = 5.0
# No driver keeps a straight line, rad.
_WANDER = np.radians(1.5)


@dataclass(frozen=True)
class Ride:
    """How a vehicle drives.

    Attributes:
        speeds: (time in s, speed in m/s), linear between them, then rounded.
        turns: (begin in s, duration in s, angle in degrees); every other one goes to the other side.
        height_m: Height of the IMU above the ground.
        heave_m: Standard deviation of the height while driving.
        unrest_deg: Standard deviation of pitch and roll while driving.
    """

    speeds: tuple[tuple[float, float], ...]
    turns: tuple[tuple[float, float, float], ...]
    height_m: float
    heave_m: float
    unrest_deg: float


# 0.5 m a frame at 20 Hz.
STEADY_DRIVE = Ride(
    speeds=((0, 10), (30, 10)),
    turns=((2, 6, 35), (9, 7, 55), (17, 6, 40), (24, 6, 35)),
    height_m=1.5,
    heave_m=0.01,
    unrest_deg=0.25,
)
# 0.2 to 1.5 m a frame, and a stop.
VARIED_DRIVE = Ride(
    speeds=((0, 8), (7, 30), (9, 30), (16, 6), (22, 6), (26, 15), (30, 0), (32.5, 0), (38, 18), (40, 18)),
    turns=((1, 6, 12), (8, 6, 12), (15.5, 6.5, 80), (32.5, 6, 50)),
    height_m=1.5,
    heave_m=0.01,
    unrest_deg=0.25,
)
CORRIDOR_RIDE = Ride(
    speeds=((0, 4), (5, 14), (8, 14), (12, 4), (17, 4), (21, 10), (25, 0), (27, 0), (31, 7), (34, 12)),
    turns=((4, 4, 8), (12, 5, 85), (26.5, 5.5, 70)),
    height_m=1.0,
    heave_m=0.004,
    unrest_deg=0.2,
)


def drive(ride: Ride, rng: np.random.Generator, start_s: float, end_s: float) -> SplineTrajectory:
    """Drives from `start_s` to `end_s`, at time 0 through the origin along x; moving from the start.

    Args:
        ride: Speeds and turns; `rng` varies them a little, and the side of the first turn.
        rng: Random generator.
        start_s: Begin of the trajectory.
        end_s: End of the trajectory.
    """
    fine = np.arange(start_s - 3 * SPACING_S, end_s + 5 * SPACING_S, _FINE_S)
    window = round(_SMOOTHED_S / _FINE_S)
    keyed = np.interp(fine, *np.array(ride.speeds).T)
    padded = np.pad(keyed, window, mode="edge")
    for _ in range(2):
        padded = np.convolve(padded, np.full(window, 1 / window), mode="same")
    speed = padded[window:-window]
    side = rng.choice([-1.0, 1.0])
    heading = _WANDER * np.sin(2 * np.pi * fine / rng.uniform(4.5, 7.5) + rng.uniform(0, 2 * np.pi))
    for number, (begin_s, duration_s, angle_deg) in enumerate(ride.turns):
        angle = np.radians(angle_deg * rng.uniform(0.85, 1.1))
        late_s = rng.uniform(-0.4, 0.4)
        heading += side * (-1) ** number * angle * smooth_step((fine - begin_s - late_s) / duration_s)
    moved = np.cumsum(speed[:, None] * np.column_stack([np.cos(heading), np.sin(heading)]), axis=0) * _FINE_S
    moved -= moved[np.searchsorted(fine, 0.0)]

    step = round(SPACING_S / _FINE_S)
    times, positions, yaw, speeds = fine[::step], moved[::step], heading[::step], speed[::step]
    unrest = np.minimum(speeds / _FULL_UNREST_M_S, 1)[:, None]
    shaken = unrest * quiver(rng, len(times), 3, 1.0) * [ride.heave_m, *2 * [np.radians(ride.unrest_deg)]]
    braking = -np.gradient(speeds, SPACING_S)
    sideways = speeds * np.gradient(yaw, SPACING_S)
    angles = np.column_stack([yaw, shaken[:, 1] + _DIVE * braking, shaken[:, 2] + _LEAN * sideways])
    return SplineTrajectory(
        float(times[0]), SPACING_S, np.column_stack([positions, ride.height_m + shaken[:, 0]]), angles
    )
