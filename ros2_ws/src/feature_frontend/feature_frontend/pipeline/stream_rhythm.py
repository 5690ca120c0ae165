"""How far apart the images of a stream usually are, and which intervals are gaps."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from feature_frontend.runtime.snapshot import require

__all__ = ["GAP_RATIO", "WINDOW", "RhythmState", "StreamRhythm"]

# An interval is long if it is more than so many median intervals.
GAP_RATIO = 5
# Intervals that the median is taken over: few, so that it follows a camera whose rate changes.
WINDOW = 9


@dataclass(frozen=True)
class RhythmState:
    """What a `StreamRhythm` remembers: the latest usual intervals, and the latest one if it was long; ns."""

    usual_ns: tuple[int, ...] = ()
    long_ns: int | None = None


class StreamRhythm:
    """Tells long intervals from usual ones by the median of the latest `WINDOW` usual ones.

    A long interval is left out of the median. Two in a row that are alike, within `GAP_RATIO`, are no gaps but another
    rate: the second one is usual. Without an interval to compare with, none is long: a slow stream has no gap at its
    start.
    """

    def __init__(self) -> None:
        self._state = RhythmState()

    def is_long(self, interval_ns: int) -> bool:
        """Whether an interval, above 0 ns, is more than `GAP_RATIO` median ones and begins no other rate."""
        return self._exceeds_median(interval_ns) and not self._is_like_latest_long(interval_ns)

    def add(self, interval_ns: int) -> None:
        """Takes the next interval of the stream, above 0 ns."""
        usual_ns = self._state.usual_ns
        if self.is_long(interval_ns):
            self._state = RhythmState(usual_ns, interval_ns)
        elif self._state.long_ns is not None and self._exceeds_median(interval_ns):
            self._state = RhythmState((self._state.long_ns, interval_ns))
        else:
            self._state = RhythmState((*usual_ns, interval_ns)[-WINDOW:])

    def forget(self) -> None:
        """Begins anew: another stream may come."""
        self._state = RhythmState()

    def get_state(self) -> RhythmState:
        """What another one needs to go on."""
        return self._state

    def set_state(self, state: RhythmState) -> None:
        """Goes on from the state of another one.

        Raises:
            SnapshotError: It is the state of none.
        """
        long_ns = () if state.long_ns is None else (state.long_ns,)
        require(
            len(state.usual_ns) <= WINDOW and all(interval_ns > 0 for interval_ns in (*state.usual_ns, *long_ns)),
            f"at most {WINDOW} intervals, above 0 ns",
        )
        self._state = state

    def _exceeds_median(self, interval_ns: int) -> bool:
        # Of an even number the larger one in the middle: rather no gap than one in a slow stream.
        usual_ns = self._state.usual_ns
        return bool(usual_ns) and interval_ns > GAP_RATIO * statistics.median_high(usual_ns)

    def _is_like_latest_long(self, interval_ns: int) -> bool:
        long_ns = self._state.long_ns
        return long_ns is not None and long_ns <= GAP_RATIO * interval_ns <= GAP_RATIO**2 * long_ns
