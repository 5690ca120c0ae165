"""Stereo: rows compared with a literal search, geometry with OpenCV, and depth on rendered pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feature_frontend.camera.calibration import CameraCalibration, normalize_points
from feature_frontend.errors import CalibrationError, MatchingError, SettingsError
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.runtime.cuda_graphs import make_graph_device
from feature_frontend.settings import Settings
from feature_frontend.stereo.matching import RowOptions, match_rows, match_stereo
from feature_frontend.stereo.rig import StereoRig
from feature_frontend.types import Features, Matches
from tests.campaign import Campaign
from tests.core.seeded import seeded_extractor
from tests.stereo_pair import raw_pair, rectified_pair
from tests.tolerances import STEREO_MEDIAN_DEPTH_ERROR

_OPEN = RowOptions(2.0, 0.0, 100.0, -1.0, 1.0)


def _features(descriptors: npt.NDArray[np.float32], extractor: str = "test@0") -> Features:
    count = len(descriptors)
    return Features(torch.zeros(count, 2), torch.ones(count), torch.from_numpy(descriptors), 480, 640, extractor)


def _literal(
    descriptors: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    points: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    options: RowOptions,
) -> list[tuple[int, int, float, float]]:
    """Matches as the documentation has them, one comparison after another."""
    similarity = descriptors[0] @ descriptors[1].T

    def is_candidate(i: int, j: int) -> bool:
        (x0, y0), (x1, y1) = points[0][i], points[1][j]
        tolerance = options.row_tolerance_px
        in_range = options.min_disparity_px <= x0 - x1 <= options.max_disparity_px
        return bool(y0 - tolerance <= y1 <= y0 + tolerance and in_range)

    def from_the_top(side: npt.NDArray[np.float64]) -> list[int]:
        return sorted((i for i in range(len(side)) if np.isfinite(side[i]).all()), key=lambda i: side[i][1])

    rows, columns = from_the_top(points[0]), from_the_top(points[1])
    found = []
    for i in rows:
        of_row = [j for j in columns if is_candidate(i, j)]
        if not of_row:
            continue
        best = max(of_row, key=lambda j: similarity[i, j])
        of_column = [k for k in rows if is_candidate(k, best)]
        if max(of_column, key=lambda k: similarity[k, best]) != i:
            continue
        second = max((similarity[i, j] for j in of_row if j != best), default=-1.0)
        if similarity[i, best] < options.min_similarity:
            continue
        if options.ratio_threshold < 1 and not (
            1 - similarity[i, best] < np.float32(options.ratio_threshold) * (1 - second)
        ):
            continue
        found.append((i, best, float(similarity[i, best]), float(similarity[i, best] - second)))
    return sorted(found)


def _check_equal(found: Matches, expected: list[tuple[int, int, float, float]]) -> None:
    pairs = list(zip(found.indices0.tolist(), found.indices1.tolist(), strict=True))
    assert pairs == [(i, j) for i, j, _, _ in expected]
    np.testing.assert_allclose(found.similarity.numpy(), [row[2] for row in expected], atol=1e-6)
    np.testing.assert_allclose(found.margin.numpy(), [row[3] for row in expected], atol=1e-6)


@given(
    seed=st.integers(0, 10_000),
    counts=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    height=st.sampled_from([1, 8, 60]),
    tolerance=st.sampled_from([0.0, 1.0, 3.5]),
    disparities=st.sampled_from([(-5.0, 5.0), (0.0, 30.0), (1.0, 1.5)]),
    gates=st.sampled_from([(-1.0, 1.0), (0.2, 1.0), (-1.0, 0.75)]),
    block_elements=st.sampled_from([1, 100, 1 << 24]),
)
def test_rows_match_as_a_literal_search_does(
    seed: int,
    counts: tuple[int, int],
    height: int,
    tolerance: float,
    disparities: tuple[float, float],
    gates: tuple[float, float],
    block_elements: int,
) -> None:
    rng = np.random.default_rng(seed)
    options = RowOptions(tolerance, *disparities, *gates)
    # Few values that float32 adds up exactly: equal similarities are really equal, and repeated descriptors occur.
    descriptors = tuple(rng.integers(-2, 3, (count, 4)).astype(np.float32) / 4 for count in counts)
    points = tuple(np.column_stack([rng.integers(0, 40, n), rng.integers(0, height, n)]) * 1.0 for n in counts)
    for side in points:
        side[rng.random(len(side)) < 0.1] = np.nan
    found = match_rows(
        _features(descriptors[0]),
        _features(descriptors[1]),
        torch.from_numpy(points[0]),
        torch.from_numpy(points[1]),
        options,
        block_elements,
    )
    _check_equal(found, _literal((descriptors[0], descriptors[1]), (points[0], points[1]), options))


def test_many_keypoints_on_one_row_need_no_matrix_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    count, largest = 5000, 0
    rng = np.random.default_rng(0)
    descriptors = rng.standard_normal((count, 32)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    x = np.sort(rng.uniform(0, 600, count))
    points0, points1 = (torch.from_numpy(np.column_stack([x - shift, np.full(count, 7.0)])) for shift in (0, 12.0))
    multiply = torch.Tensor.__matmul__

    def watched(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        product = multiply(left, right)
        largest = max(largest, product.numel())
        return product

    monkeypatch.setattr(torch.Tensor, "__matmul__", watched)
    found = match_rows(_features(descriptors), _features(descriptors), points0, points1, _OPEN, 1 << 20)
    assert 0 < largest <= 1 << 20
    assert found.indices0.tolist() == found.indices1.tolist() == list(range(count))


def test_features_of_two_models_are_refused() -> None:
    descriptors, points = np.eye(3, dtype=np.float32), torch.zeros(3, 2, dtype=torch.float64)
    with pytest.raises(MatchingError, match="a@0 and b@1"):
        match_rows(_features(descriptors, "a@0"), _features(descriptors, "b@1"), points, points, _OPEN)


def _calibration(**changes: object) -> CameraCalibration:
    matrix = (500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0)
    return replace(CameraCalibration(480, 640, "", "plumb_bob", matrix, (0.0,) * 5), **changes)  # type: ignore[arg-type]


def _projection(fx: float = 400.0, cx: float = 310.0, tx: float = 0.0, ty: float = 0.0) -> tuple[float, ...]:
    return (fx, 0.0, cx, tx, 0.0, fx, 230.0, ty, 0.0, 0.0, 1.0, 0.0)


def test_depth_follows_from_the_projections_whatever_the_principal_points() -> None:
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-2, 2, 50), rng.uniform(-1, 1, 50), rng.uniform(1, 40, 50)])
    left = _calibration(projection_matrix=_projection())
    # Another focal length and principal point on the right: the general form of P.
    right = _calibration(projection_matrix=_projection(fx=420.0, cx=290.0, tx=-420.0 * 0.1))
    rig = StereoRig(left, right, rectified=True)
    assert rig.baseline_m == pytest.approx(0.1)
    pixels = []
    for camera in (left, right):
        projected = np.column_stack([points, np.ones(50)]) @ np.reshape(camera.projection_matrix, (3, 4)).T
        pixels.append(projected[:, :2] / projected[:, 2:])
    rows0, rows1 = rig.left_on_rows(pixels[0]), rig.right_on_rows(pixels[1])
    np.testing.assert_allclose(rows0, pixels[0])
    np.testing.assert_allclose(rows0[:, 1], rows1[:, 1])
    np.testing.assert_allclose(rig.triangulate(rows0, rows1), points, rtol=1e-9)
    assert np.isnan(rig.triangulate(rows0, rows0)).all()


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant"])
def test_raw_keypoints_come_to_the_rows_that_opencv_gives_them(model: str) -> None:
    rotation = cv2.Rodrigues(np.array([0.02, -0.03, 0.05]))[0]
    coefficients = (-0.25, 0.06, 0.001, -0.0005, 0.01) if model == "plumb_bob" else (-0.013, 0.0008, -0.002, 0.0004)
    left = _calibration(
        distortion_model=model,
        distortion_coefficients=coefficients,
        rectification_matrix=tuple(rotation.ravel().tolist()),
        projection_matrix=_projection(),
    )
    right = replace(left, projection_matrix=_projection(tx=-40.0))
    rig = StereoRig(left, right, rectified=False)
    points = np.random.default_rng(1).uniform((60, 60), (580, 420), (200, 2))
    undistort = cv2.undistortPoints if model == "plumb_bob" else cv2.fisheye.undistortPoints
    expected = undistort(
        points[:, None],
        np.reshape(left.camera_matrix, (3, 3)),
        np.array(coefficients),
        R=rotation,
        P=np.reshape(left.projection_matrix, (3, 4))[:, :3],
    )
    np.testing.assert_allclose(rig.left_on_rows(points), expected.reshape(-1, 2), atol=0.02)
    # What is triangulated lies on the rays that normalized_keypoints publishes, here in the raw camera's frame.
    found = rig.triangulate(rig.left_on_rows(points), rig.left_on_rows(points) - [10.0, 0.0])
    np.testing.assert_allclose(found[:, :2] / found[:, 2:], normalize_points(left, points), atol=1e-6)


@pytest.mark.parametrize(
    ("left", "right", "rectified", "expected"),
    [
        ({}, {"projection_matrix": _projection(tx=0.0)}, True, r"baseline .* is -?0 m"),
        ({}, {"projection_matrix": _projection(tx=40.0)}, True, r"baseline .* is -0.1 m.*swapped"),
        ({}, {"projection_matrix": _projection(tx=-40.0, ty=-8.0)}, True, r"0.02 m above the other"),
        ({}, {"projection_matrix": (0.0,) * 12}, True, r"right camera_info: .* P are 0"),
        ({"rectification_matrix": (0.0,) * 9}, {"projection_matrix": _projection(tx=-40.0)}, False, r"left .*R is \(0"),
    ],
)
def test_what_is_no_stereo_calibration_is_refused(
    left: dict[str, object], right: dict[str, object], rectified: bool, expected: str
) -> None:
    with pytest.raises(CalibrationError, match=expected):
        StereoRig(
            _calibration(**{"projection_matrix": _projection(), **left}), _calibration(**right), rectified=rectified
        )


def test_a_baseline_that_is_no_number_never_becomes_a_calibration() -> None:
    with pytest.raises(CalibrationError, match=r"projection_matrix .* finite"):
        _calibration(projection_matrix=_projection(tx=float("nan")))


def test_without_calibrations_only_rectified_images_of_one_size_match() -> None:
    features = _features(np.eye(4, dtype=np.float32))
    small = replace(features, height=240)
    settings = Settings(camera_type="stereo", rectified=True, stereo_min_disparity_px=0.0)
    found = match_stereo(features, features, None, settings)
    assert (len(found.matches), found.points.shape) == (4, (0, 3))
    with pytest.raises(CalibrationError, match=r"640x480 px .* 640x240"):
        match_stereo(features, small, None, settings)
    with pytest.raises(CalibrationError, match="raw images"):
        match_stereo(features, features, None, replace(settings, rectified=False))
    rig = StereoRig(
        _calibration(projection_matrix=_projection()), _calibration(projection_matrix=_projection(tx=-40.0)), True
    )
    with pytest.raises(CalibrationError, match="640x240"):
        match_stereo(features, small, rig, settings)


@pytest.mark.parametrize(
    ("device", "is_recorded"),
    [
        ("cpu", False),
        ("cpu", True),
        pytest.param("cuda", True, marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")),
    ],
)
def test_both_sides_go_through_the_network_together(
    photographs: list[npt.NDArray[np.uint8]], device: str, is_recorded: bool
) -> None:
    settings = Settings(camera_type="stereo", max_num_keypoints=100, tracker="chain")
    extractor = seeded_extractor(settings, device, make_graph_device(torch.device(device)) if is_recorded else None)
    frontend = Frontend(extractor, settings)
    left, right = (np.ascontiguousarray(image[:240, :320]) for image in photographs[:2])
    grey = cv2.cvtColor(right, cv2.COLOR_RGB2GRAY)
    mask = np.zeros((240, 320), np.uint8)
    mask[:, :160] = 1
    for number, other in enumerate((right, grey, np.ascontiguousarray(right[:200, :300]))):
        result = frontend.process(left, number, mask, other)
        assert result.right is not None
        expected = extractor.extract(other).to("cpu")
        torch.testing.assert_close(result.right.keypoints, expected.keypoints, atol=1e-3, rtol=0)
        assert (result.right.height, result.right.width) == other.shape[:2]
        # The mask is of the left image.
        assert result.features.keypoints[:, 0].max() < 160 < result.right.keypoints[:, 0].max()
        assert len(result.matches) == (0 if number == 0 else 100)
    assert frontend.process(left, 9).right is None
    with pytest.raises(SettingsError, match=r"camera_type is 'mono'.* stereo"):
        Frontend(extractor, replace(settings, camera_type="mono")).process(left, 0, right=right)


def test_disparities_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"stereo_min_disparity_px .*5.* stereo_max_disparity_px 5"):
        Settings(stereo_min_disparity_px=5.0, stereo_max_disparity_px=5.0)


@pytest.mark.slow
@pytest.mark.parametrize("extractor", ["silk-vggnp-mu", "aliked-n16"])
@pytest.mark.parametrize("kind", ["rectified", "raw"])
def test_depth_of_a_rendered_pair(
    extractor: str, kind: str, request: pytest.FixtureRequest, report_figure: Callable[[str], None], campaign: Campaign
) -> None:
    if extractor == "silk-vggnp-mu":
        campaign.only("a second network")
    if extractor.startswith("aliked"):
        weights = {"weights_dir": request.getfixturevalue("weights_dir"), "fallback_extractor": ""}
    else:
        weights = {}
    pair = rectified_pair() if kind == "rectified" else raw_pair()
    settings = Settings(  # type: ignore[arg-type]
        camera_type="stereo", compile=False, extractor=extractor, rectified=pair.rectified, **weights
    )
    result = Frontend.from_pretrained(settings).process(pair.left, 0, None, pair.right)
    assert result.right is not None
    rig = StereoRig(*pair.calibrations, rectified=pair.rectified)
    found = match_stereo(result.features, result.right, rig, settings, (pair.left, pair.right))
    plain = match_stereo(result.features, result.right, rig, settings)
    errors, without = (
        pair.depth_errors(side.points, result.features.keypoints.numpy()[side.indices]) for side in (found, plain)
    )
    report_figure(
        f"stereo, {extractor}, {kind} pair, baseline {rig.baseline_m:g} m: {len(errors)} points, median depth error "
        f"{np.median(errors):.2%}, 90th percentile {np.quantile(errors, 0.9):.2%} (without sub-pixel: "
        f"{np.median(without):.2%})"
    )
    assert len(errors) > 400
    assert np.median(errors) < STEREO_MEDIAN_DEPTH_ERROR
    assert np.median(errors) < np.median(without)
