"""Least-squares refinement of a motion over pairs with known motion."""

from __future__ import annotations

import numpy as np
import pytest

from feature_frontend.geometry.pose_refinement import misfit, refine_motion, sampson_distances
from feature_frontend.geometry.relative_pose import (
    essential_inliers,
    fundamental_matrix,
    relative_pose,
    rotation_error_deg,
    translation_error_deg,
)
from tests.campaign import Campaign
from tests.core.test_relative_pose import MATRIX, MOTION, motion_of, rotation, seen

ROTATION, TRANSLATION = MOTION[:3, :3], MOTION[:3, 3] / np.linalg.norm(MOTION[:3, 3])


def test_from_nearby_it_finds_the_motion_of_exact_pairs() -> None:
    start = rotation((1.0, -0.4, 0.3), 0.3) @ ROTATION, rotation((0.0, 1.0, 0.5), 15.0) @ TRANSLATION
    found = refine_motion(*start, *seen(MOTION), MATRIX, farthest_px=50.0)
    assert rotation_error_deg(found[0], ROTATION) < 1e-6
    assert translation_error_deg(found[1], TRANSLATION) < 1e-5
    assert np.linalg.norm(found[1]) == pytest.approx(1)
    assert np.allclose(found[0] @ found[0].T, np.eye(3))


def test_sampson_distances_are_px() -> None:
    motion = motion_of((0.0, 0.0, 1.0), 0.0, (1.0, 0.0, 0.0))
    points0 = np.array([[100.0, 200.0], [300.0, 50.0]])
    # Beside a sideways step, what is off is off along y; each of the two points takes half of it.
    points1 = points0 + np.array([[7.0, 3.0], [2.0, 0.0]])
    own = sampson_distances(motion[:3, :3], motion[:3, 3], points0, points1, np.diag([500.0, 500.0, 1.0]))
    assert np.abs(own) == pytest.approx([3.0 / np.sqrt(2), 0.0])


def test_sampson_distances_are_those_of_the_fundamental_matrix() -> None:
    points0, points1 = seen(MOTION, count=50, noise_px=2.0)
    fundamental = fundamental_matrix(MOTION, MATRIX)
    ones = np.ones(50)
    homogeneous0, homogeneous1 = np.column_stack([points0, ones]), np.column_stack([points1, ones])
    lines1, lines0 = homogeneous0 @ fundamental.T, homogeneous1 @ fundamental
    error = (homogeneous1 * lines1).sum(axis=1)
    expected = error / np.sqrt((lines1[:, :2] ** 2).sum(axis=1) + (lines0[:, :2] ** 2).sum(axis=1))
    own = sampson_distances(ROTATION, TRANSLATION, points0, points1, MATRIX)
    assert np.allclose(np.abs(own), np.abs(expected))


def test_many_pairs_of_noise_average_and_few_wrong_ones_do_not_matter(campaign: Campaign) -> None:
    errors = []
    for seed in range(campaign.seed, campaign.seed + campaign.count(60, "sets of pairs")):
        points0, points1 = seen(MOTION, noise_px=0.3, seed=seed)
        # Near misses, which a threshold of 1 px lets pass in part.
        points1[:120] += np.random.default_rng(seed).normal(0, 1.5, (120, 2))
        pose = relative_pose(points0, points1, MATRIX)
        assert pose is not None
        near = refine_motion(ROTATION, TRANSLATION, points0, points1, MATRIX, 3.0)
        errors.append(rotation_error_deg(pose.rotation, ROTATION))
        # From RANSAC's answer and from the truth it comes to the same place.
        assert rotation_error_deg(pose.rotation, near[0]) < 1e-2
    assert np.mean(errors) < 0.03


def test_the_order_of_the_pairs_hardly_matters() -> None:
    points0, points1 = seen(MOTION, noise_px=0.5)
    points1[::4] += np.random.default_rng(0).normal(0, 5.0, (150, 2))
    poses = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(600)
        pose = relative_pose(points0[order], points1[order], MATRIX)
        assert pose is not None
        poses.append(pose)
    for pose in poses[1:]:
        assert rotation_error_deg(pose.rotation, poses[0].rotation) < 5e-3
        assert translation_error_deg(pose.translation, poses[0].translation) < 0.1


def test_a_turn_without_a_step_keeps_a_direction() -> None:
    motion = motion_of((0.1, 1.0, 0.0), 2.0, (0.0, 0.0, 0.0))
    points0, points1 = seen(motion)
    start = rotation((0.0, 1.0, 0.0), 0.1) @ motion[:3, :3]
    turned, direction = refine_motion(start, np.array([0.0, 0.0, 1.0]), points0, points1, MATRIX, 10.0)
    assert rotation_error_deg(turned, motion[:3, :3]) < 1e-3
    assert np.isfinite(direction).all()
    assert np.linalg.norm(direction) == pytest.approx(1)


def test_where_no_pair_is_near_the_motion_stays() -> None:
    points0, points1 = seen(MOTION)
    turned, direction = refine_motion(ROTATION, TRANSLATION, points0, points1 + 300.0, MATRIX, 1e-6)
    assert turned is ROTATION
    assert direction is TRANSLATION


def test_inliers_without_the_motion_are_about_those_with_it() -> None:
    points0, points1 = seen(MOTION, noise_px=0.3)
    points1[:200] = np.random.default_rng(1).uniform((0, 0), (640, 480), (200, 2))
    pose = relative_pose(points0, points1, MATRIX)
    assert pose is not None
    assert (essential_inliers(points0, points1, MATRIX) == pose.inliers).mean() > 0.98
    assert not essential_inliers(points0[:7], points1[:7], MATRIX).any()


def test_a_motion_fits_its_own_pairs_best() -> None:
    points0, points1 = seen(MOTION, noise_px=0.3)
    others = [rotation((0.0, 1.0, 0.0), degrees) @ ROTATION for degrees in (0.0, 0.1, 1.0, 10.0)]
    costs = [misfit(other, TRANSLATION, points0, points1, MATRIX, 0.3, 3.0) for other in others]
    assert costs == sorted(costs)
    assert costs[-1] <= 600 * np.log1p(100.0)


def test_two_scenes_in_one_image_give_the_motion_of_the_larger() -> None:
    moving = motion_of((0.0, 1.0, 0.0), -3.0, (-0.2, 0.1, 0.0))
    for seed in range(10):
        points0, points1 = seen(MOTION, noise_px=0.3, seed=seed)
        other0, other1 = seen(moving, count=250, noise_px=0.3, seed=seed + 100)
        pose = relative_pose(np.concatenate([other0, points0]), np.concatenate([other1, points1]), MATRIX)
        assert pose is not None
        assert rotation_error_deg(pose.rotation, ROTATION) < 0.1
