"""Lens models by all the names that drivers, calibration tools and datasets have for them: one table.

Two families are known. OpenCV's polynomial of the radius has one order of coefficients, k1 k2 p1 p2 k3 k4 k5 k6 s1 s2
s3 s4 tau_x tau_y, of which tools keep the first 4, 5, 8, 12 or 14: their number says which terms there are, whichever
of the family's names is given. The polynomial of the angle (equidistant, OpenCV's fisheye, Kannala-Brandt) has k1 k2 k3
k4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from feature_frontend.errors import CalibrationError

__all__ = ["EQUIDISTANT", "MODEL_NAMES", "PLUMB_BOB", "RATIONAL_POLYNOMIAL", "canonical_distortion"]

# The names that sensor_msgs/distortion_models.hpp has, and that a calibration has once it is checked.
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
    "kannala_brandt8",  # ORB-SLAM3, Basalt: with fx fy cx cy it is eight
    "kb",
    "kb4",
    "kb8",
)
# Of a camera, not of a lens: nothing says what the coefficients are, if there are any.
_NAMELESS = ("", "pinhole", "perspective")
_NONE = ("none", "no_distortion", "undistorted", "rectified", "simple_pinhole")
# Those that people have and that cannot be computed with here.
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
    """What of a name counts: not its case, spaces, hyphens and underscores."""
    return "".join(character for character in name.casefold() if character.isalnum())


# Counts by what counts of a name. The last two are OpenCV's too, though COLMAP has another lens of the first name.
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
    """A distortion as ROS writes it, from any name and number of coefficients that say the same.

    Zeros behind the last coefficient of a model change nothing. Where all are zero there is no distortion, whatever the
    name says, as for `image_geometry`.

    Args:
        model: Name, in any case, with or without spaces, hyphens and underscores.
        coefficients: In the order of the model.

    Returns:
        `plumb_bob` with 0 (none) or 5 coefficients, `rational_polynomial` with 8, 12 or 14, or `equidistant` with 4.

    Raises:
        CalibrationError: The name or the number is not known, or a coefficient is no finite number; the text says what
            was received and what is expected.
    """
    values = tuple(map(float, coefficients))
    if not all(map(math.isfinite, values)):
        msg = f"distortion_coefficients ({_shown(values)}) must be finite numbers"
        raise CalibrationError(msg)
    significant = len(values)
    while significant and values[significant - 1] == 0:
        significant -= 1
    if not significant:
        return PLUMB_BOB, (0.0,) * min(len(values), _PLUMB_BOB_COUNT)
    key = _key(model)
    counts = _counts(key, model, values, significant)
    if len(values) not in counts and significant > max((c for c in counts if c < len(values)), default=0):
        numbers = " or ".join(filter(None, (", ".join(map(str, counts[:-1])), str(counts[-1]))))
        msg = f"{_received(model, values)}; this model has {numbers}, or more where the rest is 0"
        raise CalibrationError(msg)
    if key in _FISHEYE_KEYS:
        return EQUIDISTANT, values[: _FISHEYE_COUNTS[0]]
    count = next(count for count in (_PLUMB_BOB_COUNT, *_OPENCV_COUNTS[2:]) if count >= significant)
    padded = (*values, *(0.0,) * count)[:count]
    return (PLUMB_BOB if count == _PLUMB_BOB_COUNT else RATIONAL_POLYNOMIAL), padded


def _counts(key: str, model: str, values: tuple[float, ...], significant: int) -> tuple[int, ...]:
    """Numbers of coefficients that the model of this name may have."""
    counts = _COUNTS.get(key)
    if counts is not None:
        return counts
    if key in _NAMELESS_KEYS:
        # More than four that are not 0 can be OpenCV's alone.
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
