"""Statistics of stereo pairing: rates, stamp differences, and a diagnosis if no images pair."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass

__all__ = ["SIDES", "SyncStatistics", "SyncSummary"]

SIDES = ("left", "right")
WINDOW_S = 5.0
# Limits memory; five seconds at 400 Hz.
_MOST_IMAGES = 2048
_NS_PER_MS = 1e6
_S_PER_MS = 1e-3


@dataclass(frozen=True)
class SyncSummary:
    """Counts since the start, and statistics of the last five seconds; NaN if unknown.

    Attributes:
        pairs: Number of pairs.
        unpaired: Number of left and right images that were given up without a partner.
        rates_hz: Arrival rates of left and right images.
        median_difference_ms: Median absolute stamp difference within a pair.
        largest_difference_ms: Largest absolute stamp difference within a pair.
        problem: Why no images pair, in one line; empty if some do, or if no images arrive.
    """

    pairs: int
    unpaired: tuple[int, int]
    rates_hz: tuple[float, float]
    median_difference_ms: float
    largest_difference_ms: float
    problem: str


class SyncStatistics:
    """Collects statistics of images and pairs. Not thread-safe.

    Args:
        slop_ms: The parameter `stereo_slop_ms`.
        start_s: Current time, s on the monotonic clock.
    """

    def __init__(self, slop_ms: float, start_s: float) -> None:
        self._slop_ms = slop_ms
        self._start_s = start_s
        self._arrivals: tuple[deque[float], deque[float]] = (deque(maxlen=_MOST_IMAGES), deque(maxlen=_MOST_IMAGES))
        self._newest_ns: list[int | None] = [None, None]
        self._differences: deque[tuple[float, float]] = deque(maxlen=_MOST_IMAGES)
        self._pairs = 0
        self._unpaired = [0, 0]

    def arrived(self, side: int, stamp_ns: int, now_s: float) -> None:
        """Records an image of `side` (0 left, 1 right) that arrived at `now_s` on the monotonic clock."""
        self._arrivals[side].append(now_s)
        self._newest_ns[side] = stamp_ns

    def paired(self, left_ns: int, right_ns: int, now_s: float) -> None:
        """Records a pair with these stamps."""
        self._pairs += 1
        self._differences.append((now_s, abs(left_ns - right_ns) / _NS_PER_MS))

    def gave_up(self, side: int) -> None:
        """Records an image of `side` that is given up without a partner."""
        self._unpaired[side] += 1

    def summary(self, now_s: float) -> SyncSummary:
        """The summary at `now_s` on the monotonic clock."""
        begin_s = now_s - WINDOW_S
        for arrivals in self._arrivals:
            while arrivals and arrivals[0] < begin_s:
                arrivals.popleft()
        while self._differences and self._differences[0][0] < begin_s:
            self._differences.popleft()
        differences = [difference for _, difference in self._differences]
        elapsed_s = min(WINDOW_S, now_s - self._start_s)
        left_hz, right_hz = (len(arrivals) / elapsed_s if elapsed_s > 0 else 0.0 for arrivals in self._arrivals)
        is_silent = left_hz == right_hz == 0
        is_early = now_s - self._start_s < WINDOW_S
        return SyncSummary(
            pairs=self._pairs,
            unpaired=(self._unpaired[0], self._unpaired[1]),
            rates_hz=(left_hz, right_hz),
            median_difference_ms=statistics.median(differences) if differences else math.nan,
            largest_difference_ms=max(differences, default=math.nan),
            problem="" if differences or is_silent or is_early else self._problem(left_hz, right_hz),
        )

    def _problem(self, left_hz: float, right_hz: float) -> str:
        left_ns, right_ns = self._newest_ns
        if not (left_hz and right_hz) or left_ns is None or right_ns is None:
            there, missing = (SIDES[0], SIDES[1]) if left_hz else (SIDES[1], SIDES[0])
            return (
                f"no pair for {WINDOW_S:g} s: {there} images arrive at {left_hz or right_hz:.1f} Hz, {missing} ones do "
                "not arrive at all; compare topic and QoS"
            )
        difference_ms = (left_ns - right_ns) / _NS_PER_MS
        return (
            f"no pair for {WINDOW_S:g} s, though images arrive on the left at {left_hz:.1f} Hz and on the right at "
            f"{right_hz:.1f} Hz: the newest stamps are {left_ns * _S_PER_MS / _NS_PER_MS:.6f} and "
            f"{right_ns * _S_PER_MS / _NS_PER_MS:.6f} s, {abs(difference_ms):.3f} ms apart, and "
            f"stereo_slop_ms is {self._slop_ms:g}; are the cameras triggered together and their clocks set alike?"
        )
