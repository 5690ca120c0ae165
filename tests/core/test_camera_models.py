"""Lens models by name and number of coefficients: accepted ones match OpenCV, refusals state the reason."""

from __future__ import annotations

import re
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.camera.calibration import CameraCalibration, normalize_points
from feature_frontend.camera.distortion import MODEL_NAMES, canonical_distortion
from feature_frontend.errors import CalibrationError

FloatArray = npt.NDArray[np.float64]

_MATRIX = (520.9, 0.0, 325.1, 0.0, 521.0, 249.7, 0.0, 0.0, 1.0)
_OPENCV_COUNTS = (4, 5, 8, 12, 14)
# Size of each of OpenCV's coefficients for ordinary lenses, in its order.
_SCALES = np.array([0.2, 0.05, 1e-3, 1e-3, 0.01, 0.2, 0.05, 0.01, 2e-3, 2e-3, 2e-3, 2e-3, 0.03, 0.03])
_FISHEYE_NAMES = {
    "equidistant",
    "equi",
    "pinhole_equi",
    "equidistant4",
    "fisheye",
    "opencv_fisheye",
    "kannala_brandt",
    "kannala_brandt4",
    "kannala_brandt8",
    "kb",
    "kb4",
    "kb8",
}
_ONLY = {"thin_prism_fisheye": 12, "tilted_thin_prism": 14}
_NAMELESS = {"", "pinhole", "perspective"}
_WITHOUT = {"none", "no_distortion", "undistorted", "rectified", "simple_pinhole"}
_UNSUPPORTED = (
    "double_sphere",
    "ds",
    "omni",
    "fov",
    "eucm",
    "ftheta",
    "inverse_brown_conrady",
    "Modified Brown Conrady",
    "barrel",
    "x" * 1_000_000,
)
_RAYS = np.stack(np.meshgrid(np.linspace(-0.55, 0.55, 9), np.linspace(-0.45, 0.45, 7)), axis=-1).reshape(-1, 2)


def _calibration(model: str, coefficients: tuple[float, ...]) -> CameraCalibration:
    return CameraCalibration(480, 640, "", model, _MATRIX, coefficients)


def _spellings(name: str, rng: np.random.Generator) -> str:
    """A name as another program may write it: "Plumb Bob", "RADTAN", "kannala-brandt4"."""
    name = name.replace("_", str(rng.choice(["_", " ", "-", ""])))
    return [name, name.upper(), name.title(), f" {name}"][rng.integers(4)]


def _projected(coefficients: FloatArray, *, is_fisheye: bool) -> FloatArray:
    """OpenCV's pixels of the rays."""
    matrix, points = np.reshape(_MATRIX, (3, 3)), np.column_stack([_RAYS, np.ones(len(_RAYS))])
    project = cv2.fisheye.projectPoints if is_fisheye else cv2.projectPoints
    pixels, _ = project(points[:, None], np.zeros(3), np.zeros(3), matrix, coefficients)
    return np.asarray(pixels, np.float64).reshape(-1, 2)


def _taken_count(name: str, count: int, significant: int) -> int | None:
    """How many coefficients a model has of `count` given ones, of which those behind `significant` are 0."""
    if not significant:
        return 0
    if name in _WITHOUT or (name in _NAMELESS and significant <= 4):
        return None
    possible = (4,) if name in _FISHEYE_NAMES else (_ONLY[name],) if name in _ONLY else _OPENCV_COUNTS
    if count in possible:
        return count
    return max((n for n in possible if significant <= n < count), default=None)


def _check(name: str, model: str, values: FloatArray, significant: int) -> float | None:
    """Has a lens taken or refused as it should be; the worst difference from OpenCV's rays, or None if refused."""
    of_model = _taken_count(name, len(values), significant)
    if of_model is None:
        with pytest.raises(CalibrationError, match=r"expected|this model has") as caught:
            _calibration(model, tuple(values))
        assert f"{model!r} with {len(values)} coefficients" in str(caught.value)
        assert f"{values[0]:g}" in str(caught.value)
        return None
    calibration = _calibration(model, tuple(values))
    assert (calibration.distortion_model, len(calibration.distortion_coefficients)) in {
        ("plumb_bob", min(len(values), 5)),
        ("plumb_bob", 5),
        *(("rational_polynomial", n) for n in (8, 12, 14)),
        ("equidistant", 4),
    }
    is_fisheye = name in _FISHEYE_NAMES and significant > 0
    found = normalize_points(
        calibration, _projected(values[:of_model] if of_model else np.zeros(4), is_fisheye=is_fisheye)
    )
    return float(np.abs(found - _RAYS).max())


def test_every_name_with_every_number_of_coefficients_has_opencvs_rays_or_is_refused(
    report_figure: Callable[[str], None],
) -> None:
    rng = np.random.default_rng(0)
    results = []
    for name in MODEL_NAMES:
        for count in range(21):
            for significant in range(count + 1):
                values = np.zeros(count)
                scales = np.concatenate([_SCALES, np.full(6, 0.1)])[:significant]
                values[:significant] = scales * rng.uniform(0.2, 1, significant) * rng.choice([-1, 1], significant)
                results.append(_check(name, _spellings(name, rng), values, significant))
    differences = [difference for difference in results if difference is not None]
    report_figure(
        f"lens models: {len(MODEL_NAMES)} names with 0 to 20 coefficients, {len(differences)} sets of them with "
        f"OpenCV's rays (worst {max(differences):.1e}), {len(results) - len(differences)} refused by name and number"
    )
    assert len(differences) > 1000
    assert max(differences) < 2e-6


@pytest.mark.parametrize("count", _OPENCV_COUNTS)
def test_random_lenses_of_each_number_are_opencvs_undistort_points(
    count: int, report_figure: Callable[[str], None]
) -> None:
    rng = np.random.default_rng(count)
    matrix, criteria = np.reshape(_MATRIX, (3, 3)), (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 1000, 1e-12)
    undistort = getattr(cv2, "undistortPointsIter", None)
    worst = 0.0
    for _ in range(50):
        values = _SCALES[:count] * rng.uniform(-1, 1, count)
        pixels = _projected(values, is_fisheye=False)
        if undistort is not None:
            theirs = undistort(pixels[:, None], matrix, values, np.eye(3), np.eye(3), criteria)
        else:
            theirs = cv2.undistortPoints(pixels[:, None], matrix, values, criteria=criteria)
        found = normalize_points(_calibration("plumb_bob", tuple(values)), pixels)
        worst = max(worst, float(np.abs(found - np.reshape(theirs, (-1, 2))).max()))
    report_figure(f"undistortion, 50 random lenses with {count} coefficients: off OpenCV's by at most {worst:.1e}")
    assert worst < 2e-6


@pytest.mark.parametrize("name", [*MODEL_NAMES, *_UNSUPPORTED])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 12, 14, 20])
def test_all_zeros_are_a_pinhole_whatever_the_name(name: str, count: int) -> None:
    calibration = _calibration(name, (0.0,) * count)
    assert calibration.distortion_model == "plumb_bob"
    found = normalize_points(calibration, np.array([[325.1 + 520.9, 249.7 - 521.0]]))
    np.testing.assert_allclose(found, [[1, -1]], atol=1e-7)


@pytest.mark.parametrize("name", ["plumb_bob", "equi", "", "none", "barrel"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_coefficient_that_is_no_finite_number_is_refused(name: str, bad: float) -> None:
    for count in range(1, 21):
        for place in {0, count // 2, count - 1}:
            values = [0.0] * count
            values[place] = bad
            with pytest.raises(CalibrationError, match=r"distortion_coefficients .* finite"):
                _calibration(name, tuple(values))


@pytest.mark.parametrize("name", _UNSUPPORTED)
def test_other_lenses_are_refused_by_name_with_what_is_expected(name: str) -> None:
    with pytest.raises(CalibrationError) as caught:
        _calibration(name, (0.1,) * 5)
    text = str(caught.value)
    assert re.search(r"distortion_model is '.*' with 5 coefficients \(0.1, 0.1, 0.1, 0.1, 0.1\)", text)
    assert "plumb_bob or rational_polynomial" in text
    assert "equidistant" in text
    assert len(text) < 400


def test_a_canonical_distortion_stays_as_it_is() -> None:
    for model, coefficients in (
        ("plumb_bob", ()),
        ("plumb_bob", (0.1, 0.2, 0.3, 0.4, 0.5)),
        ("rational_polynomial", tuple(np.arange(1.0, 9))),
        ("rational_polynomial", tuple(np.arange(1.0, 13))),
        ("rational_polynomial", tuple(np.arange(1.0, 15))),
        ("equidistant", (0.1, 0.2, 0.3, 0.4)),
    ):
        assert canonical_distortion(model, coefficients) == (model, coefficients)
