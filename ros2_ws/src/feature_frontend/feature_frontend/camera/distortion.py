"""Lens models, under all names used by drivers, calibration tools and datasets, and the inversion of their distortion.

Two families are supported. OpenCV's polynomial of the radius has one order of coefficients, k1 k2 p1 p2 k3 k4 k5 k6 s1
s2 s3 s4 tau_x tau_y, of which tools use the first 4, 5, 8, 12 or 14: their number determines the terms, whichever of
the family's names is given. The polynomial of the angle (equidistant, OpenCV's fisheye, Kannala-Brandt) has k1 k2 k3
k4.

The forward models are OpenCV's. Their inverses have no closed form. OpenCV's inversion converges slowly towards the
corners of wide lenses, and does not report if it fails to converge. Here a table along the radius gives a close initial
value, and Newton's method converges to the precision of float64. A polynomial lens folds back on itself beyond some
angle, where a pixel has two rays or none; that angle limits the lens, and points beyond it have no ray.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from feature_frontend.errors import CalibrationError

__all__ = [
    "EQUIDISTANT",
    "MAX_ANGLE_DEG",
    "MODEL_NAMES",
    "PLUMB_BOB",
    "RATIONAL_POLYNOMIAL",
    "Lens",
    "canonical_distortion",
    "lens_of",
]

# The names in sensor_msgs/distortion_models.hpp, used by every checked calibration.
PLUMB_BOB, RATIONAL_POLYNOMIAL, EQUIDISTANT = "plumb_bob", "rational_polynomial", "equidistant"

_OPENCV_COUNTS = (4, 5, 8, 12, 14)
_FISHEYE_COUNTS = (4,)
_PLUMB_BOB_COUNT = 5

_OPENCV = (
    PLUMB_BOB,
    RATIONAL_POLYNOMIAL,
    "rational",
    "radtan",  # Kalibr
    "radtan4",
    "radtan5",
    "radtan8",
    "pinhole_radtan",
    "radial_tangential",  # EuRoC, OKVIS, maplab
    "radial_tangential8",
    "brown",
    "brown_conrady",
    "opencv",  # COLMAP
    "opencv_pinhole",
    "full_opencv",
)
_FISHEYE = (
    EQUIDISTANT,
    "equi",  # Kalibr
    "pinhole_equi",
    "equidistant4",
    "fisheye",
    "opencv_fisheye",  # COLMAP
    "kannala_brandt",
    "kannala_brandt4",  # RealSense
    "kannala_brandt8",  # ORB-SLAM3, Basalt: eight including fx fy cx cy
    "kb",
    "kb4",
    "kb8",
)
# Camera models, not lens models: they do not define the coefficients, if there are any.
_NAMELESS = ("", "pinhole", "perspective")
_NONE = ("none", "no_distortion", "undistorted", "rectified", "simple_pinhole")
# Models in use that are not supported here.
_OTHERS = {
    "double_sphere": "the double sphere model",
    "ds": "the double sphere model",
    "eucm": "the extended unified camera model",
    "ucm": "the unified camera model",
    "omni": "the omnidirectional (Mei) model",
    "omnidirectional": "the omnidirectional (Mei) model",
    "mei": "the omnidirectional (Mei) model",
    "scaramuzza": "Scaramuzza's omnidirectional model",
    "ocam": "Scaramuzza's omnidirectional model",
    "fov": "the field-of-view (ATAN) model",
    "atan": "the field-of-view (ATAN) model",
    "division": "the division model",
    "ftheta": "NVIDIA's f-theta model",
    "fisheye_polynomial": "NVIDIA's f-theta model",
    "fisheye624": "Aria's fisheye model with thin prism",
    "radtan_thin_prism_fisheye": "Aria's fisheye model with thin prism",
    "inverse_brown_conrady": "Brown-Conrady the other way round, from distorted to undistorted",
    "modified_brown_conrady": "RealSense's Brown-Conrady, which shifts what is distorted already",
    "simple_radial_fisheye": "COLMAP's fisheye with one coefficient",
    "radial_fisheye": "COLMAP's fisheye with two coefficients",
}


def _key(name: str) -> str:
    """A name without case, spaces, hyphens and underscores."""
    return "".join(character for character in name.casefold() if character.isalnum())


# Numbers of coefficients by key. The last two are also OpenCV's, though COLMAP's first name means another lens model.
_COUNTS: dict[str, tuple[int, ...]] = {_key(name): _OPENCV_COUNTS for name in _OPENCV}
_COUNTS |= {_key("thin_prism_fisheye"): (12,), _key("tilted_thin_prism"): (14,)}
_FISHEYE_KEYS = {_key(name) for name in _FISHEYE}
_COUNTS |= dict.fromkeys(_FISHEYE_KEYS, _FISHEYE_COUNTS)
_NAMELESS_KEYS = {_key(name) for name in _NAMELESS}
_NONE_KEYS = {_key(name) for name in _NONE}
_OTHER_KEYS = {_key(name): meaning for name, meaning in _OTHERS.items()}

MODEL_NAMES = (*_OPENCV, "thin_prism_fisheye", "tilted_thin_prism", *_FISHEYE, *_NAMELESS, *_NONE)
"""Every name that is known, in the spelling of its makers."""

_SHOWN_NAME, _SHOWN_NUMBERS = 40, 16
_EXPECTED = (
    f"{PLUMB_BOB} or {RATIONAL_POLYNOMIAL} (OpenCV's k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 tau_x tau_y: "
    f"{', '.join(map(str, _OPENCV_COUNTS))} of them) or {EQUIDISTANT} (fisheye: k1 k2 k3 k4)"
)


def canonical_distortion(model: str, coefficients: Sequence[float]) -> tuple[str, tuple[float, ...]]:
    """Converts a distortion, with any equivalent name and number of coefficients, to ROS's form.

    Trailing zeros after the last coefficient of a model have no effect. If all coefficients are zero there is no
    distortion, whatever the name, as in `image_geometry`.

    Args:
        model: Name, in any case, with or without spaces, hyphens and underscores.
        coefficients: In the model's order.

    Returns:
        `plumb_bob` with 0 (none) or 5 coefficients, `rational_polynomial` with 8, 12 or 14, or `equidistant` with 4.

    Raises:
        CalibrationError: The name or the number is unknown, or a coefficient is not finite; the text says what was
            received and what is expected.
    """
    values = tuple(map(float, coefficients))
    if not all(map(math.isfinite, values)):
        raise CalibrationError(f"distortion_coefficients ({_shown(values)}) must be finite numbers")
    significant = len(values)
    while significant and values[significant - 1] == 0:
        significant -= 1
    if not significant:
        return PLUMB_BOB, (0.0,) * min(len(values), _PLUMB_BOB_COUNT)
    key = _key(model)
    counts = _counts(key, model, values, significant)
    if len(values) not in counts and significant > max((c for c in counts if c < len(values)), default=0):
        numbers = " or ".join(filter(None, (", ".join(map(str, counts[:-1])), str(counts[-1]))))
        raise CalibrationError(f"{_received(model, values)}; this model has {numbers}, or more where the rest is 0")
    if key in _FISHEYE_KEYS:
        return EQUIDISTANT, values[: _FISHEYE_COUNTS[0]]
    count = next(count for count in (_PLUMB_BOB_COUNT, *_OPENCV_COUNTS[2:]) if count >= significant)
    padded = (*values, *(0.0,) * count)[:count]
    return (PLUMB_BOB if count == _PLUMB_BOB_COUNT else RATIONAL_POLYNOMIAL), padded


def _counts(key: str, model: str, values: tuple[float, ...], significant: int) -> tuple[int, ...]:
    """Valid numbers of coefficients for the model of this name."""
    counts = _COUNTS.get(key)
    if counts is not None:
        return counts
    if key in _NAMELESS_KEYS:
        # Only OpenCV's model has more than four non-zero coefficients.
        if significant > _FISHEYE_COUNTS[0]:
            return _OPENCV_COUNTS
        msg = (
            f"{_received(model, values)}, which {PLUMB_BOB} and {EQUIDISTANT} would read differently; name the lens: "
            f"expected {_EXPECTED}"
        )
    elif key in _NONE_KEYS:
        msg = f"{_received(model, values)}, though the name says that there is none; expected zeros, or {_EXPECTED}"
    elif key in _OTHER_KEYS:
        msg = (
            f"{_received(model, values)}: {_OTHER_KEYS[key]}, which is not supported; rectify the images, or calibrate "
            f"for {_EXPECTED}"
        )
    else:
        msg = f"{_received(model, values)}: this model is unknown; expected {_EXPECTED}"
    raise CalibrationError(msg)


def _received(model: str, values: tuple[float, ...]) -> str:
    name = model if len(model) <= _SHOWN_NAME else f"{model[:_SHOWN_NAME]}..."
    return f"distortion_model is {name!r} with {len(values)} coefficients ({_shown(values)})"


def _shown(values: tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:_SHOWN_NUMBERS])
    return shown if len(values) <= _SHOWN_NUMBERS else f"{shown}, ..."


# (x/z, y/z) grows without bound towards 90 degrees off the axis: at 89 it is 57, and a pixel spans several units.
MAX_ANGLE_DEG = 89.0

_TABLE_SIZE = 4096
_MOST_STEPS = 20
# In normalised units: far below a thousandth of a pixel of any lens, far above the rounding of float64.
_TOLERANCE = 1e-9
_COEFFICIENTS = 14  # k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 tau_x tau_y, OpenCV's order
_TILT = slice(12, 14)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Lens:
    """A lens: a table of its radial part, and the model to refine values from the table.

    Attributes:
        is_fisheye: Whether the model is a polynomial of the angle (equidistant), not of the radius.
        coefficients: (4,) for a fisheye, otherwise (14,) in OpenCV's order.
        angles: (A,) rad off the axis, ascending from 0 to where the lens folds or to `MAX_ANGLE_DEG`.
        radii: (A,) distance from the axis in the distorted, normalised image, ascending.
    """

    is_fisheye: bool
    coefficients: FloatArray
    angles: FloatArray
    radii: FloatArray

    def undistort(self, points: npt.NDArray[np.floating]) -> FloatArray:
        """Undistorts (x/z, y/z), (N, 2); NaN, NaN for points without a ray."""
        distorted = np.asarray(points, np.float64).reshape(-1, 2)
        with np.errstate(all="ignore"):
            if not self.is_fisheye:
                distorted = _without_tilt(distorted, self.coefficients[_TILT])
            radius = np.hypot(distorted[:, 0], distorted[:, 1])
            # Tangential terms may move a point slightly beyond the table: Newton's method decides about such points.
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
    """The lens for a distortion in the form of `canonical_distortion`."""
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
    """The radial factor, from the squared radius."""
    above = 1 + square * (c[0] + square * (c[1] + square * c[4]))
    below = 1 + square * (c[5] + square * (c[6] + square * c[7]))
    return np.asarray(above / below)


def _residual(
    x: FloatArray, y: FloatArray, distorted: FloatArray, c: FloatArray
) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray, FloatArray, FloatArray]]:
    """Residual of the distorted (x, y) against `distorted` (N, 2), and the derivatives xx, xy, yx, yy."""
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
    """Maps points (N, 2) from a sensor tilted by (tau_x, tau_y) rad to an untilted one."""
    if not tilt.any():
        return points
    (cos_x, cos_y), (sin_x, sin_y) = np.cos(tilt), np.sin(tilt)
    about_x = np.array([[1, 0, 0], [0, cos_x, sin_x], [0, -sin_x, cos_x]])
    about_y = np.array([[cos_y, 0, -sin_y], [0, 1, 0], [sin_y, 0, cos_y]])
    rotation = about_y @ about_x
    projection = np.array([[rotation[2, 2], 0, -rotation[0, 2]], [0, rotation[2, 2], -rotation[1, 2]], [0, 0, 1]])
    homogeneous = np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(projection @ rotation).T
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])
