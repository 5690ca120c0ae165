"""Whether a difference between two configurations is distinguished from chance."""

from __future__ import annotations

import numpy as np
import pytest

from feature_frontend_lab.evaluation.tracks.metrics import paired_difference


def test_a_shift_that_all_pairs_share_is_no_chance() -> None:
    reference = np.random.default_rng(0).exponential(1.0, 20)
    difference = paired_difference((reference - 0.1).tolist(), reference.tolist())
    assert difference.mean == pytest.approx(-0.1)
    assert difference.low == pytest.approx(-0.1)
    assert difference.high == pytest.approx(-0.1)
    assert difference.verdict == "smaller"
    assert paired_difference(reference.tolist(), (reference - 0.1).tolist()).verdict == "larger"


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        difference = paired_difference(rng.normal(0.3, 1.0, 40).tolist(), [0.0] * 40)
        held += difference.low <= 0.3 <= difference.high
    assert 0.88 <= held / 200 <= 0.99


def test_the_same_errors_give_the_same_interval() -> None:
    errors, reference = np.random.default_rng(2).exponential(1.0, (2, 12)).tolist()
    assert paired_difference(errors, reference) == paired_difference(errors, reference)


def test_pairs_without_a_direction_are_left_out() -> None:
    nan = float("nan")
    difference = paired_difference([1.0, nan, 3.0, 2.0, 5.0, 4.0, 1.0], [0.0, 1.0, nan, 1.0, 4.0, 3.0, 0.0])
    assert difference.mean == pytest.approx(1.0)
    assert difference.verdict == "larger"


@pytest.mark.parametrize("count", [0, 4])
def test_of_few_pairs_nothing_is_said(count: int) -> None:
    difference = paired_difference([2.0] * count, [1.0] * count)
    assert np.isnan([difference.low, difference.high]).all()
    assert np.isnan(difference.mean) == (count == 0)
    assert difference.verdict == "alike"


def test_errors_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="2 errors and 3 to compare with"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])
