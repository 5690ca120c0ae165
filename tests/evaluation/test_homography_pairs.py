from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.errors import SettingsError
from feature_frontend_lab.evaluation.homography.pairs import (
    HomographyRange,
    make_pair,
    normalize_homography,
    photometric_change,
    resize_short_side,
    sample_homography,
    transform_points,
    visible_in,
    warp_image,
)

HEIGHT, WIDTH = 480, 640
CENTER = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])


def _blobs(places: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.zeros((HEIGHT, WIDTH))
    for x, y in places:
        image += 200 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.0**2))
    return image.astype(np.uint8)


def _centroid(image: npt.NDArray[np.uint8], near: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x, y = np.rint(near).astype(int)
    rows, columns = np.mgrid[y - 20 : y + 21, x - 20 : x + 21]
    weights = image[y - 20 : y + 21, x - 20 : x + 21].astype(float)
    return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()


def _similarity_at_center(homography: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Magnification and rotation in degrees at the image centre, by finite differences."""
    step = 1e-4
    middle, right, below = transform_points(CENTER + np.array([[0, 0], [step, 0], [0, step]]), homography)
    x_axis, y_axis = (right - middle) / step, (below - middle) / step
    assert np.dot(x_axis, y_axis) == pytest.approx(0, abs=1e-4)
    assert np.linalg.norm(x_axis) == pytest.approx(np.linalg.norm(y_axis), abs=1e-4)
    return float(np.linalg.norm(x_axis)), math.degrees(math.atan2(x_axis[1], x_axis[0]))


def test_homographies_stay_within_their_range_and_use_it() -> None:
    limits = HomographyRange()
    rng = np.random.default_rng(0)
    scales, angles, shifts, depths = [], [], [], []
    for _ in range(500):
        homography = sample_homography(limits, HEIGHT, WIDTH, rng)
        scale, angle = _similarity_at_center(homography)
        scales.append(scale)
        angles.append(angle)
        shifts.append((transform_points(CENTER, homography)[0] - CENTER) / [WIDTH, HEIGHT])
        # Depth at the middles of the right and the lower edge, relative to that at the centre.
        edges = np.array([[*CENTER, 1], [WIDTH - 0.5, CENTER[1], 1], [CENTER[0], HEIGHT - 0.5, 1]])
        at_center, *at_edges = edges @ homography[2]
        depths.append(np.array(at_edges) / at_center - 1)
    assert min(scales) == pytest.approx(0.7, abs=0.02)
    assert min(scales) >= 0.7 - 1e-5
    assert max(scales) == pytest.approx(1.4, abs=0.02)
    assert max(scales) <= 1.4 + 1e-5
    assert np.abs(angles).max() == pytest.approx(30, abs=0.5)
    assert np.abs(angles).max() <= 30 + 1e-3
    assert np.abs(shifts).max() == pytest.approx(0.1, abs=0.002)
    assert np.abs(depths).max() == pytest.approx(0.2, abs=0.004)
    # The scale is drawn in its logarithm: as often below 1 as above.
    assert np.mean(np.array(scales) < 1) == pytest.approx(math.log(1 / 0.7) / math.log(2), abs=0.06)


def test_a_range_of_nothing_is_the_identity() -> None:
    still = HomographyRange(rotation_deg=0, minimum_scale=1, maximum_scale=1, perspective=0, translation=0)
    homography = sample_homography(still, HEIGHT, WIDTH, np.random.default_rng(0))
    np.testing.assert_allclose(homography, np.eye(3), atol=1e-12)


def test_points_go_there_and_back() -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(0, [WIDTH, HEIGHT], (100, 2))
    for _ in range(20):
        homography = sample_homography(HomographyRange(), HEIGHT, WIDTH, rng)
        back = transform_points(transform_points(points, homography), normalize_homography(np.linalg.inv(homography)))
        np.testing.assert_allclose(back, points, atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_in_the_image_is_found_where_the_homography_says(seed: int) -> None:
    places = np.array([[200.3, 150.7], [400.0, 300.0], [320.5, 240.2], [250.0, 350.25], [450.0, 200.0]])
    homography = sample_homography(HomographyRange(), HEIGHT, WIDTH, np.random.default_rng(seed))
    warped = warp_image(_blobs(places), homography)
    expected = transform_points(places, homography)
    inner = visible_in(expected - 25, (HEIGHT - 50, WIDTH - 50))
    assert inner.sum() >= 2
    for place in expected[inner]:
        assert np.linalg.norm(_centroid(warped, place) - place) < 0.1


def test_a_seed_gives_one_pair_and_another_seed_another(photographs: list[npt.NDArray[np.uint8]]) -> None:
    pairs = [make_pair(photographs[0], HomographyRange(), np.random.default_rng(seed)) for seed in (7, 7, 8)]
    np.testing.assert_array_equal(pairs[0].image1, pairs[1].image1)
    np.testing.assert_array_equal(pairs[0].homography, pairs[1].homography)
    assert (pairs[0].homography != pairs[2].homography).any()
    assert pairs[0].image1.shape == photographs[0].shape
    np.testing.assert_array_equal(pairs[0].image0, photographs[0])


def test_the_light_changes_and_the_scene_does_not(photographs: list[npt.NDArray[np.uint8]]) -> None:
    for image in (photographs[0], photographs[0][:, :, 1]):
        for seed in range(5):
            changed = photometric_change(image, np.random.default_rng(seed))
            assert changed.shape == image.shape
            assert changed.dtype == np.uint8
            assert (changed != image).any()
            assert np.corrcoef(changed.ravel(), image.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("size", "expected"), [((321, 481), (480, 719)), ((481, 321), (719, 480)), ((960, 1280), (480, 640))]
)
def test_images_are_brought_to_one_short_side(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    assert resize_short_side(image, 480).shape == (*expected, 3)
    assert resize_short_side(image, 0) is image


def test_points_behind_the_camera_have_no_place() -> None:
    homography = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
    moved = transform_points(np.array([[50.0, 10], [100, 10], [200, 10]]), homography)
    np.testing.assert_allclose(moved[0], [100, 20])
    assert np.isnan(moved[1:]).all()
    assert not visible_in(moved[1:], (1000, 1000)).any()


@pytest.mark.parametrize(
    "homography",
    [
        np.zeros((3, 3)),
        np.ones((3, 3)),
        np.eye(2),
        np.diag([1.0, 1.0, np.nan]),
        np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]]),
    ],
    ids=["zero", "rank 1", "2x2", "NaN", "first pixel at infinity"],
)
def test_a_degenerate_homography_is_refused(homography: npt.NDArray[np.float64]) -> None:
    with pytest.raises(SettingsError, match=r"expected (3x3|an invertible)"):
        normalize_homography(homography)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"rotation_deg": -1.0}, "rotation_deg is -1"),
        ({"minimum_scale": 0.0}, "scale range is 0"),
        ({"minimum_scale": 2.0}, "scale range is 2"),
        ({"perspective": 0.5}, "perspective is 0.5"),
        ({"translation": math.nan}, "translation is nan"),
    ],
)
def test_a_range_that_is_none_is_refused(values: dict[str, float], name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        HomographyRange(**values)
