"""Which messages of two topics are of one run of time, where stamps go back, as in a bag played in a loop."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RunsOfTime", "RunsState"]

# Of both topics together: a second of 30 Hz. One topic is behind the other by less when both of them go back.
MOST_APART = 60


@dataclass(frozen=True)
class RunsState:
    """What a `RunsOfTime` remembers.

    Attributes:
        stamps_ns: Of the latest message of each topic; None before the first one.
        runs: Of the same messages.
        apart: Messages since the two were last in one run.
    """

    stamps_ns: tuple[int | None, int | None] = (None, None)
    runs: tuple[int, int] = (0, 0)
    apart: int = 0


class RunsOfTime:
    """Numbers the runs of time of two topics, 0 and 1, whose messages belong together by stamp. Not thread-safe.

    A run ends where the stamps of a topic go back. The n-th time that one topic goes back is the n-th of the other, in
    whatever order the messages of the two arrive. Where they stay in different runs for `MOST_APART` messages, only one
    has gone back, by a message out of order or a clock of its own: the other joins it. So does the first message of a
    topic.

    Attributes:
        state: What another one needs to go on.
    """

    def __init__(self) -> None:
        self.state = RunsState()

    def note(self, topic: int, stamp_ns: int) -> int:
        """Takes the next message of topic 0 or 1; the run that it is of, from 0 on."""
        before, state = self.state.stamps_ns[topic], self.state
        run, other_run = state.runs[topic], state.runs[1 - topic]
        if before is not None and stamp_ns < before:
            run += 1
        if run < other_run and state.apart >= MOST_APART:
            run = other_run
        stamps_ns, runs = list(state.stamps_ns), list(state.runs)
        stamps_ns[topic], runs[topic] = stamp_ns, run
        if stamps_ns[1 - topic] is None:
            runs[1 - topic] = run
        apart = 0 if runs[0] == runs[1] else state.apart + 1
        self.state = RunsState((stamps_ns[0], stamps_ns[1]), (runs[0], runs[1]), apart)
        return run
