"""Distribution of time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from scripts.gpu_check import timebox
from scripts.gpu_check.step import Context, Outcome
from scripts.gpu_check.timebox import Piece, TimeBox, as_steps


class _Clock:
    """Time that goes on only when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """As many as before, behind a rehearsal."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(timebox.time, "monotonic", clock.monotonic)
    return clock


def test_settings_are_done_while_the_longest_so_far_still_fits(clock: _Clock) -> None:
    box, done = TimeBox(10.0), []
    for seconds in box.each([1.0, 3.0, 2.0, 2.0, 2.0], "{:g}".format):
        done.append(seconds)
        clock.now_s += seconds
    # Behind 1 + 3 + 2 s there are 4 s, room for 3.6; behind 2 more there are 2.
    assert done == [1.0, 3.0, 2.0, 2.0]
    assert box.left_out == ["2"]


def test_the_first_setting_is_done_in_any_case(clock: _Clock) -> None:
    box = TimeBox(0.0)
    done = []
    for name in box.each(["a", "b", "c"]):
        done.append(name)
        clock.now_s += 1
    assert (done, box.left_out) == (["a"], ["b", "c"])


def test_a_step_has_its_share_of_what_is_left_and_names_what_it_left_out(clock: _Clock) -> None:
    given: dict[str, float] = {}

    def run(context: Context, box: TimeBox) -> Outcome:
        given[f"{len(given)}"] = box.left_s
        for _ in box.each(range(6), lambda number: f"setting {number}"):
            clock.now_s += box.left_s
        return Outcome(passed=True, text="done")

    context = Context("cpu", Path(), Path(), Path(), clock.now_s + 40)
    steps = as_steps([Piece("one", run, 3.0), Piece("two", run, 1.0)])
    outcome = steps[0].run(context)
    assert given == {"0": pytest.approx(30)}
    assert outcome.text == "done; no time for setting 1, setting 2, setting 3 and 2 more"
    assert outcome.data["no_time_for"] == [f"setting {number}" for number in range(1, 6)]
    steps[1].run(context)
    assert given["1"] == pytest.approx(10)


def test_a_box_counts_from_now() -> None:
    assert 0 < TimeBox(1e3).left_s <= 1e3
    assert TimeBox(-1).left_s == 0


def test_a_setting_that_raises_hides_no_other(tmp_path: Path) -> None:
    def run(context: Context, box: TimeBox) -> Outcome:
        del context
        done = []
        for number in box.each([1, 0, 2]):
            with box.attempt(f"number {number}"):
                done.append(1 // number)
        return Outcome(passed=True, text=f"{len(done)} done")

    (step,) = as_steps((Piece("divides", run, 1.0),))
    outcome = step.run(Context("cpu", tmp_path, tmp_path, tmp_path, time.monotonic() + 60))
    assert not outcome.passed
    assert outcome.text.startswith("2 done; RAISED: number 0: ZeroDivisionError: ")
    assert outcome.data["traceback"][0] == "number 0:"
    assert any("in run" in line for line in outcome.data["traceback"])
