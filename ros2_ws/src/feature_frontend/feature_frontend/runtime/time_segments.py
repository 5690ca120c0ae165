"""Assigns the messages of two topics to common time segments if stamps go back, as in a looping bag."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TimeSegments", "TimeSegmentsState"]

# Messages of both topics together: a second at 30 Hz. If both topics go back, one lags the other by less.
MOST_APART = 60


@dataclass(frozen=True)
class TimeSegmentsState:
    """State of a `TimeSegments`.

    Attributes:
        stamps_ns: Stamp of the latest message of each topic; None before the first message.
        runs: Time segments of the same messages.
        apart: Number of messages since both topics were last in the same segment.
    """

    stamps_ns: tuple[int | None, int | None] = (None, None)
    runs: tuple[int, int] = (0, 0)
    apart: int = 0


class TimeSegments:
    """Numbers the time segments of two topics, 0 and 1, whose messages belong together by stamp. Not thread-safe.

    A segment ends when the stamps of a topic go back. The n-th jump back of one topic corresponds to the n-th of the
    other, in whatever order the messages arrive. If the topics stay in different segments for `MOST_APART` messages,
    only one has gone back, because of an out-of-order message or a separate clock: the other topic then joins its
    segment. So does the first message of a topic.

    Attributes:
        state: Everything another object needs to continue.
    """

    def __init__(self) -> None:
        self.state = TimeSegmentsState()

    def note(self, topic: int, stamp_ns: int) -> int:
        """Records the next message of topic 0 or 1. Returns its time segment, counted from 0."""
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
        self.state = TimeSegmentsState((stamps_ns[0], stamps_ns[1]), (runs[0], runs[1]), apart)
        return run
