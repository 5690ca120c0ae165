"""The epipolar check, on rendered scenes with known correct and wrong matches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.geometry.epipolar_check import check_frame, check_matches, explained_matches
from feature_frontend.geometry.rays import RayMemory
from feature_frontend.settings import Settings
from feature_frontend.types import Features, FrameResult, FrameState, Matches, StageTimes, Tracks
from feature_frontend_lab.rendering import (
    Camera,
    Quad,
    Scene,
    Texture,
    default_scene,
    default_trajectory,
    look_at,
    render_depth,
    reproject,
)

FloatArray = npt.NDArray[np.float64]

_CAMERA = Camera.with_field_of_view(70, height=480, width=640)
_FOCAL_PX = float(_CAMERA.matrix[0, 0])
_FLIGHT = default_trajectory(60)
_WRONG = 0.3


@pytest.fixture(scope="module")
def hall() -> Scene:
    return default_scene(seed=0)


def _wall() -> Scene:
    texture = Texture.from_image(np.zeros((4, 4, 3), np.uint8))
    return Scene((Quad(np.array([4.0, 8.0, 8.0]), np.array([0.0, -16.0, 0.0]), np.array([0.0, 0.0, -16.0]), texture),))


def _turned(pose: FloatArray, degrees: float) -> FloatArray:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    return pose @ turn


def _matched(
    scene: Scene, pose0: FloatArray, pose1: FloatArray
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Points of two views with 0.4 px of noise, and which of the pairs are right; the others end anywhere."""
    rng = np.random.default_rng(0)
    points0 = rng.uniform((5, 5), (634, 474), (1000, 2))
    there = reproject(points0, render_depth(scene, _CAMERA, pose0), pose0, pose1, _CAMERA)
    points0, points1 = points0[there.visible], there.points[there.visible]
    is_right = rng.random(len(points0)) >= _WRONG
    points1[~is_right] = rng.uniform((0, 0), (639, 479), (np.count_nonzero(~is_right), 2))
    return points0 + rng.normal(0, 0.4, points0.shape), points1 + rng.normal(0, 0.4, points1.shape), is_right


def _normalized(points: npt.NDArray[np.floating]) -> FloatArray:
    return _CAMERA.rays(points)[:, :2]


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("case", ["flight", "long baseline", "forward", "still", "only turning", "one plane"])
def test_wrong_matches_are_found_and_right_ones_stay(case: str, calibrated: bool, hall: Scene) -> None:
    start = _FLIGHT[10]
    ahead = start.copy()
    ahead[:3, 3] += 0.3 * start[:3, 2]
    scene, pose0, pose1 = {
        "flight": (hall, start, _FLIGHT[11]),
        "long baseline": (hall, start, _FLIGHT[15]),
        "forward": (hall, start, ahead),
        "still": (hall, start, start),
        "only turning": (hall, start, _turned(start, 5)),
        "one plane": (_wall(), look_at((0, 0, 1.6), (4, 0, 1.6)), look_at((0.3, 0.4, 1.7), (4, 0.2, 1.5))),
    }[case]
    points0, points1, is_right = _matched(scene, pose0, pose1)
    assert np.count_nonzero(is_right) > 300
    rays = (_normalized(points0), _normalized(points1), _FOCAL_PX) if calibrated else ()
    check = check_matches(points0, points1, *rays)
    accepted = check.inlier.astype(np.bool_)
    assert accepted[is_right].mean() > 0.97
    # Where the motion leaves the epipolar lines undetermined, the fundamental matrix bends them to wrong matches.
    assert accepted[~is_right].mean() < (0.05 if calibrated else 0.1)
    assert check.ratio == accepted.mean()
    np.testing.assert_array_equal(check_matches(points0, points1, *rays).inlier, check.inlier)


def test_pairs_without_any_geometry_are_mostly_refused() -> None:
    points0, points1 = np.random.default_rng(0).uniform(0, 480, (2, 500, 2))
    assert check_matches(points0, points1).ratio < 0.1
    assert check_matches(points0, points1, _normalized(points0), _normalized(points1), _FOCAL_PX).ratio < 0.1


@pytest.mark.parametrize("count", [0, 1, 7])
def test_of_too_few_matches_nothing_is_said(count: int) -> None:
    points = np.random.default_rng(0).uniform(0, 480, (count, 2))
    for check in (check_matches(points, points), check_matches(points, points, points, points, 1.0)):
        assert len(check.inlier) == 0
        assert np.isnan(check.ratio)


def test_a_match_without_a_ray_is_not_accepted(hall: Scene) -> None:
    points0, points1, is_right = _matched(hall, _FLIGHT[10], _FLIGHT[15])
    normalized0, normalized1 = _normalized(points0), _normalized(points1)
    normalized0[::4] = np.nan
    accepted = check_matches(points0, points1, normalized0, normalized1, _FOCAL_PX).inlier.astype(np.bool_)
    assert not accepted[::4].any()
    is_right[::4] = False
    assert accepted[is_right].mean() > 0.97
    normalized0[5:] = np.nan
    assert len(check_matches(points0, points1, normalized0, normalized1, _FOCAL_PX).inlier) == 0


@pytest.mark.parametrize("points1", [np.full((50, 2), 3.0), np.full((50, 2), np.nan), np.full((50, 2), 1e30)])
def test_absurd_points_do_not_raise(points1: FloatArray) -> None:
    points0 = np.random.default_rng(0).uniform(0, 480, (50, 2))
    assert len(check_matches(points0, points1).inlier) == 50
    assert len(check_matches(points1, points1).inlier) == 50
    check_matches(points0, points1, points0, points1, 500.0)


def _result(points0: FloatArray, points1: FloatArray) -> FrameResult:
    rows = torch.arange(len(points0))
    return FrameResult(
        state=FrameState.OK,
        reason="",
        features=replace(Features.empty(480, 640, "x", 1), keypoints=torch.from_numpy(points1.astype(np.float32))),
        matches=replace(Matches.empty("mnn"), indices0=rows.flip(0), indices1=rows.flip(0)),
        keypoints0=torch.from_numpy(points0.astype(np.float32)).flip(0),
        stamp0_ns=0,
        tracks=Tracks.empty(),
        times=StageTimes(0.0, 0.0, 0.0),
    )


def test_frame_after_frame_with_and_without_a_calibration(hall: Scene) -> None:
    points0, points1, is_right = _matched(hall, _FLIGHT[10], _FLIGHT[15])
    result = _result(points0, points1)
    rays0, rays1 = (_normalized(points).astype(np.float32) for points in (points0, points1))
    on, memory = Settings(epipolar_check=True), RayMemory()

    def inlier(rays: FloatArray | None) -> npt.NDArray[np.uint8]:
        of_matches = memory.of_matches(result, rays, 0)
        assert len(check_frame(result, of_matches, _FOCAL_PX, Settings()).check.inlier) == 0
        return check_frame(result, of_matches, _FOCAL_PX, on).check.inlier

    memory.of_matches(result, rays0, 0)
    assert inlier(rays1)[::-1].astype(np.bool_)[is_right].mean() > 0.97
    # The frame before had other rays: the essential matrix of right pairs alone would not be found.
    assert inlier(rays1[::-1].copy()).mean() < 0.2
    without = inlier(None).mean()
    assert without == pytest.approx(is_right.mean(), abs=0.06)
    # This frame has a calibration, the one before had none.
    assert inlier(rays1).mean() == without
    # The one before is another one than that with which it was matched.
    assert memory.of_matches(replace(result, stamp0_ns=7), rays1, 8).normalized0 is None


def test_the_focal_length_is_that_of_the_delivered_image() -> None:
    matrix = (500.0, 0.0, 320.0, 0.0, 400.0, 240.0, 0.0, 0.0, 1.0)
    projection = (300.0, 0.0, 320.0, 0.0, 0.0, 300.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    calibration = CameraCalibration(480, 640, "", "plumb_bob", matrix, (), projection_matrix=projection)
    assert calibration.focal_px() == 450
    assert calibration.focal_px(rectified=True) == 300
    assert replace(calibration, binning_x=2, binning_y=2).focal_px() == 225


def test_chained_matches_are_those_that_the_motion_explains(hall: Scene) -> None:
    points0, points1, is_right = _matched(hall, _FLIGHT[10], _FLIGHT[12])
    count = len(points0)
    similarity = torch.linspace(0, 1, count)
    matches = Matches(torch.arange(count), torch.arange(count) + 5, similarity, 1 - similarity, "mnn")
    kept = explained_matches(matches, points0, points1, 2.0)
    rows = kept.indices0.numpy()
    assert is_right[rows].mean() > 0.97, "wrong ones may lie on their lines by chance"
    assert np.isin(np.flatnonzero(is_right), rows).mean() > 0.97
    assert torch.equal(kept.indices1, kept.indices0 + 5)
    assert torch.equal(kept.similarity, similarity[kept.indices0])
    assert torch.equal(kept.margin, 1 - kept.similarity)
    assert explained_matches(matches, points0, points1, 0.0) is matches
    few = Matches(*(values[:7] for values in (matches.indices0, matches.indices1, similarity, similarity)), "mnn")
    assert len(explained_matches(few, points0[:7], points1[:7], 2.0)) == 7
    wrong = np.random.default_rng(0).uniform((0, 0), (639, 479), points0.shape)
    assert len(explained_matches(matches, points0, wrong, 2.0)) < 0.1 * count
