"""Two-view geometry on points with known motion."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.geometry import relative_pose

MATRIX = np.array([[520.0, 0, 322.0], [0, 515.0, 238.0], [0, 0, 1]])
FloatArray = npt.NDArray[np.float64]


def rotation(axis: tuple[float, float, float], degrees: float) -> FloatArray:
    direction = np.array(axis) / np.linalg.norm(axis)
    return np.asarray(cv2.Rodrigues(direction * np.radians(degrees))[0], np.float64)


def motion_of(axis: tuple[float, float, float], degrees: float, translation: tuple[float, float, float]) -> FloatArray:
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = rotation(axis, degrees), translation
    return motion


MOTION = motion_of((0.2, 1.0, -0.1), 2.0, (0.1, -0.03, 0.2))


def seen(motion: FloatArray, count: int = 600, noise_px: float = 0.0, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Pixels in both images of points 2 to 12 m away."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform((20, 20), (620, 460), (count, 2))
    depth = rng.uniform(2, 12, (count, 1))
    points = np.column_stack([pixels, np.ones(count)]) @ np.linalg.inv(MATRIX).T * depth
    moved = (points @ motion[:3, :3].T + motion[:3, 3]) @ MATRIX.T
    jitter = noise_px * rng.standard_normal((2, count, 2))
    return pixels + jitter[0], moved[:, :2] / moved[:, 2:] + jitter[1]


def test_motion_is_recovered_from_exact_pairs() -> None:
    pose = relative_pose.relative_pose(*seen(MOTION), MATRIX)
    assert pose is not None
    assert relative_pose.rotation_error_deg(pose.rotation, MOTION[:3, :3]) < 1e-3
    assert relative_pose.translation_error_deg(pose.translation, MOTION[:3, 3]) < 1e-2
    assert np.linalg.norm(pose.translation) == pytest.approx(1)
    assert pose.inliers.shape == (600,)
    assert pose.inliers.all()


@pytest.mark.parametrize("length_m", [0.0, 0.001, 0.01, 0.05, 0.2])
def test_the_rotation_is_no_half_turn_off_where_the_camera_hardly_moves(length_m: float) -> None:
    for seed in range(20):
        direction = np.random.default_rng(seed).normal(size=3)
        motion = motion_of((0.2, 1.0, -0.1), 1.0, tuple(length_m * direction / np.linalg.norm(direction)))
        pose = relative_pose.relative_pose(*seen(motion, noise_px=0.3, seed=seed), MATRIX)
        assert pose is not None
        assert relative_pose.rotation_error_deg(pose.rotation, motion[:3, :3]) < 2


@pytest.mark.parametrize("seed", [51, 55])
def test_the_translation_has_the_sign_that_the_refined_motion_shows(seed: int) -> None:
    """Where a search alone, before the refinement, now and then has most points behind both cameras."""
    direction = np.random.default_rng(seed).normal(size=3)
    motion = motion_of((0.2, 1.0, -0.1), 1.0, tuple(0.02 * direction / np.linalg.norm(direction)))
    pose = relative_pose.relative_pose(*seen(motion, count=200, noise_px=0.3, seed=seed), MATRIX)
    assert pose is not None
    assert relative_pose.translation_error_deg(pose.translation, motion[:3, 3]) < 30


def test_motion_and_inliers_are_recovered_in_spite_of_noise_and_outliers() -> None:
    points0, points1 = seen(MOTION, noise_px=0.3)
    points1[:200] = np.random.default_rng(1).uniform((0, 0), (640, 480), (200, 2))
    pose = relative_pose.relative_pose(points0, points1, MATRIX)
    assert pose is not None
    assert relative_pose.rotation_error_deg(pose.rotation, MOTION[:3, :3]) < 0.1
    assert relative_pose.translation_error_deg(pose.translation, MOTION[:3, 3]) < 2
    assert pose.inliers[200:].mean() > 0.95
    assert pose.inliers[:200].mean() < 0.1


def test_the_same_pairs_give_the_same_answer() -> None:
    points0, points1 = seen(MOTION, noise_px=1.0)
    first, second = (relative_pose.relative_pose(points0, points1, MATRIX) for _ in range(2))
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.rotation, second.rotation)
    np.testing.assert_array_equal(first.inliers, second.inliers)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_pairs_give_no_motion(count: int) -> None:
    points0, points1 = seen(MOTION)
    assert relative_pose.relative_pose(points0[:count], points1[:count], MATRIX) is None
    assert relative_pose.epipolar_inliers(points0[:count], points1[:count]).tolist() == [False] * count


def test_pairs_without_any_geometry_give_few_inliers() -> None:
    rng = np.random.default_rng(2)
    points0, points1 = rng.uniform(0, 480, (2, 100, 2))
    pose = relative_pose.relative_pose(points0, points1, MATRIX)
    assert pose is None or pose.inliers.mean() < 0.3


def test_uncalibrated_inliers() -> None:
    points0, points1 = seen(MOTION, noise_px=0.2)
    points1[:150] = np.random.default_rng(1).uniform((0, 0), (640, 480), (150, 2))
    inliers = relative_pose.epipolar_inliers(points0, points1)
    assert inliers[150:].mean() > 0.95
    assert inliers[:150].mean() < 0.1


def test_pairs_on_which_opencv_fails_get_an_answer_all_the_same() -> None:
    """Found by ORB: `findFundamentalMat` with USAC raises "Assertion failed" on them, in OpenCV 5.0."""
    points0 = [[571, 216], [329, 188], [468, 265], [515, 174], [458.4, 171.6], [148.3, 195.8], [427.7, 181.4],
               [530.8, 215.7], [323.5, 206.5], [427.2, 180], [219.8, 238.5]]  # fmt: skip
    points1 = [[548, 215], [298, 184], [448, 269], [491, 171], [434.4, 168], [82.1, 194.4], [401.8, 178.6],
               [506, 213.6], [291.1, 204], [519.6, 200.1], [159.3, 243.9]]  # fmt: skip
    assert relative_pose.epipolar_inliers(np.array(points0), np.array(points1)).shape == (11,)


def test_points_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(4, 2\)"):
        relative_pose.relative_pose(np.zeros((3, 2)), np.zeros((4, 2)), MATRIX)


def test_convention_relative_motion_takes_points_of_camera_0_to_camera_1() -> None:
    pose0, pose1 = motion_of((0, 0, 1), 30, (1, 2, 3)), motion_of((1, 1, 0), -50, (-2, 0, 1))
    world = np.array([0.3, -0.7, 5.0, 1.0])
    in0, in1 = np.linalg.inv(pose0) @ world, np.linalg.inv(pose1) @ world
    np.testing.assert_allclose(relative_pose.relative_motion(pose0, pose1) @ in0, in1, atol=1e-12)


def test_pairs_of_a_known_motion_lie_on_its_epipolar_lines() -> None:
    fundamental = relative_pose.fundamental_matrix(MOTION, MATRIX)
    points0, points1 = seen(MOTION)
    assert relative_pose.epipolar_distances(points0, points1, fundamental).max() < 1e-6


def test_epipolar_distance_of_a_sideways_step_is_the_vertical_one() -> None:
    fundamental = relative_pose.fundamental_matrix(motion_of((1, 0, 0), 0, (0.5, 0, 0)), np.diag([400.0, 400.0, 1.0]))
    points0 = np.array([[10.0, 20.0], [30.0, 40.0]])
    steps = np.array([[-7.0, 3.0], [2.0, 0.0]])
    distances = relative_pose.epipolar_distances(points0, points0 + steps, fundamental)
    np.testing.assert_allclose(distances, [3.0, 0.0], atol=1e-9)


def test_without_translation_there_is_no_epipolar_line() -> None:
    fundamental = relative_pose.fundamental_matrix(motion_of((0, 1, 0), 10, (0, 0, 0)), MATRIX)
    assert np.isinf(relative_pose.epipolar_distances(*seen(MOTION, 5), fundamental)).all()


@pytest.mark.parametrize("degrees", [0.0, 1e-7, 0.01, 3.0, 90.0, 179.9, 180.0])
def test_rotation_error_is_the_angle_between(degrees: float) -> None:
    reference = rotation((0.3, -1, 2), 71)
    error = relative_pose.rotation_error_deg(reference @ rotation((1, 2, -0.5), degrees), reference)
    assert error == pytest.approx(degrees, abs=1e-8, rel=1e-6)


def test_translation_error_is_an_angle_and_ignores_lengths() -> None:
    assert relative_pose.translation_error_deg(np.array([2.0, 0, 0]), np.array([0, 0.1, 0])) == pytest.approx(90)
    assert relative_pose.translation_error_deg(np.array([1.0, 0, 0]), np.array([-5.0, 0, 0])) == pytest.approx(180)
    assert relative_pose.translation_error_deg(np.array([1.0, 1e-6, 0]), np.array([3.0, 0, 0])) == pytest.approx(
        5.7295780e-5
    )
    assert np.isnan(relative_pose.translation_error_deg(np.zeros(3), np.array([1.0, 0, 0])))


def test_pairs_on_which_usac_fails_get_an_answer() -> None:
    points0 = [
        (304, 185),
        (556, 216),
        (462, 266),
        (304, 186),
        (462, 265),
        (557, 215),
        (253, 171),
        (457, 264),
        (585, 189),
    ]
    points1 = [
        (107, 168),
        (391, 212),
        (327, 276),
        (107, 169),
        (327, 275),
        (392, 211),
        (477, 245),
        (322, 274),
        (417, 186),
    ]
    inliers = relative_pose.epipolar_inliers(np.array(points0, np.float64), np.array(points1, np.float64), 2.0)
    assert inliers.shape == (9,)


@pytest.mark.parametrize("count", [8, 12, 20, 60])
def test_small_and_degenerate_sets_never_raise(count: int) -> None:
    rng = np.random.default_rng(count)
    for number in range(60):
        points0 = rng.integers(0, 600, (count, 2)).astype(np.float64)
        if number % 3 == 0:
            points0 = points0[rng.integers(0, 4, count)] + rng.integers(0, 2, (count, 2))
        elif number % 3 == 1:
            points0[:, 1] = points0[:, 0] // 2
        points1 = points0 + rng.integers(-3, 3, 2)
        points1[::5] = rng.integers(0, 600, points1[::5].shape)
        assert relative_pose.epipolar_inliers(points0, points1, 2.0).shape == (count,)
        relative_pose.relative_pose(points0, points1, MATRIX, 2.0)
