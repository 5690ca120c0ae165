"""The extent of random tests: everything under `make campaign`; otherwise, a tenth from a fixed seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest

__all__ = ["Campaign"]

_SHARE = 10


@dataclass(frozen=True)
class Campaign:
    """What a random test asks: how many examples, from which seed.

    Attributes:
        seed: Fixed in ordinary runs, another in each campaign unless it is given.
        is_whole: Whether this run is a campaign.
        report: Takes a line for the end of the run's output.
    """

    seed: int
    is_whole: bool
    report: Callable[[str], None]

    def only(self, reason: str) -> None:
        """Skips the test, unless this run is a campaign."""
        if not self.is_whole:
            pytest.skip(f"{reason}: make campaign")

    def count(self, whole: int, of: str) -> int:
        """How many to do of the `whole` number that a campaign does; `of` what, for the end of the run's output."""
        count = whole if self.is_whole else math.ceil(whole / _SHARE)
        self.report(f"{count} of {whole} {of}, seed {self.seed}")
        return count
