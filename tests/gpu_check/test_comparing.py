"""The comparisons detect differences: each gets a broken input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from feature_frontend.types import Features, FrameResult, FrameState, Matches, StageTimes, Tracks
from scripts.gpu_check.right.comparing import compare_features, compare_matches, compare_sequences, fingerprint
from tests.tolerances import DEVICE

_COUNT = 200


def _features(seed: int = 0, count: int = _COUNT) -> Features:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand((count, 2), generator=generator) * torch.tensor([640.0, 480.0])
    descriptors = torch.nn.functional.normalize(torch.randn((count, 32), generator=generator))
    return Features(points, torch.rand(count, generator=generator), descriptors, 480, 640, "test@0")


def _spoiled(features: Features, what: str, rows: slice) -> Features:
    parts = {name: getattr(features, name).clone() for name in ("keypoints", "scores", "descriptors")}
    if what == "keypoints":
        parts[what][rows] += 3 * DEVICE.position_px
    elif what == "scores":
        parts[what][rows] += 3 * DEVICE.score
    else:
        parts[what][rows] = -parts[what][rows]
    return replace(features, **parts)


@pytest.mark.parametrize("what", ["keypoints", "scores", "descriptors"])
def test_features_differ_where_more_than_a_few_points_do(what: str) -> None:
    features = _features()
    assert compare_features(features, features).passes
    few, many = (_spoiled(features, what, slice(0, count)) for count in (1, 5))
    assert compare_features(features, few).passes
    found = compare_features(features, many)
    assert not found.passes
    assert found.fraction == pytest.approx(1 - 5 / _COUNT)


def test_order_does_not_matter_but_missing_and_additional_points_do() -> None:
    features = _features()
    order = torch.randperm(_COUNT, generator=torch.Generator().manual_seed(1))
    shuffled = replace(
        features,
        keypoints=features.keypoints[order],
        scores=features.scores[order],
        descriptors=features.descriptors[order],
    )
    assert compare_features(features, shuffled).fraction == 1
    half = replace(
        features,
        keypoints=features.keypoints[:100],
        scores=features.scores[:100],
        descriptors=features.descriptors[:100],
    )
    assert not compare_features(features, half).passes
    assert not compare_features(half, features).passes


def test_nothing_agrees_with_nothing_alone() -> None:
    features, nothing = _features(), _features(count=0)
    assert compare_features(nothing, nothing).passes
    assert not compare_features(features, nothing).passes
    assert not compare_features(nothing, features).passes


def test_what_is_not_a_number_agrees_with_nothing() -> None:
    features = _features()
    for name in ("keypoints", "scores", "descriptors"):
        assert not compare_features(features, replace(features, **{name: getattr(features, name) * torch.nan})).passes


def _matches(count: int = _COUNT, shift: int = 0, similarity: float = 0.9) -> Matches:
    rows = torch.arange(count)
    return Matches(rows, (rows + shift) % _COUNT, torch.full((count,), similarity), torch.ones(count), "test")


def test_matches_differ_by_pairs_and_by_similarity() -> None:
    assert compare_matches(_matches(), _matches()).passes
    assert compare_matches(_matches(), _matches(_COUNT - 1)).passes
    assert not compare_matches(_matches(), _matches(_COUNT - 5)).passes
    assert not compare_matches(_matches(), _matches(shift=1)).passes
    assert not compare_matches(_matches(), _matches(similarity=0.9 + 3 * DEVICE.similarity)).passes
    assert not compare_matches(_matches(), _matches(similarity=float("nan"))).passes
    assert compare_matches(_matches(0), _matches(0)).passes
    assert not compare_matches(_matches(), _matches(0)).passes


def _result(features: Features, shift: int = 0, age: int = 3) -> FrameResult:
    matches = _matches(len(features), shift)
    tracks = replace(Tracks.empty(), ids=np.arange(5, dtype=np.uint64), ages=np.full(5, age, np.uint32))
    state, times = FrameState.OK, StageTimes(0.0, 0.0, 0.0)
    return FrameResult(state, "", features, matches, features.keypoints, None, tracks, times)


def test_sequences_differ_by_points_by_matches_and_by_ages() -> None:
    features = _features()
    expected = [_result(features)] * 3

    def passes(worst: FrameResult, least: float = 0.9) -> bool:
        return compare_sequences(expected, [*expected[:2], worst], least_points=least, least_links=least).passes

    def moved(count: int) -> FrameResult:
        shift = torch.where(torch.arange(_COUNT) < count, 1.0, 0.0)[:, None]
        return _result(replace(features, keypoints=features.keypoints + shift))

    assert passes(_result(features), least=1.0)
    assert passes(moved(10))
    assert not passes(moved(10), least=0.99)
    assert not passes(moved(30))
    assert not passes(_result(features, shift=1))
    assert not passes(_result(features, age=4))
    assert not passes(_result(_features(count=0)))


def test_fingerprints_differ_by_a_bit_by_type_and_by_shape() -> None:
    tensor = torch.arange(6, dtype=torch.float32)
    changed = tensor.clone()
    changed[3] = torch.nextafter(changed[3], torch.tensor(9.0))
    others = [changed, tensor.to(torch.bfloat16), tensor.reshape(2, 3), tensor[:0], -tensor]
    prints = {fingerprint(each) for each in (tensor, *others)}
    assert len(prints) == 1 + len(others)
    assert fingerprint(tensor) == fingerprint(tensor.clone())
    assert fingerprint(tensor, changed) != fingerprint(changed, tensor)
