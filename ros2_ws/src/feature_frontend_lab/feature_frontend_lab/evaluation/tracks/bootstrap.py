"""Whether one configuration's motions are nearer to the truth than another's, or that is chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CONFIDENCE", "Difference", "paired_difference"]

CONFIDENCE = 0.95
_DRAWS = 10_000
_FEWEST_PAIRS = 5


@dataclass(frozen=True)
class Difference:
    """How much larger errors are than those they are compared with, over the same pairs of frames.

    Attributes:
        mean: Mean difference; below 0 they are smaller.
        low: Lower end of its interval; NaN where there are too few pairs of frames for one.
        high: Its upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What can be said: "smaller", "larger", or "alike" where the interval holds 0 or there is none."""
        if self.high < 0:
            return "smaller"
        return "larger" if self.low > 0 else "alike"


def paired_difference(errors: Sequence[float], reference: Sequence[float]) -> Difference:
    """The mean difference and its interval by the bootstrap over pairs of frames, with a fixed seed.

    Neighbouring pairs of frames share images, and all share one ground truth and one calibration: the interval says
    what another choice among such frames would have given, not what another camera would.

    Args:
        errors: One for each pair of frames; a pair where either is NaN is left out.
        reference: Of the same pairs of frames.

    Raises:
        ValueError: They are not as many.
    """
    if len(errors) != len(reference):
        msg = f"{len(errors)} errors and {len(reference)} to compare with; expected one for each pair of frames"
        raise ValueError(msg)
    differences = np.subtract(errors, reference)
    differences = differences[np.isfinite(differences)]
    if len(differences) == 0:
        return Difference(float("nan"), float("nan"), float("nan"))
    mean = float(differences.mean())
    if len(differences) < _FEWEST_PAIRS:
        return Difference(mean, float("nan"), float("nan"))
    drawn = np.random.default_rng(0).integers(0, len(differences), (_DRAWS, len(differences)))
    low, high = np.quantile(differences[drawn].mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
    return Difference(mean, low, high)
