"""Durations, ratios and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ratios import compare, median_interval
from benchmarks.types import Timing

_DURATIONS = st.lists(st.floats(0.001, 1e4), min_size=1, max_size=60)


@given(_DURATIONS)
def test_statistics_are_numpys(samples: list[float]) -> None:
    timing = Timing("x", tuple(samples))
    first, median, third, p95, p99 = np.percentile(samples, [25, 50, 75, 95, 99])
    assert timing.median == pytest.approx(median)
    assert timing.iqr == pytest.approx(third - first)
    assert timing.p95 == pytest.approx(p95)
    assert timing.p99 == pytest.approx(p99)
    assert timing.as_json()["samples_ms"] == samples


def test_a_timing_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        Timing("x", ())


def test_the_ratio_pairs_rounds() -> None:
    ours, peer = Timing("ours", (1.0, 2.0, 10.0)), Timing("peer", (4.0, 6.0, 20.0))
    ratio = compare(peer, ours)
    assert ratio.of_rounds == 3.0  # of 4, 3 and 2
    assert ratio.of_medians == 3.0  # 6 / 2
    assert ratio.low is None
    assert ratio.high is None
    assert str(ratio) == "3.00"


def test_ratios_of_different_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="2 of a and 1 of b"):
        compare(Timing("a", (1.0, 2.0)), Timing("b", (1.0,)))


@pytest.mark.parametrize(("count", "ranks"), [(5, None), (6, (1, 6)), (10, (2, 9)), (30, (10, 21)), (100, (40, 61))])
def test_the_interval_has_the_ranks_of_the_sign_test(count: int, ranks: tuple[int, int] | None) -> None:
    """Ranks as tables of the sign test print them, for 95 %."""
    samples = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    assert median_interval(samples.tolist()) == ranks


@pytest.mark.parametrize("count", [6, 9, 12, 31])
def test_the_interval_holds_the_median_as_often_as_it_says(count: int) -> None:
    low_rank, _ = median_interval([float(value) for value in range(1, count + 1)]) or (0.0, 0.0)
    missed = 2 * sum(math.comb(count, below) for below in range(int(low_rank))) / 2**count
    assert missed <= 0.05
    # One rank further in would be too narrow.
    assert 2 * sum(math.comb(count, below) for below in range(int(low_rank) + 1)) / 2**count > 0.05
