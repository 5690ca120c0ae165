"""Track metrics, on tracks with known values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.types import Tracks
from feature_frontend_lab.evaluation.reports.track_plots import length_shares, track_figure
from feature_frontend_lab.evaluation.tracks.baselines import Detections
from feature_frontend_lab.evaluation.tracks.benchmark import (
    SequenceReport,
    TrackResult,
    coverage,
    measure,
    parallax_over_life,
    refound,
    track_lengths,
)
from feature_frontend_lab.evaluation.tracks.track_history import TrackHistory
from feature_frontend_lab.evaluation.tracks.trajectory import align, chain_poses
from feature_frontend_lab.rendering import default_trajectory, invert_pose

FloatArray = npt.NDArray[np.float64]

MATRIX = np.array([[520.0, 0, 320], [0, 515.0, 240], [0, 0, 1]])
CAMERA = CameraCalibration(480, 640, "", "plumb_bob", tuple(MATRIX.ravel()), ())


def _tracks(ids: Sequence[int], points: npt.ArrayLike, ages: Sequence[int] | None = None) -> Tracks:
    count = len(ids)
    return Tracks(
        ids=np.array(ids, np.uint64),
        ages=np.array([1] * count if ages is None else ages, np.uint32),
        gaps=np.zeros(count, np.uint32),
        feature_indices=np.arange(count, dtype=np.uint32),
        keypoints=np.array(points, np.float32).reshape(-1, 2),
        velocities=np.zeros((count, 2), np.float32),
        elapsed_s=np.zeros(count, np.float32),
        quality=np.full(count, np.nan, np.float32),
    )


def _seen_from(poses: Sequence[FloatArray], noise_px: float = 0.0) -> list[Tracks]:
    """Tracks of points 2 to 10 m before the first camera, as far as they are in each image."""
    rng = np.random.default_rng(0)
    pixels = rng.uniform((0, 0), (640, 480), (600, 2))
    points = np.column_stack([pixels, np.ones(600)]) @ np.linalg.inv(MATRIX).T * rng.uniform(2, 10, (600, 1))
    world = points @ poses[0][:3, :3].T + poses[0][:3, 3]
    tracks: list[Tracks] = []
    for pose in poses:
        inverse = invert_pose(pose)
        there = (world @ inverse[:3, :3].T + inverse[:3, 3]) @ MATRIX.T
        image = there[:, :2] / there[:, 2:] + noise_px * rng.standard_normal((600, 2))
        inside = (there[:, 2] > 0) & (image >= 0).all(axis=1) & (image < [640, 480]).all(axis=1)
        ids = np.flatnonzero(inside) + 1
        tracks.append(_tracks(ids.tolist(), image[inside], [1 if not tracks else 2] * len(ids)))
    return tracks


def _recording(poses: Sequence[FloatArray | None], tracks: list[Tracks]) -> TrackHistory:
    count = len(tracks)
    return TrackHistory(
        identity="synthetic",
        height=480,
        width=640,
        camera=CAMERA,
        stamps_ns=list(range(count)),
        poses=list(poses),
        tracks=tracks,
        detections=[Detections(of_frame.keypoints, np.ones(len(of_frame), np.bool_)) for of_frame in tracks],
        keypoints=[len(of_frame) for of_frame in tracks],
        extraction_ms=[1.0] * count,
        tracking_ms=[1.0] * count,
    )


def test_lengths_count_the_frames_in_which_an_id_was_seen() -> None:
    tracks = [
        _tracks([1, 2, 3], np.zeros((3, 2))),
        _tracks([1, 4], np.zeros((2, 2))),
        _tracks([1, 2], np.zeros((2, 2))),
    ]
    assert track_lengths(tracks) == {1: 2, 2: 1, 3: 1}
    assert track_lengths([Tracks.empty()]) == {}
    shares = length_shares({1: 5, 3: 2, 4: 1, 5: 1, 200: 1})
    np.testing.assert_allclose(shares, [0.5, 0, 0.3, 0.1, 0, 0, 0, 0.1])


def test_parallax_of_a_life_is_from_the_first_to_the_last_sighting() -> None:
    tracks = [
        _tracks([1, 2, 9], [[0, 0], [10, 10], [5, 5]]),
        _tracks([2], [[300, 300]]),
        _tracks([2, 1], [[13, 14], [8, 6]]),
    ]
    assert parallax_over_life(tracks) == pytest.approx((5 + 10) / 2)
    assert np.isnan(parallax_over_life(tracks[:1]))


def test_coverage_counts_cells_with_points_that_were_seen_before() -> None:
    corners = [[0, 0], [639.4, 479.4], [1, 1], [320, 240]]
    tracks = [_tracks([1], [[0, 0]]), _tracks([1, 2, 3, 4], corners, ages=[2, 2, 2, 1])]
    assert coverage(tracks, 480, 640) == pytest.approx(2 / 48)
    assert np.isnan(coverage(tracks[:1], 480, 640))


def test_points_on_detections_are_distinguished_from_those_beside_them() -> None:
    detections = np.array([[10.0, 10.0], [50.0, 50.0]])
    tracks = [_tracks([1, 2, 3], [[10.001, 10], [50, 51], [90, 90]], ages=[2, 2, 2]), Tracks.empty()]
    found = Detections(np.vstack([detections, [[90.0, 92.0]]]), np.array([True, True, False]))
    left = refound(tracks, [found, found])
    assert [of_frame.ids.tolist() for of_frame in left] == [[2, 3], []]
    recording = _recording([None, None], tracks)
    recording.detections = [found, found]
    result = measure("beside", recording)
    assert result.drift_px == pytest.approx(1.0)
    assert result.refound_drift_px == pytest.approx(1.5)


@pytest.fixture(scope="module")
def exact() -> TrackResult:
    poses = default_trajectory(8)
    return measure("exact", _recording(poses, _seen_from(poses)))


def test_exact_tracks_have_no_errors(exact: TrackResult) -> None:
    poses, result = default_trajectory(8), exact
    assert result.pose is not None
    for errors in result.pose.values():
        assert errors.without_pose == 0
        assert errors.median_rotation_deg < 1e-3
        assert errors.median_translation_deg < 1e-2
    assert [errors.pairs for errors in result.pose.values()] == [7, 6, 3]
    assert result.precision == {1: 1.0, 2: 1.0, 5: 1.0}
    assert result.nearest_precision is None
    assert min(result.inlier_ratio.values()) > 0.99
    assert result.drift_px == 0
    assert result.trajectory is not None
    assert result.trajectory.frames == tuple(range(8))
    assert result.trajectory.kept_scales == 0
    assert result.trajectory_rmse_m is not None
    assert result.trajectory_rmse_m < 1e-3 * np.linalg.norm(poses[7][:3, 3] - poses[0][:3, 3])


def test_a_figure_has_each_measure_and_the_path_of_the_camera(exact: TrackResult) -> None:
    poses = default_trajectory(8)
    short = replace(exact, configuration="short", lengths={1: 5}, alive={1: 0.5, 2: float("nan")})
    figure = track_figure("hall", SequenceReport("hall", "", list(range(8)), poses, [exact, short]))
    header, body = figure.subfigs
    assert [text.get_text() for text in header.legends[0].texts] == ["exact", "short", "ground truth"]
    axes = {own.get_title(loc="left").partition(",")[0]: own for own in body.axes}
    assert len(axes) == 8
    curves = [np.asarray(line.get_xydata()).tolist() for line in axes["Fraction of points alive"].lines]
    alive = [[gap, value] for gap, value in exact.alive.items() if gap < 8]
    assert [curve for curve in curves if curve] == [alive, [[1, 0.5]]]
    # Nothing is seen in more than 8 frames: the bins end there.
    assert [label.get_text() for label in axes["Length of tracks"].get_xticklabels()] == ["1", "2", "3-4", "5-8"]
    path = np.asarray(axes["Trajectory"].lines[-1].get_xydata())
    assert all(axis in np.array(poses)[:, :3, 3].T.tolist() for axis in path.T.tolist())
    untrue = replace(exact, pose=None, precision=None, aligned=None)
    assert len(track_figure("", SequenceReport("", "", [], [], [untrue])).subfigs[1].axes) == 4


def test_wrong_pairs_and_missing_poses_are_seen() -> None:
    poses = default_trajectory(6)
    tracks = _seen_from(poses, noise_px=0.2)
    rng = np.random.default_rng(1)
    shuffled = [
        _tracks(t.ids.tolist(), np.where(rng.random((len(t), 1)) < 0.3, rng.uniform(0, 480, (len(t), 2)), t.keypoints))
        for t in tracks
    ]
    result = measure("noisy", _recording([None, *poses[1:]], shuffled))
    assert result.pose is not None
    assert result.precision is not None
    assert [errors.pairs for errors in result.pose.values()] == [4, 3, 0]
    assert result.pose[1].median_rotation_deg < 0.2
    assert np.isnan(result.pose[5].median_rotation_deg)
    # Of two images, 0.7 x 0.7 of the pairs are right; some of the others lie on their lines by chance.
    assert 0.47 < result.precision[1] < 0.56
    assert 0.4 < result.inlier_ratio[1] < 0.56
    assert measure("no poses", _recording([None] * 6, tracks)).pose is None


def test_frames_without_a_motion_are_left_out_of_the_trajectory() -> None:
    poses = default_trajectory(6)
    tracks = _seen_from(poses)
    tracks[3] = Tracks.empty()
    trajectory = chain_poses(tracks, CAMERA)
    assert trajectory.frames == (0, 1, 2, 4, 5)
    positions = np.array([pose[:3, 3] for pose in trajectory.poses])
    truth = np.array([poses[frame][:3, 3] for frame in trajectory.frames])
    assert np.abs(align(positions, truth) - truth).max() < 1e-3
    assert chain_poses([], CAMERA).frames == ()


def test_a_length_is_kept_where_no_points_tell_the_new_one() -> None:
    poses = default_trajectory(3)
    tracks = _seen_from(poses)
    renamed = (tracks[1].ids + 1000).tolist()
    middle = _tracks([*tracks[1].ids.tolist(), *renamed], np.tile(tracks[1].keypoints, (2, 1)))
    last = _tracks((tracks[2].ids + 1000).tolist(), tracks[2].keypoints)
    trajectory = chain_poses([tracks[0], middle, last], CAMERA)
    assert trajectory.kept_scales == 1
    steps = np.diff([pose[:3, 3] for pose in trajectory.poses], axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 1.0)


def test_alignment_finds_rotation_scale_and_shift_but_no_mirror() -> None:
    positions = np.random.default_rng(0).normal(size=(20, 3))
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(align(positions, 3 * positions @ turn.T + [1, 2, 3]), 3 * positions @ turn.T + [1, 2, 3])
    mirrored = positions * [-1, 1, 1]
    assert np.abs(align(positions, mirrored) - mirrored).max() > 0.1
