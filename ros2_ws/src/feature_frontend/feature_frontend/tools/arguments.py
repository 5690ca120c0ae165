"""Types of command-line arguments that several tools take, and their exit status where a source is incomplete.

argparse turns the errors of the types into usage messages.
"""

from __future__ import annotations

import argparse
import math

__all__ = ["INCOMPLETE", "above_zero", "natural", "non_negative", "positive"]

INCOMPLETE = 3
"""Exit status where all that is whole was read, but something is known to be lost; 2 is argparse's for wrong usage."""


def positive(text: str) -> int:
    """A whole number from 1 up."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """A whole number from 0 up."""
    return _whole(text, 0)


def non_negative(text: str) -> float:
    """A finite number from 0 up."""
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        msg = f"{text} is not a number from 0 up"
        raise argparse.ArgumentTypeError(msg)
    return value


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        msg = f"{text} is not a number above 0"
        raise argparse.ArgumentTypeError(msg)
    return value


def _whole(text: str, minimum: int) -> int:
    value = int(text)
    if value < minimum:
        msg = f"{text} is not a whole number from {minimum} up"
        raise argparse.ArgumentTypeError(msg)
    return value
