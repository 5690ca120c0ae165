"""Anchors of the persistent tracker: the image that provides a point's template."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend.image.resize import Resize
from feature_frontend.tracking.lucas_kanade import match_templates
from feature_frontend.tracking.state import KEPT_IMAGES, TrackState, Views

FloatArray = npt.NDArray[np.float64]

_HEIGHT, _WIDTH, _POINTS = 240, 320, 150
_STEP_PX = np.array([1.3, -0.7])
_LINEAR = np.eye(2)
_NOISE = 0.01


def _texture() -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(0).random((_HEIGHT, _WIDTH)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 2.0) * 4.0 - 1.5, np.float32)


def _moved(image: npt.NDArray[np.float32], linear: FloatArray, shift: FloatArray, seed: int) -> torch.Tensor:
    """The image after a motion x -> linear x + shift, with noise."""
    warp = np.column_stack([linear, shift]).astype(np.float32)
    moved = cv2.warpAffine(image, warp, (_WIDTH, _HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    noise = np.random.default_rng(seed).normal(0.0, _NOISE, moved.shape)
    return torch.from_numpy((moved + noise).astype(np.float32))


def _seen(views: Views | None, image: torch.Tensor) -> Views:
    """`views` with one image more."""
    resize = Resize(_HEIGHT, _WIDTH, _HEIGHT, _WIDTH)
    return Views.of(image, resize, None if views is None else views.latest)


def _state(points: torch.Tensor) -> TrackState:
    number = len(points)
    empty = TrackState.empty(number, 1, points.device)
    return replace(empty, is_valid=torch.ones(number, dtype=torch.bool), points=points, anchors=points)


def _follow(count: int, *, is_anchored: bool, is_padded: bool = False, linear: FloatArray = _LINEAR) -> FloatArray:
    """(count, P) px, how far roughly detected points are from the truth in each of the images; NaN for lost ones."""
    image, every = _texture(), torch.ones(_POINTS, dtype=torch.bool)
    true = np.random.default_rng(1).uniform([60, 60], [_WIDTH - 60, _HEIGHT - 60], (_POINTS, 2))
    state = _state(torch.from_numpy(true).float())
    views = _seen(None, _moved(image, _LINEAR, np.zeros(2), 1))
    slopes = torch.from_numpy((linear - np.eye(2)).T).float().expand(_POINTS, 2, 2)
    total, shift, errors = np.eye(2), np.zeros(2), []
    for number in range(count):
        total, shift = linear @ total, linear @ shift + _STEP_PX
        true = true @ linear.T + _STEP_PX
        views = _seen(views, _moved(image, total, shift, 2 + number))
        detected = torch.from_numpy(true + np.random.default_rng(number).normal(0.0, 0.7, true.shape)).float()
        found = match_templates(state, views, every, every, detected, slopes, is_padded=is_padded)
        of_truth = np.linalg.norm(found.points.numpy() - true, axis=1)
        errors.append(np.where(found.is_found.numpy(), of_truth, np.nan))
        if is_anchored:
            state = replace(state, points=found.points, **found.anchored(state, found.points))
        else:
            state = _state(found.points)
    return np.array(errors)


@pytest.mark.parametrize("is_padded", [False, True])
def test_errors_do_not_add_up_while_the_anchor_holds(*, is_padded: bool) -> None:
    count = KEPT_IMAGES - 1
    anchored = np.nanmedian(_follow(count, is_anchored=True, is_padded=is_padded), axis=1)
    anew = np.nanmedian(_follow(count, is_anchored=False), axis=1)
    assert anchored[0] == pytest.approx(anew[0], abs=1e-6)
    assert anchored[-1] <= 1.5 * anchored[0]
    assert anew[-1] >= 1.5 * anchored[-1]


def test_an_anchor_is_bent_as_the_neighbours_moved() -> None:
    angle = np.radians(0.6)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    errors = _follow(12, is_anchored=True, linear=turn)
    assert np.isfinite(errors).mean() > 0.95
    assert np.nanmedian(errors[-1]) < 0.2


def _shares(state: TrackState, views: Views, slope: float = 0.0) -> tuple[float, float]:
    """Of points that have not moved, the share that is found and the share that keeps its anchor."""
    every = torch.ones(_POINTS, dtype=torch.bool)
    slopes = torch.full((_POINTS, 2, 2), slope)
    found = match_templates(state, views, every, every, state.points, slopes, is_padded=False)
    assert not (found.keeps_anchor & ~found.is_found).any()
    return float(found.is_found.float().mean()), float(found.keeps_anchor.float().mean())


def test_what_ends_an_anchor() -> None:
    image = _moved(_texture(), _LINEAR, np.zeros(2), 1)
    points = np.random.default_rng(1).uniform([60, 60], [_WIDTH - 60, _HEIGHT - 60], (_POINTS, 2))
    state = _state(torch.from_numpy(points).float())
    earlier = _seen(None, image)
    views = _seen(earlier, _moved(_texture(), _LINEAR, np.zeros(2), 2))
    assert min(_shares(state, views)) > 0.95
    assert _shares(state, replace(views, earlier=None)) == (0.0, 0.0)
    # Bent by too much, and too long ago for the image to be kept: found once more, and anchored again.
    assert _shares(state, views, slope=0.06)[1] == 0.0
    aged = replace(state, anchor_ages=torch.full((_POINTS,), KEPT_IMAGES - 2))
    later = _seen(None, image)
    for _ in range(KEPT_IMAGES - 2):
        later = _seen(later, torch.zeros_like(image))
    found, kept = _shares(aged, _seen(later, views.image))
    assert (found > 0.95, kept) == (True, 0.0)
    # Half of what is seen is something else: often found, but seldom alike enough.
    again = _seen(None, image)
    found, kept = _shares(state, _seen(again, 0.5 * image + 0.5 * image.flip(0)))
    assert 0.0 < kept < 0.6 * found
    # Where a point was missed in the image before, the detector alone says where it is.
    missed = replace(state, missed=torch.ones(_POINTS, dtype=torch.int64))
    assert _shares(missed, views) == (0.0, 0.0)


def test_each_anchor_is_looked_up_in_its_own_image() -> None:
    texture, views = _texture(), None
    for number in range(KEPT_IMAGES + 3):
        views = _seen(views, _moved(texture, _LINEAR, number * _STEP_PX, number))
    ages = torch.arange(_POINTS) % (KEPT_IMAGES - 1)
    points = np.random.default_rng(1).uniform([60, 60], [_WIDTH - 60, _HEIGHT - 60], (_POINTS, 2))
    anchors = points - ages.numpy()[:, None] * _STEP_PX
    state = replace(
        _state(torch.from_numpy(points).float()), anchors=torch.from_numpy(anchors).float(), anchor_ages=ages
    )
    views = _seen(views, _moved(texture, _LINEAR, (KEPT_IMAGES + 3) * _STEP_PX, 99))
    every = torch.ones(_POINTS, dtype=torch.bool)
    none = torch.zeros((_POINTS, 2, 2))
    true = torch.from_numpy(points + _STEP_PX).float()
    found = match_templates(state, views, every, ~every, true, none, is_padded=False)
    assert found.is_found.float().mean() > 0.95
    assert (found.points - true).norm(dim=1)[found.is_found].median() < 0.1
