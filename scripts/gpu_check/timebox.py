"""Distributes a part's time over its steps, and a step's time over its settings, earlier ones first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch

from scripts.gpu_check.errors import describe_error, first_line
from scripts.gpu_check.step import Context, LeftOutError, Outcome, Step

__all__ = ["Piece", "TimeBox", "as_steps"]

T = TypeVar("T")
# A setting may take somewhat longer than the longest so far.
_CAUTION = 1.2
_MOST_NAMES = 3  # listed in a text line; the data lists all


class TimeBox:
    """The time of one step, in which it processes as many settings as fit.

    Args:
        seconds: Duration from now.

    Attributes:
        left_out: Names of the settings that did not fit.
        errors: Exceptions raised by settings, each with its name, in one line.
        traceback: The same in full, in lines.
    """

    def __init__(self, seconds: float) -> None:
        self._end_s = time.monotonic() + seconds
        self.left_out: list[str] = []
        self.errors: list[str] = []
        self.traceback: list[str] = []

    @property
    def left_s(self) -> float:
        """Remaining seconds, at least 0."""
        return max(self._end_s - time.monotonic(), 0.0)

    def each(self, settings: Iterable[T], name: Callable[[T], str] = str) -> Iterator[T]:
        """The settings in order while the longest so far would still fit; the first one always."""
        longest_s = 0.0
        waiting = list(settings)
        for number, setting in enumerate(waiting):
            if number and self.left_s < _CAUTION * longest_s:
                self.left_out += [name(other) for other in waiting[number:]]
                return
            start_s = time.monotonic()
            yield setting
            longest_s = max(longest_s, time.monotonic() - start_s)

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Records an exception in its block and continues: one setting must not hide the others' results."""
        try:
            yield
        except LeftOutError:
            raise
        except Exception as error:
            self.errors.append(f"{name}: {first_line(error)}")
            self.traceback += [f"{name}:", *describe_error(error)]


@dataclass(frozen=True)
class Piece:
    """A step with a fraction of the part's time.

    Attributes:
        name: Name of the step.
        run: Runs it within the box.
        weight: Its fraction of the remaining time is its weight divided by the sum of its own and all later weights.
        limit_s: Like `Step.limit_s`.
    """

    name: str
    run: Callable[[Context, TimeBox], Outcome]
    weight: float
    limit_s: float = 60.0


def as_steps(pieces: Sequence[Piece]) -> list[Step]:
    """Converts the pieces to steps, each with its fraction of the part's remaining time at its start."""
    weights = [piece.weight for piece in pieces]
    return [
        Step(
            piece.name,
            partial(_run, piece.run, piece.weight / sum(weights[number:])),
            limit_s=piece.limit_s,
        )
        for number, piece in enumerate(pieces)
    ]


def _run(run: Callable[[Context, TimeBox], Outcome], fraction: float, context: Context) -> Outcome:
    if context.is_rehearsal:
        # On a shared CPU, threads waiting for each other take several times as long as one.
        torch.set_num_threads(1)
    box = TimeBox(fraction * context.left_s)
    try:
        outcome = run(context, box)
    except LeftOutError:
        raise
    except Exception as error:
        if not box.errors:
            raise
        # A step without any results.
        outcome = Outcome(passed=False, text=first_line(error))
    if box.errors:
        text = f"{outcome.text}; RAISED: {'; '.join(box.errors)}"
        outcome = replace(outcome, passed=False, text=text, data={**outcome.data, "traceback": box.traceback})
    if not box.left_out:
        return outcome
    shown = box.left_out[:_MOST_NAMES]
    more = f" and {len(box.left_out) - len(shown)} more" if len(box.left_out) > len(shown) else ""
    text = f"{outcome.text}; no time for {', '.join(shown)}{more}"
    return replace(outcome, text=text, data={**outcome.data, "no_time_for": box.left_out})
