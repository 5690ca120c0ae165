"""Speed ratios of engines with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.types import Timing

__all__ = ["CONFIDENCE", "Ratio", "compare", "median_interval"]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """A peer's duration divided by ours; above 1, ours is faster.

    Attributes:
        of_rounds: Median over the rounds of the ratio of the two durations in a round.
        low: Lower end of the interval of `of_rounds`; None if there are too few rounds.
        high: Upper end of the interval.
        of_medians: Ratio of the two medians.
    """

    of_rounds: float
    low: float | None
    high: float | None
    of_medians: float

    def __str__(self) -> str:
        """As in "4.12 (4.05 to 4.20)"."""
        interval = "" if self.low is None or self.high is None else f" ({self.low:.2f} to {self.high:.2f})"
        return f"{self.of_rounds:.2f}{interval}"

    def as_json(self) -> dict[str, Any]:
        """All fields and the confidence level."""
        return {**asdict(self), "confidence": CONFIDENCE}


def compare(peer: Timing, ours: Timing) -> Ratio:
    """The ratio of two engines measured in the same rounds.

    Raises:
        ValueError: The numbers of rounds differ.
    """
    if len(peer.samples_ms) != len(ours.samples_ms):
        counts = f"{len(peer.samples_ms)} of {peer.name} and {len(ours.samples_ms)} of {ours.name}"
        msg = f"{counts} rounds cannot be paired; expected timings of one call of interleave()"
        raise ValueError(msg)
    ratios = np.divide(peer.samples_ms, ours.samples_ms)
    interval = median_interval(ratios.tolist())
    low, high = interval or (None, None)
    return Ratio(float(np.median(ratios)), low, high, peer.median / ours.median)


def median_interval(samples: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Indices of the two samples that bound the median, by the sign test; None if there are too few samples.

    Assumes only that the samples are independent, and uses no random numbers.
    """
    ordered, count = sorted(samples), len(samples)
    tail, left_out = 0.0, 0
    # Probability that at most `left_out` of `count` samples lie below the median.
    while left_out < count // 2:
        tail += math.comb(count, left_out) / 2**count
        if tail > (1 - confidence) / 2:
            break
        left_out += 1
    if left_out == 0:
        return None
    return ordered[left_out - 1], ordered[count - left_out]
