"""Track metrics on synthetic sequences with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.types import Tracks
from feature_frontend_lab.evaluation.tracks.metrics import (
    epipolar_precision,
    fraction_alive,
    fraction_seen,
    pairs_at,
    position_drift_px,
    undistorted_px,
)


def _tracks(ids: list[int], points: list[tuple[float, float]] | None = None, ages: list[int] | None = None) -> Tracks:
    count = len(ids)
    return Tracks(
        ids=np.array(ids, np.uint64),
        ages=np.array(ages or [1] * count, np.uint32),
        gaps=np.zeros(count, np.uint32),
        feature_indices=np.arange(count, dtype=np.uint32),
        keypoints=np.array(points or [(0, 0)] * count, np.float32).reshape(-1, 2),
        velocities=np.zeros((count, 2), np.float32),
        elapsed_s=np.zeros(count, np.float32),
        quality=np.full(count, np.nan, np.float32),
    )


def test_fraction_alive_counts_ids_that_are_present_at_exactly_that_gap() -> None:
    sequence = [_tracks([1, 2, 3, 4]), _tracks([1, 2]), _tracks([]), _tracks([2, 3])]
    alive = fraction_alive(sequence, (1, 2, 3, 4))
    assert alive[1] == pytest.approx((0.5 + 0.0) / 2)  # the empty frame does not count
    assert alive[2] == pytest.approx((0.0 + 0.5) / 2)
    assert alive[3] == 0.5
    assert math.isnan(alive[4])


def test_pairs_are_joined_by_id_whatever_their_order() -> None:
    sequence = [_tracks([5, 7, 9], [(1, 1), (2, 2), (3, 3)]), _tracks([]), _tracks([9, 5], [(30, 30), (10, 10)])]
    ((index, points0, points1),) = pairs_at(sequence, 2)
    assert (index, points0.tolist(), points1.tolist()) == (0, [[1, 1], [3, 3]], [[10, 10], [30, 30]])
    assert [len(points0) for _, points0, _ in pairs_at(sequence, 1)] == [0, 0]


def _camera(*coefficients: float) -> CameraCalibration:
    return CameraCalibration(480, 640, "", "plumb_bob", (500.0, 0, 320, 0, 500.0, 240, 0, 0, 1), coefficients)


def test_epipolar_precision_is_the_fraction_near_the_true_lines() -> None:
    poses = [np.eye(4), np.eye(4)]
    poses[1][0, 3] = 0.5  # the camera moves to the right: points keep their rows
    points0 = np.array([[100.0, 100], [200, 150], [300, 200], [400, 50]])
    points1 = points0 + np.array([[-20, 0.0], [-5, 1.9], [-40, 2.1], [-3, -30]])
    assert epipolar_precision([(0, points0, points1), (0, points0[:0], points1[:0])], 1, poses, _camera()) == 0.5
    assert math.isnan(epipolar_precision([], 1, poses, _camera()))
    bent = _camera(0.3, 0.0, 0.0, 0.0, 0.0)
    assert np.allclose(undistorted_px(_camera(), points0), points0, atol=1e-3)
    assert np.abs(undistorted_px(bent, points0) - points0).max() > 3
    assert epipolar_precision([(0, points0[:1], points1[:1] - np.array([200, 0.0]))], 1, poses, bent) == 0.0


def test_drift_is_measured_where_a_detection_is_near() -> None:
    sequence = [_tracks([1]), _tracks([1, 2, 3], [(10, 10), (50, 50), (90, 90)], [2, 2, 1])]
    detections = [np.zeros((0, 2)), np.array([[10.4, 10.0], [60, 60], [90.0, 92]])]
    assert position_drift_px(sequence, detections) == pytest.approx(0.4, abs=1e-5)
    assert math.isnan(position_drift_px(sequence, [detections[0], detections[0]]))


def test_fraction_seen_counts_what_an_image_claims_to_continue() -> None:
    assert fraction_seen([_tracks([1, 2, 3, 4]), _tracks([2, 9], ages=[5, 1])], 1) == 0.25
    assert fraction_seen([_tracks([]), _tracks([9])], 1) == 0.0
