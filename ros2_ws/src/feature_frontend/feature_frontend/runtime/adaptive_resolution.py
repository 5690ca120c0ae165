"""Holding a deadline: the network gets a smaller image while frames take too long, a larger one when they do not."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median

__all__ = ["RateKeeper", "Step"]

# The network's time goes with its pixels: each step takes about a third of both.
_SHARE = 0.7
_MOST_STEPS = 6  # 0.7^6: an eighth of the pixels
_MISSED_S = 1.0
# A step up makes frames 1 / 0.7 times as long: only where that, and some, would still be in time.
_ROOM = 0.6
_FIRST_WAIT_S, _LONGEST_WAIT_S = 3.0, 60.0


@dataclass(frozen=True)
class Step:
    """A change of size.

    Attributes:
        share: Of its usual pixels that the network now sees at most, in (0, 1].
        reason: What status shall say of it.
    """

    share: float
    reason: str


class RateKeeper:
    """Decides on the network's size from the latency of frame after frame. Not thread-safe.

    When the median of a second is late, one step down. When the median of 3 s leaves room, one step up; each step up
    that has to be taken back doubles that wait, up to 60 s.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._frames: deque[tuple[float, float]] = deque()  # since the last step: time s, latency ms
        self._since_s: float | None = None
        self._wait_s = _FIRST_WAIT_S
        self._went_up = False

    @property
    def share(self) -> float:
        """Of its usual pixels that the network sees at most, in (0, 1]."""
        return float(_SHARE**self._steps)

    def note(self, latency_ms: float, now_s: float, deadline_ms: float) -> Step | None:
        """Takes note of a frame; a step if it is time for one.

        Args:
            latency_ms: From the image's arrival to its results.
            now_s: On a monotonic clock.
            deadline_ms: 0 for none: the full size comes back at once.
        """
        if deadline_ms <= 0:
            return self._turn_off()
        if self._since_s is None:
            self._since_s = now_s
        self._frames.append((now_s, latency_ms))
        while now_s - self._frames[0][0] > self._wait_s:
            self._frames.popleft()
        passed_s = now_s - self._since_s
        late = passed_s >= _MISSED_S and self._median_ms(now_s - _MISSED_S) > deadline_ms
        if late and self._steps < _MOST_STEPS:
            if self._went_up:
                self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)
            self._went_up = False
            return self._step(now_s, 1, f"frames took longer than deadline_ms ({deadline_ms:g} ms) for {_MISSED_S:g} s")
        room = passed_s >= self._wait_s and self._median_ms(now_s - self._wait_s) < _ROOM * deadline_ms
        if room and self._steps > 0:
            self._went_up = True
            return self._step(
                now_s, -1, f"there was room below deadline_ms ({deadline_ms:g} ms) for {self._wait_s:g} s"
            )
        return None

    def _median_ms(self, begin_s: float) -> float:
        return median(latency_ms for time_s, latency_ms in self._frames if time_s >= begin_s)

    def _step(self, now_s: float, steps: int, why: str) -> Step:
        self._steps += steps
        self._frames.clear()
        self._since_s = now_s
        return Step(self.share, f"{why}: the network now sees at most {self.share:.0%} of its usual pixels")

    def _turn_off(self) -> Step | None:
        was_at_work = self._steps > 0
        self._steps, self._since_s, self._wait_s, self._went_up = 0, None, _FIRST_WAIT_S, False
        self._frames.clear()
        return Step(1.0, "deadline_ms is off: the network sees its usual pixels again") if was_at_work else None
