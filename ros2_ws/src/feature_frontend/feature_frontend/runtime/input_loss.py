"""Estimates how many images never arrived, from the stamps of those that did.

The stamps of a periodic camera differ by whole multiples of its period; if images are lost, some differences are two or
more periods. A slow or irregular camera, one that pauses, and one that is throttled evenly show no such pattern, and
no loss is reported for them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ARE_MISSING", "LARGE_IMAGE_BYTES", "PROFILE_ADVICE", "InputLoss", "LossEstimate"]

# A phrase in every warning about lost images, and the advice if FastDDS's defaults explain the loss.
ARE_MISSING = "are missing by their stamps"
PROFILE_ADVICE = "start the camera's driver, too, with the FastDDS profile of large images"
# By default FastDDS's shared memory has 512 KiB per process.
LARGE_IMAGE_BYTES = 500_000

WINDOW_S = 120.0
# Limits memory and work; 8 s at 30 Hz, longer for a camera that loses nine of ten images.
_MOST_IMAGES = 256
_LEAST_INTERVALS = 24
_LEAST_GAPS = 8
_WARN_FRACTION, _WARN_ENDS_FRACTION = 0.04, 0.02
# A window that is inconclusive for a moment does not end a warning.
_HELD_S = 10.0

# An interval of more than this many median intervals is a pause.
_PAUSE = 10.0
# For a slower camera, a pause cannot be distinguished from a lost image.
_FASTEST_HZ, _SLOWEST_S = 250.0, 0.22
# If more are lost, any numbers are nearly multiples of a period.
_MOST_MEAN_STEPS = 32.0
_SEARCHED_INTERVALS = 64
# Fit of the intervals if the stamps jitter by 10 % of the period; chance never reaches six standard deviations.
_LEAST_FIT, _DEVIATIONS = 0.7, 6.0
_FIT_SLACK = 0.1
_NEAR = 0.2
_MOSTLY = 0.9
# The same for the intervals that differ from the most common one, which may be few.
_LEAST_OTHERS_FIT, _OTHERS_DEVIATIONS = 0.6, 4.0
_FEW = 3
_BROAD_STEPS = 6.0
_SHORT_QUANTILE, _SHORT_FRACTION = 0.65, 0.48
_CHANGES_FRACTION = 0.5
# Variance about an even pace, in squared periods: 1/12 if every k-th image is left out.
_LEAST_WANDER = 0.25
_NS_PER_S = 1e9
_Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LossEstimate:
    """Estimate of the images that did not arrive, from the stamps.

    Attributes:
        period_s: Period of the camera in s; 0 if the stamps are not periodic, or too few.
        expected: Number of images that the camera stamped in `span_s`, by that period.
        missing: Number of these that did not arrive; 0 if the gaps do not look like losses.
        span_s: Duration covered by the stamps in s, without pauses.
    """

    period_s: float = 0.0
    expected: int = 0
    missing: int = 0
    span_s: float = 0.0

    @property
    def fraction(self) -> float:
        """Fraction of the expected images that are missing, in [0, 1]."""
        return self.missing / self.expected if self.expected else 0.0

    def __str__(self) -> str:
        return f"{self.missing} of {self.expected} in {self.span_s:.0f} s" if self.period_s else "unknown"


class InputLoss:
    """Estimates how many of a camera's images are lost, over the last two minutes or 256 images. Not thread-safe."""

    def __init__(self) -> None:
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=_MOST_IMAGES)  # received s, stamp ns
        self._image_bytes = 0
        self._reported = LossEstimate()
        self._reported_s = 0.0

    def arrived(self, stamp_ns: int, received_s: float, image_bytes: int) -> None:
        """Records an image.

        Args:
            stamp_ns: Stamp of its header in ns.
            received_s: Time of arrival on the monotonic clock.
            image_bytes: Size of its data.
        """
        self._arrivals.append((received_s, stamp_ns))
        self._image_bytes = image_bytes

    def estimate(self, now_s: float) -> LossEstimate:
        """The estimate for the window that ends at `now_s` on the monotonic clock."""
        while self._arrivals and self._arrivals[0][0] < now_s - WINDOW_S:
            self._arrivals.popleft()
        stamps_ns = np.array([stamp_ns for _, stamp_ns in self._arrivals], np.int64)
        return _estimate(np.diff(stamps_ns) / _NS_PER_S)

    def facts(self, now_s: float, *, is_best_effort: bool) -> tuple[str, str]:
        """A warning about lost images with advice, empty if none look lost; and the estimate in short.

        Args:
            now_s: Current time on the monotonic clock.
            is_best_effort: Whether the image subscription is best effort.
        """
        estimate = self.estimate(now_s)
        return self._warning(estimate, now_s, is_best_effort), str(estimate)

    def _warning(self, estimate: LossEstimate, now_s: float, is_best_effort: bool) -> str:
        threshold = _WARN_ENDS_FRACTION if self._reported.missing else _WARN_FRACTION
        if estimate.fraction >= threshold:
            self._reported, self._reported_s = estimate, now_s
        elif now_s - self._reported_s > _HELD_S or not self._arrivals:
            self._reported = LossEstimate()
        lost = self._reported
        if not lost.missing:
            return ""
        megabytes = self._image_bytes / 1e6
        if not is_best_effort:
            advice = "reliable QoS: they are left out before they are sent, or a queue overflows; look at the driver"
        elif self._image_bytes >= LARGE_IMAGE_BYTES:
            advice = f"best effort: {PROFILE_ADVICE}; `feature_frontend doctor` says the line"
        else:
            advice = "best effort: the driver leaves them out, or the network loses them; try image_qos:=reliable"
        return (
            f"about {lost.missing} of {lost.expected} images of {lost.span_s:.0f} s {ARE_MISSING} (one every "
            f"{lost.period_s * 1e3:.3g} ms), as if lost between the camera and here; {megabytes:.2g} MB each, {advice}"
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
    # If an image is stamped whole periods late, the next one has the same stamp: zero steps.
    steps = np.rint(intervals / period_s)
    expected = int(steps.sum())
    missing = max(0, expected - len(steps)) if _looks_lost(steps, intervals / period_s) else 0
    return LossEstimate(period_s, expected, missing, float(intervals.sum()))


def _period_s(intervals: _Float64s) -> float:
    """The longest period of which the intervals are multiples; 0 if there is none."""
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
    # Climb to the top of the first peak.
    first = int(good[0])
    while first + 1 < len(fits) and fits[first + 1] > fits[first]:
        first += 1
    period_s = _refined(intervals, 1 / float(rates_hz[first]))
    return period_s if _near_fraction(intervals / period_s) >= _MOSTLY - 0.05 else 0.0


def _refined(intervals: _Float64s, period_s: float) -> float:
    """Least-squares period over the intervals that are near multiples of the given one."""
    for _ in range(2):
        steps = np.rint(intervals / period_s)
        near = (steps > 0) & (np.abs(intervals / period_s - steps) < _NEAR)
        if not near.any():
            return period_s
        period_s = float(intervals[near] @ steps[near] / (steps[near] @ steps[near]))
    return period_s


def _near_fraction(ratios: _Float64s, *, ones_only: bool = False) -> float:
    """Fraction of the ratios that are near whole numbers, or near 1."""
    nearest = np.ones(()) if ones_only else np.rint(ratios)
    return float(np.mean(np.abs(ratios - nearest) < _NEAR))


def _looks_lost(steps: _Float64s, ratios: _Float64s) -> bool:
    """Whether the steps, in periods, look like those of a camera with occasional image loss.

    Args:
        steps: From each image to the next.
        ratios: The same before rounding.
    """
    gaps = steps > 1
    if int(gaps.sum()) - int((steps == 0).sum()) < _LEAST_GAPS:
        return False
    # Irregular delays are not multiples of the period: look at the intervals that differ from the most common one.
    values, counts = np.unique(steps, return_counts=True)
    others = ratios[(steps != values[counts.argmax()]) & (steps > 0)]
    if len(others) < _FEW:
        return False
    fit = float(np.cos(2 * np.pi * others).mean())
    if fit < max(_LEAST_OTHERS_FIT, _OTHERS_DEVIATIONS / np.sqrt(2 * len(others))):
        return False
    lost = 1 - len(steps) / float(steps.sum())
    # A coarse clock, or two alternating rates, has a period of which no two images are one or two apart.
    close = steps <= 2
    if close.sum() < _FEW or close.mean() < 0.5 * (1 - lost**2):
        return False
    if (steps == 1).sum() < _FEW and np.quantile(steps, 0.9) < _BROAD_STEPS:
        return False
    # Losses are short unless there are many of them; pauses are long.
    short = np.ceil(np.log(1 - _SHORT_QUANTILE) / np.log(lost))
    if np.mean(steps[gaps] - 1 <= short) < _SHORT_FRACTION:
        return False
    # A temporary change of rate: many equal steps in a row.
    by_chance = 1 - float(np.sum((counts / len(steps)) ** 2))
    if np.mean(steps[1:] != steps[:-1]) < _CHANGES_FRACTION * by_chance:
        return False
    # Left out evenly, by a throttle or a long exposure: the remaining images keep an even pace.
    index = np.arange(len(steps) + 1, dtype=np.float64)
    positions = np.concatenate([[0.0], np.cumsum(steps)])
    wander = positions - np.polyval(np.polyfit(index, positions, 1), index)
    return float(np.var(wander)) >= _LEAST_WANDER
