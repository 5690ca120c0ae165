"""Lens distortion undone: from distorted to undistorted normalised coordinates, for the models of `sensor_msgs`.

The forward models are OpenCV's. Their inverses have no closed form. OpenCV's own converges slowly towards the corners
of wide lenses, and where it does not converge its answer looks like any other. Here a table along the radius gives
a start that is already close, and Newton's method ends at the limit of float64. A polynomial lens folds back on itself
beyond some angle, where a pixel has two rays or none; that angle bounds the lens, and what lies beyond has no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from feature_frontend.camera.models import EQUIDISTANT

__all__ = ["MAX_ANGLE_DEG", "Lens", "lens_of"]

# (x/z, y/z) grows without bound towards 90 degrees off the axis: at 89 it is 57, and a pixel is worth several units.
MAX_ANGLE_DEG = 89.0

_TABLE_SIZE = 4096
_MOST_STEPS = 20
# Normalised units: far below a thousandth of a pixel of any lens, far above the rounding of float64.
_TOLERANCE = 1e-9
_COEFFICIENTS = 14  # k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 tau_x tau_y, OpenCV's order
_TILT = slice(12, 14)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Lens:
    """A lens as a table of its radial part, and what has to be known to refine what the table says.

    Attributes:
        is_fisheye: Whether the model is a polynomial of the angle (equidistant), not of the radius.
        coefficients: (4,) of a fisheye, else (14,), OpenCV's order.
        angles: (A,) rad off the axis, ascending from 0 up to where the lens folds or `MAX_ANGLE_DEG`.
        radii: (A,) distance from the axis in the distorted, normalised image, ascending with them.
    """

    is_fisheye: bool
    coefficients: FloatArray
    angles: FloatArray
    radii: FloatArray

    def undistort(self, points: npt.NDArray[np.floating]) -> FloatArray:
        """Undistorted (x/z, y/z) of distorted ones, (N, 2); NaN, NaN where the lens has no ray."""
        distorted = np.asarray(points, np.float64).reshape(-1, 2)
        with np.errstate(all="ignore"):
            if not self.is_fisheye:
                distorted = _without_tilt(distorted, self.coefficients[_TILT])
            radius = np.hypot(distorted[:, 0], distorted[:, 1])
            # Tangential terms may take a point a little beyond the table: Newton's method decides about those.
            angle = np.interp(radius, self.radii, self.angles)
            if self.is_fisheye:
                angle = self._refined_angle(angle, radius)
            scale = np.where(radius > 0, np.tan(angle) / np.where(radius > 0, radius, 1.0), 1.0)
            rays = distorted * scale[:, None]
            return rays if self.is_fisheye else self._refined(rays, distorted)

    def _refined_angle(self, angle: FloatArray, radius: FloatArray) -> FloatArray:
        for _ in range(_MOST_STEPS):
            step = (_fisheye_radius(angle, self.coefficients) - radius) / _fisheye_slope(angle, self.coefficients)
            angle = np.clip(angle - step, 0.0, self.angles[-1])
            if not np.any(np.abs(step) > _TOLERANCE):
                break
        error = np.abs(_fisheye_radius(angle, self.coefficients) - radius)
        return np.where(error < _TOLERANCE, angle, np.nan)

    def _refined(self, rays: FloatArray, distorted: FloatArray) -> FloatArray:
        x, y = rays.T
        for _ in range(_MOST_STEPS):
            (error_x, error_y), (xx, xy, yx, yy) = _residual(x, y, distorted, self.coefficients)
            determinant = xx * yy - xy * yx
            step_x, step_y = (yy * error_x - xy * error_y) / determinant, (xx * error_y - yx * error_x) / determinant
            x, y = x - step_x, y - step_y
            if not np.any(np.abs(step_x) + np.abs(step_y) > _TOLERANCE):
                break
        (error_x, error_y), (xx, xy, yx, yy) = _residual(x, y, distorted, self.coefficients)
        found = (np.hypot(error_x, error_y) < _TOLERANCE) & (xx * yy - xy * yx > 0)
        found &= np.arctan(np.hypot(x, y)) <= self.angles[-1]
        return np.where(found[:, None], np.stack([x, y], axis=1), np.nan)


@lru_cache(maxsize=8)
def lens_of(model: str, coefficients: tuple[float, ...]) -> Lens:
    """The lens of a distortion as `camera.models.canonical_distortion` returns it."""
    is_fisheye = model == EQUIDISTANT
    values = np.zeros(4 if is_fisheye else _COEFFICIENTS)
    values[: len(coefficients)] = coefficients
    angles = np.linspace(0.0, np.radians(MAX_ANGLE_DEG), _TABLE_SIZE)
    with np.errstate(all="ignore"):
        radii = _fisheye_radius(angles, values) if is_fisheye else np.tan(angles) * _radial(np.tan(angles) ** 2, values)
        growing = np.diff(radii) > 0
    last = _TABLE_SIZE if growing.all() else int(np.argmin(growing)) + 1
    return Lens(is_fisheye, values, angles[:last], radii[:last])


def _fisheye_radius(angle: FloatArray, coefficients: Sequence[float] | FloatArray) -> FloatArray:
    k1, k2, k3, k4 = coefficients
    square = angle**2
    return np.asarray(angle * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4)))))


def _fisheye_slope(angle: FloatArray, coefficients: Sequence[float] | FloatArray) -> FloatArray:
    k1, k2, k3, k4 = coefficients
    square = angle**2
    return np.asarray(1 + square * (3 * k1 + square * (5 * k2 + square * (7 * k3 + square * 9 * k4))))


def _radial(square: FloatArray, c: FloatArray) -> FloatArray:
    """The factor of the radius, from its square."""
    above = 1 + square * (c[0] + square * (c[1] + square * c[4]))
    below = 1 + square * (c[5] + square * (c[6] + square * c[7]))
    return np.asarray(above / below)


def _residual(
    x: FloatArray, y: FloatArray, distorted: FloatArray, c: FloatArray
) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray, FloatArray, FloatArray]]:
    """How far the distorted image of (x, y) is from `distorted` (N, 2), and the derivatives: xx, xy, yx, yy."""
    square = x * x + y * y
    above = 1 + square * (c[0] + square * (c[1] + square * c[4]))
    below = 1 + square * (c[5] + square * (c[6] + square * c[7]))
    above_slope = c[0] + square * (2 * c[1] + square * 3 * c[4])
    below_slope = c[5] + square * (2 * c[6] + square * 3 * c[7])
    radial = above / below
    slope = 2 * (above_slope - radial * below_slope) / below  # d radial / dx = slope x
    prism_x, prism_y = c[8] + square * c[9], c[10] + square * c[11]
    prism_x_slope, prism_y_slope = 2 * (c[8] + 2 * square * c[9]), 2 * (c[10] + 2 * square * c[11])
    error_x = x * radial + 2 * c[2] * x * y + c[3] * (square + 2 * x * x) + square * prism_x - distorted[:, 0]
    error_y = y * radial + c[2] * (square + 2 * y * y) + 2 * c[3] * x * y + square * prism_y - distorted[:, 1]
    xx = radial + x * x * slope + 2 * c[2] * y + 6 * c[3] * x + prism_x_slope * x
    xy = x * y * slope + 2 * c[2] * x + 2 * c[3] * y + prism_x_slope * y
    yx = x * y * slope + 2 * c[2] * x + 2 * c[3] * y + prism_y_slope * x
    yy = radial + y * y * slope + 6 * c[2] * y + 2 * c[3] * x + prism_y_slope * y
    return (error_x, error_y), (xx, xy, yx, yy)


def _without_tilt(points: FloatArray, tilt: FloatArray) -> FloatArray:
    """Points (N, 2) of a sensor that is tilted by (tau_x, tau_y) rad, on one that is not."""
    if not tilt.any():
        return points
    (cos_x, cos_y), (sin_x, sin_y) = np.cos(tilt), np.sin(tilt)
    about_x = np.array([[1, 0, 0], [0, cos_x, sin_x], [0, -sin_x, cos_x]])
    about_y = np.array([[cos_y, 0, -sin_y], [0, 1, 0], [sin_y, 0, cos_y]])
    rotation = about_y @ about_x
    projection = np.array([[rotation[2, 2], 0, -rotation[0, 2]], [0, rotation[2, 2], -rotation[1, 2]], [0, 0, 1]])
    homogeneous = np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(projection @ rotation).T
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])
