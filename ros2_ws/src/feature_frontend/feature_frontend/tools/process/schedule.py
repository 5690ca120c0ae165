"""Processes all inputs by a scheduler, of this machine or of a cluster: first whole ones, long bags then in pieces."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import Any, Protocol

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.tools.process.progress_store import BusyError
from feature_frontend.tools.process.request import Outcome, Part, PieceDone, Reporter, Request, Work
from feature_frontend.tools.process.run import do

__all__ = ["Answer", "Scheduler", "answer_of", "process_all"]

Answer = Mapping[str, Any]
"""What comes of a unit of work, for JSON: an "outcome", a "cut", a "piece", or an "error"."""


class Scheduler(AbstractContextManager["Scheduler"], Protocol):
    """Does units of work, several at a time, anywhere; leaving the context ends those that are not done."""

    @property
    def width(self) -> int:
        """How many units of work it can do at a time, now."""

    def submit(self, work: Work) -> None:
        """Accepts a unit of work, to be done as soon as possible."""

    def wait(self) -> tuple[Work, Answer]:
        """Waits until one of the accepted units of work is done."""


class Watcher(Protocol):
    """Learns how many inputs are done."""

    def ended(self, inputs: int) -> None:
        """Adds a number of inputs that are done or have failed."""


def answer_of(work: Work, reporter: Reporter, patience_s: float = 0.0) -> Answer:
    """Does a unit of work, in whatever process this is; waits for so long while another one has hold of the output."""
    until_s = time.monotonic() + patience_s
    while True:
        try:
            result = do(work, reporter)
            break
        except BusyError as error:
            if time.monotonic() >= until_s:
                return {"error": str(error)}
        except FeatureFrontendError as error:
            return {"error": str(error)}
    if isinstance(result, Outcome):
        return {"outcome": asdict(result)}
    if isinstance(result, PieceDone):
        return {"piece": asdict(result)}
    return {"cut": asdict(result)}


def process_all(
    requests: Sequence[Request], scheduler: Scheduler, watcher: Watcher
) -> list[Outcome | FeatureFrontendError]:
    """Processes all requests and returns their outcomes in order; a failed request does not stop the others.

    Args:
        requests: With distinct outputs.
        scheduler: Does the work.
        watcher: Receives the progress in inputs.
    """
    numbers = {request.output: number for number, request in enumerate(requests)}
    results: dict[int, Outcome | FeatureFrontendError] = {}
    inputs, pieces = deque(Work(request) for request in requests), deque[Work]()
    left: dict[int, set[int]] = {}
    running = 0
    while len(results) < len(requests):
        # Not all at once: what a machine has copied of a bag is still there when its pieces are processed.
        while (pieces or inputs) and running < 2 * scheduler.width:
            scheduler.submit(pieces.popleft() if pieces else inputs.popleft())
            running += 1
        work, answer = scheduler.wait()
        running -= 1
        number = numbers[work.request.output]
        if number in results:
            continue
        if "cut" in answer:
            parts = tuple(Part(**part) for part in answer["cut"]["parts"])
            request = replace(work.request, settings=answer["cut"]["settings"])
            left[number] = {part.number for part in parts}
            pieces += (Work(request, part, parts) for part in (parts[:1] if parts[0].in_order else parts))
        elif "piece" in answer:
            done = answer["piece"]["number"]
            left[number].discard(done)
            if not left[number]:
                pieces.appendleft(replace(work, part=None))
            elif work.parts[done].in_order:
                pieces.appendleft(replace(work, part=work.parts[done + 1]))
        else:
            outcome = answer.get("outcome")
            results[number] = FeatureFrontendError(answer["error"]) if outcome is None else Outcome(**outcome)
            # Of a bag whose piece has failed.
            pieces = deque(piece for piece in pieces if piece.request.output != work.request.output)
            watcher.ended(1)
    return [results[number] for number in range(len(requests))]
