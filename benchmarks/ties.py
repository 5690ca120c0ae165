"""Checks whether matchers find the same pairs, except for ties."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.engines.matching import Pairs

__all__ = ["TIE", "PairDifference", "compare_pairs"]

# Candidates with a smaller difference may be ordered either way: the precision of float32 sums of 128 products.
TIE = 1e-6


@dataclass(frozen=True)
class PairDifference:
    """Differences between two matchers' pairs.

    Attributes:
        pairs: Number of the reference's pairs.
        differing: Pairs that only one of the two has.
        ties: Those differing pairs in which a row or column has a candidate within `TIE` of its best.
    """

    pairs: int
    differing: int
    ties: int

    @property
    def is_same(self) -> bool:
        """Whether all differing pairs are ties."""
        return self.differing == self.ties

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def compare_pairs(
    reference: Pairs, other: Pairs, descriptors0: npt.NDArray[np.float32], descriptors1: npt.NDArray[np.float32]
) -> PairDifference:
    """Compares two matchers' pairs for the same descriptors.

    Args:
        reference: (M, 2) indices.
        other: (M', 2) indices.
        descriptors0: (N0, D), L2-normalised.
        descriptors1: (N1, D).
    """
    only_one = {tuple(pair) for pair in reference.tolist()} ^ {tuple(pair) for pair in other.tolist()}
    exact0, exact1 = descriptors0.astype(np.float64), descriptors1.astype(np.float64)
    ties = sum(
        _has_rival(exact1 @ exact0[row]) or _has_rival(exact0 @ exact1[column]) for row, column in sorted(only_one)
    )
    return PairDifference(len(reference), len(only_one), ties)


def _has_rival(similarity: npt.NDArray[np.float64]) -> bool:
    if len(similarity) < 2:
        return False
    second, best = np.partition(similarity, -2)[-2:]
    return bool(best - second < TIE)
