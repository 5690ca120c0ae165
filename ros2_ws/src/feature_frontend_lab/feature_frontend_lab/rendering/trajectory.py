"""A smooth motion of a body, whose velocity, acceleration and angular velocity are exact.

Position and the angles yaw, pitch and roll are uniform quintic B-splines over time: four times continuously
differentiable, with their derivatives in closed form. A simulated IMU (`inertial.py`) therefore measures exactly the
motion that the poses show.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, factorial

import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering.camera import FloatArray

__all__ = ["SplineTrajectory"]

_DEGREE = 5


@dataclass(frozen=True, eq=False)
class SplineTrajectory:
    """The motion of a body frame in the world: z is up in the world; x forward, y left, z up in the body.

    The rotation body-to-world is Rz(yaw) Ry(pitch) Rx(roll); pitch must stay well within 90 degrees.

    Attributes:
        start_s: Time of the first control point.
        spacing_s: Time between control points.
        positions: (K, 3) control points of the position, m. The curve passes near them, not through them.
        angles: (K, 3) control points of yaw, pitch and roll, rad; yaw is not wrapped.
    """

    start_s: float
    spacing_s: float
    positions: FloatArray
    angles: FloatArray

    @property
    def end_s(self) -> float:
        """The last time at which the trajectory is defined; the first is `start_s + 2 * spacing_s`."""
        return self.start_s + (len(self.positions) - 4) * self.spacing_s

    def position(self, times_s: FloatArray) -> FloatArray:
        """(N, 3) position in the world, m."""
        return self._spline(self.positions, times_s, 0)

    def velocity(self, times_s: FloatArray) -> FloatArray:
        """(N, 3) velocity in the world, m/s."""
        return self._spline(self.positions, times_s, 1)

    def acceleration(self, times_s: FloatArray) -> FloatArray:
        """(N, 3) acceleration in the world, m/s^2, without gravity."""
        return self._spline(self.positions, times_s, 2)

    def rotation(self, times_s: FloatArray) -> FloatArray:
        """(N, 3, 3) rotation from the body to the world."""
        (cz, cy, cx), (sz, sy, sx) = (of(self._spline(self.angles, times_s, 0)).T for of in (np.cos, np.sin))
        rows = (
            (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
            (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
            (-sy, cy * sx, cy * cx),
        )
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

    def angular_velocity(self, times_s: FloatArray) -> FloatArray:
        """(N, 3) angular velocity in the body frame, rad/s."""
        _, pitch, roll = self._spline(self.angles, times_s, 0).T
        yaw_rate, pitch_rate, roll_rate = self._spline(self.angles, times_s, 1).T
        return np.column_stack(
            [
                roll_rate - yaw_rate * np.sin(pitch),
                pitch_rate * np.cos(roll) + yaw_rate * np.cos(pitch) * np.sin(roll),
                yaw_rate * np.cos(pitch) * np.cos(roll) - pitch_rate * np.sin(roll),
            ]
        )

    def pose(self, times_s: FloatArray) -> FloatArray:
        """(N, 4, 4) body-to-world."""
        poses = np.tile(np.eye(4), (len(times_s), 1, 1))
        poses[:, :3, :3] = self.rotation(times_s)
        poses[:, :3, 3] = self.position(times_s)
        return poses

    def _spline(self, controls: FloatArray, times_s: FloatArray, derivative: int) -> FloatArray:
        """(N, D) the spline of `controls` (K, D), or a derivative of it.

        Raises:
            ValueError: A time lies outside the trajectory.
        """
        at = (np.asarray(times_s, np.float64) - self.start_s) / self.spacing_s
        first = np.floor(at).astype(np.int64)
        if len(at) and not (first.min() >= 2 and first.max() <= len(controls) - 4):
            raise ValueError(
                f"times from {np.min(times_s):.3f} to {np.max(times_s):.3f} s; expected times from "
                f"{self.start_s + 2 * self.spacing_s:.3f} to before {self.end_s + self.spacing_s:.3f} s"
            )
        weights = _weights(at - first, derivative) / self.spacing_s**derivative
        total = np.zeros((len(at), controls.shape[1]))
        for number in range(_DEGREE + 1):
            total += weights[:, number, None] * controls[first - 2 + number]
        return total


def _weights(fraction: FloatArray, derivative: int) -> npt.NDArray[np.float64]:
    """(N, 6) weights of the control points i - 2 to i + 3 at i + `fraction`, with unit spacing."""
    power = _DEGREE - derivative
    x = fraction[:, None] + (_DEGREE - np.arange(_DEGREE + 1))
    total = np.zeros_like(x)
    for knot in range(_DEGREE + 1):
        total += (-1) ** knot * comb(_DEGREE + 1, knot) * np.maximum(x - knot, 0) ** power
    return np.asarray(total / factorial(power), np.float64)
