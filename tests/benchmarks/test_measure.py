"""The order in which engines run, and what counts as their time."""

from __future__ import annotations

import gc

import pytest

from benchmarks.measure import interleave


class _Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def advance_ms(self, milliseconds: float) -> None:
        self.now_ns += round(milliseconds * 1e6)


def test_engines_take_turns_on_the_same_input() -> None:
    calls: list[tuple[str, int]] = []
    engines = {name: (lambda number, name=name: calls.append((name, number))) for name in "ABC"}
    timings = interleave(engines, 2, warmup=1)
    assert calls == [(name, number) for number in (0, 0, 1) for name in "ABC"]
    assert {name: len(timing.samples_ms) for name, timing in timings.items()} == {"A": 2, "B": 2, "C": 2}


def test_a_duration_holds_the_call_and_the_wait_for_the_device_and_nothing_else() -> None:
    clock = _Clock()
    pending_ms = [0.0]

    def work(number: int) -> int:
        clock.advance_ms(1)
        pending_ms[0] += 10 * (number + 1)  # left to a device
        return number

    def synchronize() -> None:
        clock.advance_ms(pending_ms[0])
        pending_ms[0] = 0.0

    def untimed(_: int) -> None:
        pending_ms[0] += 500

    engines = {"timed": work, "other": untimed}
    results = []
    timings = interleave(
        engines,
        3,
        warmup=2,
        synchronize=synchronize,
        inspect=lambda name, result: (results.append((name, result)), clock.advance_ms(1000))[0],
        clock_ns=clock,
    )
    assert timings["timed"].samples_ms == (11.0, 21.0, 31.0)
    assert timings["other"].samples_ms == (500.0, 500.0, 500.0)
    assert results[:2] == [("timed", 0), ("other", None)]


def test_the_collector_is_off_while_timing_and_on_again_after_an_error() -> None:
    states = []

    def fail(_: int) -> None:
        states.append(gc.isenabled())
        msg = "boom"
        raise RuntimeError(msg)

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="boom"):
        interleave({"A": fail}, 1)
    assert states == [False]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        interleave({"A": lambda _: None}, 0)
