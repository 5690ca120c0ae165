"""Checks that engines compute the same: keypoints, descriptors, pairs."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.agreement import DisagreementError, compare_found
from benchmarks.engines.extraction import Found
from benchmarks.ties import compare_pairs


def _found(count: int = 50, seed: int = 0) -> Found:
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, 16)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    grid = np.stack(np.meshgrid(np.arange(10), np.arange(count // 10)), axis=-1).reshape(-1, 2) * 8.0
    return Found(rng.permutation(grid).astype(np.float32), descriptors)


def test_what_is_the_same_agrees() -> None:
    found = _found()
    agreement = compare_found(found, Found(found.keypoints + np.float32(0.1), found.descriptors))
    assert agreement.fraction == agreement.strongest_fraction == 1.0
    assert agreement.median_cosine == pytest.approx(1.0, abs=1e-6)
    agreement.check("other")


def test_keypoints_beyond_the_budget_may_differ_but_the_best_may_not() -> None:
    found = _found()
    moved = found.keypoints.copy()
    moved[40:] += 4.0  # the weakest tenth and one more
    weak = compare_found(found, Found(moved, found.descriptors))
    assert weak.fraction == 0.8
    weak.check("other")
    moved = found.keypoints.copy()
    moved[:5] += 4.0
    with pytest.raises(DisagreementError, match=r"kornia .*80\.0%"):
        compare_found(found, Found(moved, found.descriptors)).check("kornia")


def test_other_descriptors_are_another_network() -> None:
    found = _found()
    with pytest.raises(DisagreementError, match="median cosine"):
        compare_found(found, Found(found.keypoints, _found(seed=1).descriptors)).check("other")


def test_nothing_found_does_not_compare() -> None:
    nothing = Found(np.zeros((0, 2), np.float32), np.zeros((0, 16), np.float32))
    with pytest.raises(DisagreementError, match="50 and 0 keypoints"):
        compare_found(_found(), nothing)


def test_pairs_may_differ_in_ties_only() -> None:
    descriptors0 = np.eye(4, dtype=np.float32)[:3]
    descriptors1 = descriptors0[[0, 1, 2, 2]]  # the last two are rivals
    same = np.array([[0, 0], [1, 1], [2, 2]])
    tied = np.array([[0, 0], [1, 1], [2, 3]])
    wrong = np.array([[0, 1], [1, 0], [2, 2]])
    assert compare_pairs(same, same, descriptors0, descriptors1).differing == 0
    ties = compare_pairs(same, tied, descriptors0, descriptors1)
    assert (ties.pairs, ties.differing, ties.ties) == (3, 2, 2)
    assert ties.is_same
    differing = compare_pairs(same, wrong, descriptors0, descriptors1)
    assert (differing.differing, differing.ties) == (4, 0)
    assert not differing.is_same
