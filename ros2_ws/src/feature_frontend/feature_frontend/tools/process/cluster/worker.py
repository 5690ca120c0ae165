"""What runs on the machines of a cluster: a unit of work, and the count of what is done."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from feature_frontend.tools.process.job import differences, environment
from feature_frontend.tools.process.request import Reporter, Work
from feature_frontend.tools.process.schedule import Answer, answer_of

__all__ = ["Tally", "work"]

_REPORT_PERIOD_S = 1.0
# How long the process of a machine that is lost, or of a try before this one, may keep hold of an output.
_PATIENCE_S = 60.0


class Tally:
    """Counts the images of all units of work; an actor of Ray. Whatever it loses changes no result."""

    def __init__(self) -> None:
        self._counts: dict[int, tuple[int, int]] = {}
        self._done: set[int] = set()
        self._texts: list[str] = []

    def record(self, number: int, here: int, earlier: int, texts: Sequence[str], *, is_last: bool = False) -> None:
        """Replaces the counts of a unit of work, by its number: images processed here, and by an earlier run."""
        self._texts += texts
        # Calls from several processes come in any order.
        if is_last or number not in self._done:
            self._counts[number] = here, earlier
        if is_last:
            self._done.add(number)

    def take(self) -> tuple[int, int, list[str]]:
        """The sums of all counts, and the texts since the last call."""
        texts, self._texts = self._texts, []
        return sum(here for here, _ in self._counts.values()), sum(more for _, more in self._counts.values()), texts


def work(number: int, unit: Mapping[str, Any], expected: Mapping[str, Any], folder: str, tally: Any) -> Answer:
    """Does a unit of work.

    Args:
        number: Of the unit.
        unit: The unit as JSON.
        expected: The `environment` of the machine that has asked for it: all must make the same bytes.
        folder: Working folder there, to which paths of files in the options are relative.
        tally: The actor for the progress.

    Returns:
        The answer, as its "machine" Ray's id of this one, and as its "progress" the last arguments of `Tally.record`.
        They are not sent from here: Ray gives the CPU of a task that waits to another process, with a torch of its own.
    """
    with suppress(OSError):
        os.chdir(folder)
    differing = differences(expected, environment())
    if differing:
        return {
            "error": f"machine {socket.gethostname()} of the cluster differs from this one in {', '.join(differing)}, "
            "and would give other bytes; install the same versions on machines of one kind"
        }
    reporter = _TallyReporter(number, tally)
    answer = answer_of(Work.from_json(unit), reporter, _PATIENCE_S)
    import ray

    return {**answer, "progress": reporter.take(), "machine": ray.get_runtime_context().get_node_id()}


class _TallyReporter(Reporter):
    """Sends its counts to the tally about once a second."""

    def __init__(self, number: int, tally: Any) -> None:
        self._number = number
        self._tally = tally
        self._here = self._earlier = 0
        self._texts: list[str] = []
        self._sent_s = time.monotonic()

    def done(self, images: int, *, earlier: bool = False) -> None:
        if earlier:
            self._earlier += images
        else:
            self._here += images
        if time.monotonic() >= self._sent_s + _REPORT_PERIOD_S:
            # The tally may be lost with its machine.
            with suppress(Exception):
                self._tally.record.remote(*self.take())

    def say(self, text: str) -> None:
        self._texts.append(text)

    def take(self) -> tuple[int, int, int, list[str]]:
        """The arguments of `Tally.record` for the counts so far, with the texts since the last call."""
        texts, self._texts = self._texts, []
        self._sent_s = time.monotonic()
        return self._number, self._here, self._earlier, texts
