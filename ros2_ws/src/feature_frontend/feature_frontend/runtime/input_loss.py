"""Images that never arrived, estimated from the stamps of those that did.

A periodic camera's stamps are whole multiples of its period apart; where images are lost, differences of two and more
periods stand between those of one. A slow or irregular camera, one that pauses, and one that is thinned out evenly
show no such pattern, and nothing is said of them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ARE_MISSING", "LARGE_IMAGE_BYTES", "PROFILE_ADVICE", "InputLoss", "LossEstimate"]

# What a warning of lost images has in it, and what one says where FastDDS's defaults explain them.
ARE_MISSING = "are missing by their stamps"
PROFILE_ADVICE = "start the camera's driver, too, with the FastDDS profile of large images"
# FastDDS's shared memory has 512 KiB for each process by default.
LARGE_IMAGE_BYTES = 500_000

WINDOW_S = 120.0
# Bounds memory and work; 8 s of a 30 Hz camera, while one that loses nine of ten images takes longer.
_MOST_IMAGES = 256
_LEAST_INTERVALS = 24
_LEAST_GAPS = 8
_WARN_FRACTION, _WARN_ENDS_FRACTION = 0.04, 0.02
# A window that tells nothing for a moment does not end a warning.
_HELD_S = 10.0

# Longer than so many usual intervals: a pause.
_PAUSE = 10.0
# Of a slower camera, a pause of its robot is no longer than an image that is lost.
_FASTEST_HZ, _SLOWEST_S = 250.0, 0.22
# With more lost, any numbers are nearly multiples of a period.
_MOST_MEAN_STEPS = 32.0
_SEARCHED_INTERVALS = 64
# Of intervals at a jitter of the stamps of 10 % of the period; chance reaches six standard deviations never.
_LEAST_FIT, _DEVIATIONS = 0.7, 6.0
_FIT_SLACK = 0.1
_NEAR = 0.2
_MOSTLY = 0.9
# The same for those that are not the usual one, of which there may be few.
_LEAST_OTHERS_FIT, _OTHERS_DEVIATIONS = 0.6, 4.0
_FEW = 3
_BROAD_STEPS = 6.0
_SHORT_QUANTILE, _SHORT_FRACTION = 0.65, 0.48
_CHANGES_FRACTION = 0.5
# Variance about an even pace, squared periods: 1/12 where every k-th image is left out.
_LEAST_WANDER = 0.25
_NS_PER_S = 1e9
_Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LossEstimate:
    """What the stamps tell of the images that did not arrive.

    Attributes:
        period_s: Of the camera; 0 where the stamps have no rhythm, or there are too few.
        expected: Images that the camera stamped in `span_s`, by that rhythm.
        missing: Of those, not arrived; 0 also where what is missing does not look lost.
        span_s: Time that these images take by their stamps, without pauses.
    """

    period_s: float = 0.0
    expected: int = 0
    missing: int = 0
    span_s: float = 0.0

    @property
    def fraction(self) -> float:
        """Of the expected images, missing; in [0, 1]."""
        return self.missing / self.expected if self.expected else 0.0

    def __str__(self) -> str:
        return f"{self.missing} of {self.expected} in {self.span_s:.0f} s" if self.period_s else "unknown"


class InputLoss:
    """Estimates how many of a camera's images are lost, of the last two minutes or 256 images. Not thread-safe."""

    def __init__(self) -> None:
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=_MOST_IMAGES)  # received s, stamp ns
        self._image_bytes = 0
        self._told = LossEstimate()
        self._told_s = 0.0

    def arrived(self, stamp_ns: int, received_s: float, image_bytes: int) -> None:
        """Takes note of an image.

        Args:
            stamp_ns: Of its header.
            received_s: On the monotonic clock.
            image_bytes: Size of its data.
        """
        self._arrivals.append((received_s, stamp_ns))
        self._image_bytes = image_bytes

    def estimate(self, now_s: float) -> LossEstimate:
        """What is missing of the images of the window that ends at `now_s` on the monotonic clock."""
        while self._arrivals and self._arrivals[0][0] < now_s - WINDOW_S:
            self._arrivals.popleft()
        stamps_ns = np.array([stamp_ns for _, stamp_ns in self._arrivals], np.int64)
        return _estimate(np.diff(stamps_ns) / _NS_PER_S)

    def facts(self, now_s: float, *, is_best_effort: bool) -> tuple[str, str]:
        """What to say, and to do, of images that are lost, empty where none look lost; and the estimate in short.

        Args:
            now_s: On the monotonic clock.
            is_best_effort: Whether the images' subscription is.
        """
        estimate = self.estimate(now_s)
        return self._warning(estimate, now_s, is_best_effort), str(estimate)

    def _warning(self, estimate: LossEstimate, now_s: float, is_best_effort: bool) -> str:
        threshold = _WARN_ENDS_FRACTION if self._told.missing else _WARN_FRACTION
        if estimate.fraction >= threshold:
            self._told, self._told_s = estimate, now_s
        elif now_s - self._told_s > _HELD_S or not self._arrivals:
            self._told = LossEstimate()
        told = self._told
        if not told.missing:
            return ""
        megabytes = self._image_bytes / 1e6
        if not is_best_effort:
            advice = "reliable QoS: they are left out before they are sent, or a queue overflows; look at the driver"
        elif self._image_bytes >= LARGE_IMAGE_BYTES:
            advice = f"best effort: {PROFILE_ADVICE}; `feature_frontend doctor` says the line"
        else:
            advice = "best effort: the driver leaves them out, or the network loses them; try image_qos:=reliable"
        return (
            f"about {told.missing} of {told.expected} images of {told.span_s:.0f} s {ARE_MISSING} (one every "
            f"{told.period_s * 1e3:.3g} ms), as if lost between the camera and here; {megabytes:.2g} MB each, {advice}"
        )


def _estimate(differences_s: _Float64s) -> LossEstimate:
    moving = differences_s > 0
    if moving.sum() < _LEAST_INTERVALS:
        return LossEstimate()
    longest_s = _PAUSE * float(np.median(differences_s[moving]))
    intervals = differences_s[(differences_s >= 0) & (differences_s <= longest_s)]
    period_s = _period_s(intervals[intervals > 0])
    if not 0 < period_s <= _SLOWEST_S:
        return LossEstimate()
    # An image that is stamped late, by whole periods, is followed by one that is stamped in its place: zero steps.
    steps = np.rint(intervals / period_s)
    expected = int(steps.sum())
    missing = max(0, expected - len(steps)) if _looks_lost(steps, intervals / period_s) else 0
    return LossEstimate(period_s, expected, missing, float(intervals.sum()))


def _period_s(intervals: _Float64s) -> float:
    """The longest period of which the intervals are multiples; 0 for none."""
    median_s = float(np.median(intervals))
    if _near_fraction(intervals / median_s, ones_only=True) >= _MOSTLY:
        return _refined(intervals, median_s)
    searched = intervals[-_SEARCHED_INTERVALS:]
    longest_s = float(searched.max())
    slowest_hz = 0.8 / float(np.quantile(searched, 0.1))
    fastest_hz = min(_FASTEST_HZ, _MOST_MEAN_STEPS / float(searched.mean()))
    if fastest_hz <= slowest_hz:
        return 0.0
    rates_hz = np.arange(slowest_hz, fastest_hz, 0.1 / longest_s)
    fits = np.cos(2 * np.pi * np.outer(rates_hz, searched)).mean(axis=1)
    least = max(_LEAST_FIT, _DEVIATIONS / np.sqrt(2 * len(searched)), float(fits.max()) - _FIT_SLACK)
    good = np.flatnonzero(fits >= least)
    if not len(good):
        return 0.0
    # The best of the first hill: it begins before its top.
    first = int(good[0])
    while first + 1 < len(fits) and fits[first + 1] > fits[first]:
        first += 1
    period_s = _refined(intervals, 1 / float(rates_hz[first]))
    return period_s if _near_fraction(intervals / period_s) >= _MOSTLY - 0.05 else 0.0


def _refined(intervals: _Float64s, period_s: float) -> float:
    """The period of least squares, over the intervals that are near multiples of the given one."""
    for _ in range(2):
        steps = np.rint(intervals / period_s)
        near = (steps > 0) & (np.abs(intervals / period_s - steps) < _NEAR)
        if not near.any():
            return period_s
        period_s = float(intervals[near] @ steps[near] / (steps[near] @ steps[near]))
    return period_s


def _near_fraction(ratios: _Float64s, *, ones_only: bool = False) -> float:
    """Of the ratios, near whole numbers, or near 1."""
    nearest = np.ones(()) if ones_only else np.rint(ratios)
    return float(np.mean(np.abs(ratios - nearest) < _NEAR))


def _looks_lost(steps: _Float64s, ratios: _Float64s) -> bool:
    """Whether the steps, in periods, are those of a camera whose images are lost here and there.

    Args:
        steps: From each image to the next.
        ratios: The same before rounding.
    """
    gaps = steps > 1
    if int(gaps.sum()) - int((steps == 0).sum()) < _LEAST_GAPS:
        return False
    # Irregular delays of a camera are no multiples of its period: those tell that are not the usual interval.
    values, counts = np.unique(steps, return_counts=True)
    others = ratios[(steps != values[counts.argmax()]) & (steps > 0)]
    if len(others) < _FEW:
        return False
    fit = float(np.cos(2 * np.pi * others).mean())
    if fit < max(_LEAST_OTHERS_FIT, _OTHERS_DEVIATIONS / np.sqrt(2 * len(others))):
        return False
    lost = 1 - len(steps) / float(steps.sum())
    # A clock that ticks, or two rates by turns, have a period of which no two images are one or two apart.
    close = steps <= 2
    if close.sum() < _FEW or close.mean() < 0.5 * (1 - lost**2):
        return False
    if (steps == 1).sum() < _FEW and np.quantile(steps, 0.9) < _BROAD_STEPS:
        return False
    # Losses are short, as far as there are not many of them; pauses are long.
    short = np.ceil(np.log(1 - _SHORT_QUANTILE) / np.log(lost))
    if np.mean(steps[gaps] - 1 <= short) < _SHORT_FRACTION:
        return False
    # Another rate for a while: many steps alike, one after the other.
    by_chance = 1 - float(np.sum((counts / len(steps)) ** 2))
    if np.mean(steps[1:] != steps[:-1]) < _CHANGES_FRACTION * by_chance:
        return False
    # Left out evenly, by a throttle or a long exposure: the images keep a pace of their own.
    index = np.arange(len(steps) + 1, dtype=np.float64)
    positions = np.concatenate([[0.0], np.cumsum(steps)])
    wander = positions - np.polyval(np.polyfit(index, positions, 1), index)
    return float(np.var(wander)) >= _LEAST_WANDER
