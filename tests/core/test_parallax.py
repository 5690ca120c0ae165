"""The camera's motion without calibration, and where points of known depth are seen next."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend.geometry.fundamental import fundamental_by_reweighting
from feature_frontend.geometry.parallax import ViewMotion, view_motion
from feature_frontend.image.resize import Resize
from feature_frontend.tracking.local_motion import local_motion
from feature_frontend.tracking.lucas_kanade import approach
from feature_frontend.tracking.predictions import CameraMotion, Predictions, along_lines, camera_motion, predict, spread
from feature_frontend.tracking.state import TrackState, Views

FloatArray = npt.NDArray[np.float64]

_HEIGHT, _WIDTH = 480, 640
_RESIZE = Resize(_HEIGHT, _WIDTH, _HEIGHT, _WIDTH)
_TURN = cv2.Rodrigues(np.array([0.004, 0.02, 0.003]))[0]
_FORWARD, _SIDEWAYS = np.array([0.1, 0.0, -0.9]), np.array([-0.6, 0.05, 0.0])


def _views(motions: list[FloatArray], focal_px: float) -> tuple[list[FloatArray], list[FloatArray]]:
    """Points that all views see: their (N, 2) px and (N,) depths in each, one view more than motions."""
    generator = np.random.default_rng(0)
    points = np.array([-9.0, -4.0, 3.0]) + np.array([18.0, 8.0, 25.0]) * generator.random((1500, 3))
    every = [points]
    for motion in motions:
        every.append(every[-1] @ _TURN.T + motion)
    pixels = [view[:, :2] / view[:, 2:] * focal_px + [_WIDTH / 2, _HEIGHT / 2] for view in every]
    seen = np.all([(p > 0).all(axis=1) & (p < [_WIDTH, _HEIGHT]).all(axis=1) for p in pixels], axis=0)
    seen &= np.all([view[:, 2] > 1.5 for view in every], axis=0)
    noisy = [p[seen] + generator.normal(0.0, 0.15, (seen.sum(), 2)) for p in pixels]
    return noisy, [view[seen, 2] for view in every]


def _tensor(points: FloatArray) -> torch.Tensor:
    return torch.from_numpy(points).float()


def _motion(pixels0: FloatArray, pixels1: FloatArray, *, is_padded: bool = False) -> ViewMotion:
    points0, points1, used = _tensor(pixels0), _tensor(pixels1), torch.ones(len(pixels0), dtype=torch.bool)
    fundamental = fundamental_by_reweighting(points0, points1, used, is_padded=is_padded)
    return view_motion(points0, points1, used, fundamental, _HEIGHT, _WIDTH)


# 448 px is what is assumed.
@pytest.mark.parametrize("focal_px", [380.0, 448.0, 560.0])
@pytest.mark.parametrize("motion", [_FORWARD, _SIDEWAYS])
def test_the_motion_is_found_without_calibration(motion: FloatArray, focal_px: float) -> None:
    pixels, depths = _views([motion], focal_px)
    found = _motion(pixels[0], pixels[1], is_padded=focal_px == 448.0)
    direction = motion * [focal_px, focal_px, 448.0]
    assert found.translation.numpy() @ direction / np.linalg.norm(direction) > 0.995
    inverse = found.inverse_depths(_tensor(pixels[0]), _tensor(pixels[1])).numpy()
    # All are off by the same factor at most, and by the noise.
    ratios = inverse * depths[0]
    assert np.quantile(np.abs(ratios / np.median(ratios) - 1.0), 0.5) < 0.1
    points, growth = found.move(_tensor(pixels[0]), torch.from_numpy(inverse))
    assert np.quantile(np.linalg.norm(points.numpy() - pixels[1], axis=1), 0.9) < 0.7
    assert np.median(np.abs(growth.numpy() - depths[0] / depths[1])) < 0.02


def _state(points: FloatArray) -> TrackState:
    every = torch.ones(len(points), dtype=torch.bool)
    return replace(TrackState.empty(len(points), 1, torch.device("cpu")), is_valid=every, points=_tensor(points))


def _step(state: TrackState, pixels0: FloatArray, pixels1: FloatArray, is_used: torch.Tensor) -> CameraMotion:
    known = torch.ones((), dtype=torch.bool)
    view = _motion(pixels0, pixels1)
    return camera_motion(view, known, state, _tensor(pixels0), _tensor(pixels1), is_used)


@pytest.mark.parametrize("first", [_FORWARD, _SIDEWAYS])
@pytest.mark.parametrize("pace", [0.6, 1.0, 1.7])
def test_a_point_is_seen_next_where_its_depth_says(first: FloatArray, pace: float) -> None:
    pixels, _ = _views([first, pace * first], 448.0)
    state, used = _state(pixels[0]), torch.arange(len(pixels[0])) % 3 > 0
    camera = _step(state, pixels[0], pixels[1], used)
    assert bool(camera.is_clear)
    assert not camera.knows_depth(state).any(), "no point has a past yet"
    every = torch.ones_like(used)
    depths = camera.next_inverse_depths(state, _tensor(pixels[0]), _tensor(pixels[1]), every)
    flows = _tensor(pixels[1] - pixels[0])
    state = replace(_state(pixels[1]), inverse_depths=depths, flows=flows)
    camera = _step(state, pixels[1], pixels[2], used)
    assert float(camera.pace) == pytest.approx(pace, rel=0.1)
    nothing = local_motion(state.points, flows, ~every)
    predicted = predict(state, state.points, _RESIZE, nothing, camera)
    assert predicted.is_known.all(dim=0).tolist() == [False, True, True]
    # Those that were not used say nothing about the motion.
    errors = np.linalg.norm(predicted.points.numpy() - pixels[2][:, None], axis=2)[~used.numpy()]
    assert np.median(errors[:, 1]) < 0.6
    if pace != 1.0:
        assert np.median(errors[:, 1]) < 0.3 * np.median(errors[:, 2])
    # A missed point keeps its depth, in the unit of the next step.
    later = camera.next_inverse_depths(state, state.points, state.points, ~every)
    measured = camera.next_inverse_depths(state, state.points, _tensor(pixels[2]), every)
    assert float((later / measured - 1.0).abs().median()) < 0.1


def test_a_camera_that_only_turns_says_nothing_about_depth() -> None:
    pixels, _ = _views([np.zeros(3)], 448.0)
    state = _state(pixels[0])
    camera = _step(state, pixels[0], pixels[1], state.is_valid)
    assert not bool(camera.is_clear)
    after = camera.next_inverse_depths(state, state.points, _tensor(pixels[1]), state.is_valid)
    assert torch.isnan(after).all()


def test_few_pairs_do_not_say_where_the_camera_goes() -> None:
    pixels, _ = _views([_FORWARD], 448.0)
    state = _state(pixels[0])
    assert not bool(_step(state, pixels[0], pixels[1], torch.arange(len(pixels[0])) < 40).is_clear)


def test_the_most_similar_detection_along_the_line_is_found() -> None:
    pixels, _ = _views([_SIDEWAYS], 448.0)
    state = _state(pixels[0])
    camera = _step(state, pixels[0], pixels[1], state.is_valid)
    count = 100
    right, points = _tensor(pixels[1][:count]), _tensor(pixels[0][:count])
    off = right + torch.tensor([0.0, 12.0])
    detected = torch.cat([right, off])
    similarity = torch.cat([0.8 * torch.eye(count), torch.eye(count)], dim=1)
    rows, best = along_lines(camera, points, detected, similarity, 2.0)
    is_it = (detected[rows] - right).norm(dim=1) < 4.0
    assert is_it.float().mean() > 0.9, "what lies beside the line is not taken, however similar"
    assert float(best[is_it].median()) == pytest.approx(0.8)
    unclear = replace(camera, is_clear=torch.zeros((), dtype=torch.bool))
    assert (along_lines(unclear, points, detected, similarity, 2.0)[1] == -1.0).all()


def _texture(seed: int) -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(seed).random((_HEIGHT, _WIDTH)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3.0) * 6.0 - 2.5, np.float32)


@pytest.mark.parametrize("growth", [1.0, 1.15])
def test_the_image_decides_among_predictions(growth: float) -> None:
    count = 120
    centre, shift = np.array([320.0, 240.0]), np.array([9.0, -6.0])
    points = np.random.default_rng(1).uniform([120, 120], [_WIDTH - 120, _HEIGHT - 120], (count, 2))
    linear = growth * np.eye(2)
    true = (points - centre) @ linear.T + centre + shift
    image0 = _texture(0)
    warp = np.column_stack([linear, shift + centre - linear @ centre]).astype(np.float32)
    image1 = cv2.warpAffine(image0, warp, (_WIDTH, _HEIGHT), flags=cv2.INTER_CUBIC)
    earlier = Views.of(torch.from_numpy(image0), _RESIZE, None).latest
    views = Views.of(torch.from_numpy(np.asarray(image1, np.float32)), _RESIZE, earlier)
    state = replace(_state(points), anchors=_tensor(points))
    slopes = torch.from_numpy((linear - np.eye(2)).T).float().expand(count, 3, 2, 2)
    # The neighbours are 30 px off, the depth 4 px, and the velocity is not known.
    guesses = np.stack([true + np.array([24.0, 18.0]), true + np.array([3.0, -2.6]), true], axis=1)
    known = torch.tensor([True, True, False]).expand(count, 3)
    rows = torch.arange(count)
    predictions = Predictions(_tensor(guesses.reshape(-1, 2)).reshape(count, 3, 2), slopes, known)
    every = torch.ones(count, dtype=torch.bool)
    starts, _ = approach(state, views, rows, predictions, every)
    errors = np.linalg.norm(starts.numpy() - true, axis=1)
    assert (errors < 1.0).mean() > 0.9
    chosen, _ = approach(state, views, rows, predictions, None)
    assert np.median(np.abs(np.linalg.norm(chosen.numpy() - guesses[:, 1], axis=1))) < 1e-3
    # In an image of something else, none is chosen for its likeness alone: they stay where they were predicted.
    other = Views.of(torch.from_numpy(_texture(5)), _RESIZE, views.latest)
    lost, _ = approach(state, other, rows, predictions, every)
    nearest = np.linalg.norm(lost.numpy()[:, None] - guesses[:, :2], axis=2).min(axis=1)
    assert (nearest < 5.0).all()


def test_places_along_a_line_span_the_depths_of_the_image() -> None:
    pixels, _ = _views([_SIDEWAYS], 448.0)
    state = _state(pixels[0])
    camera = _step(state, pixels[0], pixels[1], state.is_valid)
    wanted = torch.arange(len(pixels[0])) % 2 == 0
    places = spread(camera, state.points, wanted, 5)
    assert torch.equal(places.is_known, wanted[:, None].expand(-1, 5))
    distances = (places.points - _tensor(pixels[1])[:, None]).norm(dim=2).amin(dim=1)
    gaps = (places.points[:, 1] - places.points[:, 0]).norm(dim=1)
    assert (distances <= 0.5 * gaps + 3.0).float().mean() > 0.97
