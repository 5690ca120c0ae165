from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_frontend.errors import SettingsError
from feature_frontend_lab.evaluation.homography.metrics import (
    accuracy,
    area_under_curve,
    corner_error,
    estimate_homography,
    homography_accuracy,
    matching_accuracy,
    matching_score,
    repeatability,
)
from feature_frontend_lab.evaluation.homography.pairs import HomographyRange, sample_homography, transform_points

SIZE = (100, 200)
IDENTITY = np.eye(3)
SHIFT = np.array([[1.0, 0, 50], [0, 1, 0], [0, 0, 1]])
NONE = np.zeros((0, 2))
GRID = np.stack(np.meshgrid(np.arange(5.0, 200, 10), np.arange(5.0, 100, 10)), axis=-1).reshape(-1, 2)


def _brute_force(points0, points1, homography, size0, size1, limit):  # noqa: ANN001, ANN202
    """The formula, point by point."""
    inverse = np.linalg.inv(homography)

    def carry(point, matrix):  # noqa: ANN001, ANN202
        x, y, w = matrix @ [*point, 1]
        return np.array([x / w, y / w])

    def inside(point, size):  # noqa: ANN001, ANN202
        return -0.5 <= point[0] < size[1] - 0.5 and -0.5 <= point[1] < size[0] - 0.5

    seen0 = [x for x in points0 if inside(carry(x, homography), size1)]
    seen1 = [y for y in points1 if inside(carry(y, inverse), size0)]
    found = sum(any(np.linalg.norm(x - carry(y, inverse)) <= limit for y in seen1) for x in seen0)
    found += sum(any(np.linalg.norm(y - carry(x, homography)) <= limit for x in seen0) for y in seen1)
    return found / (len(seen0) + len(seen1)) if seen0 or seen1 else 0.0


def test_the_same_points_repeat() -> None:
    assert repeatability(GRID, GRID, IDENTITY, SIZE, SIZE, 0.0) == 1.0


@pytest.mark.parametrize(("offset", "limit", "expected"), [(0.9, 1, 1.0), (1.0, 1, 1.0), (1.1, 1, 0.0), (1.1, 3, 1.0)])
def test_a_point_repeats_up_to_the_threshold(offset: float, limit: float, expected: float) -> None:
    # Moved inwards, so that none leaves the image.
    assert repeatability(GRID[GRID[:, 0] < 190], GRID[GRID[:, 0] < 190] + [offset, 0], IDENTITY, SIZE, SIZE, limit) == (
        expected
    )


def test_only_points_that_both_images_show_count() -> None:
    # Moved 50 px to the right: image 1 shows the left 150 px of image 0.
    points1 = transform_points(GRID, SHIFT)
    assert repeatability(GRID, points1[points1[:, 0] < 200], SHIFT, SIZE, SIZE, 0.5) == 1.0
    # What image 1 finds in its left 50 px, image 0 cannot know.
    elsewhere = np.concatenate([points1[points1[:, 0] < 200], [[10.0, 10], [20, 20]]])
    assert repeatability(GRID, elsewhere, SHIFT, SIZE, SIZE, 0.5) == 1.0


def test_half_of_the_points_wrong_is_half_of_the_repeatability() -> None:
    moved = GRID.copy()
    moved[::2] += [4, 4]
    assert repeatability(GRID, moved, IDENTITY, SIZE, SIZE, 1) == pytest.approx(0.5)


def test_points_of_one_image_may_share_a_neighbor() -> None:
    # Both of image 0 are near the one of image 1, and it is near them: 3 of 3.
    assert repeatability(np.array([[10.0, 10], [11, 10]]), np.array([[10.5, 10]]), IDENTITY, SIZE, SIZE, 1) == 1.0


def test_each_point_is_judged_in_its_own_image() -> None:
    # Image 1 magnifies by 2: 0.8 px apart in image 0 is 1.6 px in image 1.
    double = np.diag([2.0, 2, 1])
    assert repeatability(np.array([[10.0, 10]]), np.array([[21.6, 20]]), double, SIZE, SIZE, 1) == 0.5


def test_no_points_are_no_repeatability() -> None:
    assert repeatability(NONE, NONE, IDENTITY, SIZE, SIZE, 3) == 0.0
    assert repeatability(GRID, NONE, IDENTITY, SIZE, SIZE, 3) == 0.0
    assert repeatability(NONE, GRID, IDENTITY, SIZE, SIZE, 3) == 0.0
    far = np.array([[1.0, 0, 1000], [0, 1, 0], [0, 0, 1]])
    assert repeatability(GRID, GRID, far, SIZE, SIZE, 3) == 0.0


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(0, 60), st.sampled_from([1.0, 3.0, 20.0]))
def test_repeatability_is_its_formula_and_symmetric(seed: int, count0: int, count1: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    size0, size1 = (100, 200), (150, 120)
    homography = sample_homography(HomographyRange(), *size0, rng)
    points0 = rng.uniform(0, [200, 100], (count0, 2))
    points1 = np.concatenate(
        [rng.uniform(0, [120, 150], (count1, 2)), transform_points(points0[::2], homography) + 0.4]
    )
    value = repeatability(points0, points1, homography, size0, size1, limit)
    assert value == pytest.approx(_brute_force(points0, points1, homography, size0, size1, limit))
    exchanged = repeatability(points1, points0, np.linalg.inv(homography), size1, size0, limit)
    assert value == pytest.approx(exchanged)


def test_many_points_in_one_column_are_searched_in_blocks() -> None:
    column = np.stack([np.full(1500, 50.0), np.linspace(0, 99, 1500)], axis=1)
    assert repeatability(column, column + 0.3, IDENTITY, SIZE, SIZE, 0.5) == 1.0


def test_matching_accuracy_is_the_fraction_of_right_matches() -> None:
    right = transform_points(GRID, SHIFT)
    assert matching_accuracy(GRID, right, SHIFT, 1e-9) == 1.0
    half = right.copy()
    half[::2] += [2.0, 0]
    assert matching_accuracy(GRID, half, SHIFT, 1) == pytest.approx(0.5)
    assert matching_accuracy(GRID, half, SHIFT, 2) == 1.0
    assert matching_accuracy(NONE, NONE, SHIFT, 1) == 0.0


def test_the_matching_score_is_the_fraction_of_the_shared_points_that_are_matched_rightly() -> None:
    # 150 of the 200 points are in both images; 120 of them are matched, 90 rightly.
    shared = (GRID[:, 0] < 150).nonzero()[0]
    matches = np.stack([shared[:120], np.arange(120)], axis=1)
    matches[:30, 1] = np.arange(120, 150)
    there = transform_points(GRID[shared], SHIFT)
    assert matching_score(GRID, there, matches, SHIFT, SIZE, SIZE, 1) == pytest.approx(90 / 150)
    # Image 1 has 50 points more that image 0 could show, and 7 that it could not.
    more = np.concatenate([there, np.full((50, 2), 90.0), np.full((7, 2), 10.0)])
    expected = 90 * (1 / 150 + 1 / 200) / 2
    assert matching_score(GRID, more, matches, SHIFT, SIZE, SIZE, 1) == pytest.approx(expected)
    assert matching_score(NONE, there, matches[:0], SHIFT, SIZE, SIZE, 1) == 0.0


def test_a_match_behind_the_camera_is_wrong() -> None:
    horizon = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
    assert matching_accuracy(np.array([[150.0, 10]]), np.array([[0.0, 0]]), horizon, 1000) == 0.0


def test_the_homography_is_found_among_wrong_matches() -> None:
    truth = sample_homography(HomographyRange(), *SIZE, np.random.default_rng(3))
    matched1 = transform_points(GRID, truth)
    rng = np.random.default_rng(0)
    matched1[::2] = rng.uniform(0, [200, 100], matched1[::2].shape)
    estimate = estimate_homography(GRID, matched1)
    assert corner_error(estimate, truth, SIZE) < 0.01
    # OpenCV's RANSAC draws the same samples every time.
    again = estimate_homography(GRID, matched1)
    assert estimate is not None
    assert again is not None
    np.testing.assert_array_equal(estimate, again)


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_matches_give_no_homography(count: int) -> None:
    assert estimate_homography(GRID[:count], GRID[:count]) is None
    assert corner_error(None, IDENTITY, SIZE) == math.inf


def test_matches_on_one_line_give_none_or_a_wrong_one_but_no_error() -> None:
    line = np.stack([np.arange(20.0), np.arange(20.0)], axis=1)
    assert corner_error(estimate_homography(line, line), IDENTITY, SIZE) > 0
    point = np.full((20, 2), 7.0)
    assert corner_error(estimate_homography(point, point), IDENTITY, SIZE) > 0


def test_the_corner_error_of_a_shift_is_its_length() -> None:
    assert corner_error(SHIFT, IDENTITY, SIZE) == pytest.approx(50)
    assert corner_error(IDENTITY, IDENTITY, SIZE) == 0.0
    # Twice as large: the corners of a 200 x 100 image move by 0, 199, 99 and both.
    double = np.diag([2.0, 2, 1])
    assert corner_error(double, IDENTITY, SIZE) == pytest.approx((0 + 199 + 99 + math.hypot(199, 99)) / 4)


def test_an_estimate_that_puts_a_corner_behind_the_camera_has_no_finite_error() -> None:
    assert corner_error(np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]]), IDENTITY, SIZE) == math.inf


def test_accuracy_and_area_by_hand() -> None:
    errors = np.array([0.0, 0.5, 1.0, 2.0, math.inf])
    assert accuracy(errors, 1) == pytest.approx(3 / 5)
    assert area_under_curve(errors, 1) == pytest.approx((1 + 0.5) / 5)
    assert area_under_curve(errors, 2) == pytest.approx((1 + 0.75 + 0.5) / 5)
    score = homography_accuracy(errors, (1.0, 2.0))
    assert score.accuracy == pytest.approx((3 / 5, 4 / 5))
    assert score.area_under_curve == pytest.approx((1.5 / 5, 2.25 / 5))
    assert score.median_error_px == 1.0


def test_the_area_is_that_under_the_measured_curve() -> None:
    errors = np.random.default_rng(0).exponential(1.5, 200)
    grid = (np.arange(30_000) + 0.5) / 10_000
    curve = [accuracy(errors, limit) for limit in grid]
    assert area_under_curve(errors, 3) == pytest.approx(np.mean(curve), abs=1e-3)


def test_no_pairs_and_failed_pairs_score_nothing() -> None:
    for errors in (np.zeros(0), np.full(4, math.inf)):
        score = homography_accuracy(errors)
        assert score.accuracy == (0.0, 0.0)
        assert score.area_under_curve == (0.0, 0.0)
        assert score.median_error_px == math.inf


def test_a_degenerate_truth_is_refused() -> None:
    with pytest.raises(SettingsError, match="degenerate"):
        repeatability(GRID, GRID, np.ones((3, 3)), SIZE, SIZE, 1)
    with pytest.raises(SettingsError, match="degenerate"):
        matching_accuracy(GRID, GRID, np.ones((3, 3)), 1)
    with pytest.raises(SettingsError, match="degenerate"):
        corner_error(IDENTITY, np.ones((3, 3)), SIZE)
