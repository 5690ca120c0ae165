"""The usual interval between the images of a stream, and which intervals are gaps."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from feature_frontend.runtime.snapshot import require

__all__ = ["GAP_RATIO", "WINDOW", "RhythmState", "StreamRhythm"]

# An interval longer than this many median intervals is long.
GAP_RATIO = 5
# Number of intervals in the median: few, so that it adapts to a camera whose rate changes.
WINDOW = 9


@dataclass(frozen=True)
class RhythmState:
    """What a `StreamRhythm` remembers: the latest usual intervals, and the latest one if it was long; ns."""

    usual_ns: tuple[int, ...] = ()
    long_ns: int | None = None


class StreamRhythm:
    """Tells long intervals from usual ones by the median of the latest `WINDOW` usual ones.

    The median excludes long intervals. Two similar long intervals in a row (within `GAP_RATIO`) are not gaps but a new
    rate: the second one is usual. The first interval is never long: a slow stream does not start with a gap.
    """

    def __init__(self) -> None:
        self._state = RhythmState()

    def is_long(self, interval_ns: int) -> bool:
        """Whether an interval > 0 ns exceeds `GAP_RATIO` medians and does not start a new rate."""
        return self._exceeds_median(interval_ns) and not self._is_like_latest_long(interval_ns)

    def add(self, interval_ns: int) -> None:
        """Adds the next interval of the stream, > 0 ns."""
        usual_ns = self._state.usual_ns
        if self.is_long(interval_ns):
            self._state = RhythmState(usual_ns, interval_ns)
        elif self._state.long_ns is not None and self._exceeds_median(interval_ns):
            self._state = RhythmState((self._state.long_ns, interval_ns))
        else:
            self._state = RhythmState((*usual_ns, interval_ns)[-WINDOW:])

    def forget(self) -> None:
        """Discards all intervals: another stream may follow."""
        self._state = RhythmState()

    def get_state(self) -> RhythmState:
        """The state that another instance needs to continue."""
        return self._state

    def set_state(self, state: RhythmState) -> None:
        """Continues from the state of another instance.

        Raises:
            SnapshotError: The state is invalid.
        """
        long_ns = () if state.long_ns is None else (state.long_ns,)
        require(
            len(state.usual_ns) <= WINDOW and all(interval_ns > 0 for interval_ns in (*state.usual_ns, *long_ns)),
            f"at most {WINDOW} intervals, above 0 ns",
        )
        self._state = state

    def _exceeds_median(self, interval_ns: int) -> bool:
        # median_high: when in doubt, treat a slow stream as gapless.
        usual_ns = self._state.usual_ns
        return bool(usual_ns) and interval_ns > GAP_RATIO * statistics.median_high(usual_ns)

    def _is_like_latest_long(self, interval_ns: int) -> bool:
        long_ns = self._state.long_ns
        return long_ns is not None and long_ns <= GAP_RATIO * interval_ns <= GAP_RATIO**2 * long_ns
