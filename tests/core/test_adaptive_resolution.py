"""The deadline's control law, with a simulated camera whose processing time is proportional to the pixels."""

from __future__ import annotations

from itertools import pairwise

import pytest

from feature_frontend.runtime.adaptive_resolution import LatencyController, Step

_PERIOD_S = 0.1


def _drive(
    keeper: LatencyController, full_ms: float, deadline_ms: float, seconds: float, begin_s: float = 0.0
) -> list[Step]:
    """Steps of a stream in which a frame at the full size takes `full_ms`."""
    steps = []
    for number in range(round(seconds / _PERIOD_S)):
        step = keeper.note(full_ms * keeper.fraction, begin_s + number * _PERIOD_S, deadline_ms)
        if step is not None:
            steps.append(step)
    return steps


def test_frames_in_time_change_nothing() -> None:
    keeper = LatencyController()
    assert _drive(keeper, 80, 100, 120) == []
    assert keeper.fraction == 1


def test_late_frames_make_the_image_smaller_until_they_are_in_time() -> None:
    keeper = LatencyController()
    steps = _drive(keeper, 150, 100, 4)
    assert [step.fraction for step in steps] == pytest.approx([0.7, 0.49])
    assert 150 * keeper.fraction <= 100
    assert steps[0].reason == (
        "frames took longer than deadline_ms (100 ms) for 1 s: the network now sees at most 70% of its usual pixels"
    )


def test_it_does_not_go_up_and_down() -> None:
    # At 0.7 a frame takes 77 ms, above the room of 60: a step up would be late.
    keeper = LatencyController()
    assert len(_drive(keeper, 110, 100, 300)) == 1


def test_the_full_size_comes_back_when_there_is_time_again() -> None:
    keeper = LatencyController()
    _drive(keeper, 300, 100, 10)
    assert keeper.fraction < 0.4
    steps = _drive(keeper, 20, 100, 30, begin_s=10)
    assert keeper.fraction == 1
    assert "there was room below deadline_ms (100 ms) for 3 s" in steps[0].reason


def test_a_step_up_that_fails_makes_the_next_one_wait() -> None:
    """Frames have room at the smaller size only: their time does not go with their pixels."""
    keeper, ups, now_s = LatencyController(), [], 0.0
    for _ in range(3000):
        now_s += _PERIOD_S
        fraction = keeper.fraction
        step = keeper.note(150 if fraction == 1 else 20, now_s, 100)
        if step is not None and step.fraction > fraction:
            ups.append(now_s)
    waits = [later - earlier for earlier, later in pairwise(ups)]
    assert len(waits) >= 4
    assert waits[1] > 1.5 * waits[0]
    assert max(waits) < 65


def test_it_ends_somewhere_and_single_late_frames_do_not_count() -> None:
    keeper = LatencyController()
    _drive(keeper, 10_000, 1, 60)
    assert keeper.fraction == pytest.approx(0.7**6)
    calm = LatencyController()
    for number in range(200):
        assert calm.note(500 if number % 5 == 0 else 70, number * _PERIOD_S, 100) is None


def test_without_a_deadline_the_whole_image_comes_back_at_once() -> None:
    keeper = LatencyController()
    assert _drive(keeper, 500, 0, 5) == []
    _drive(keeper, 500, 100, 3)
    step = keeper.note(50, 4.0, 0)
    assert step == Step(1.0, "deadline_ms is off: the network sees its usual pixels again")
    assert keeper.note(50, 5.0, 0) is None
