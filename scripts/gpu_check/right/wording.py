"""Texts of the results of the part `right`."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.gpu_check.step import Context

__all__ = ["mark", "sides", "verdict"]


def sides(context: Context) -> str:
    """Which two sides are compared; states whether it is a rehearsal."""
    if context.is_rehearsal:
        return "a rehearsal: on the CPU, the captured path against the plain one"
    return "the device against the CPU"


def mark(passes: bool) -> str:
    """The last cell of a row."""
    return "ok" if passes else "MISSED"


def verdict(count: int, missed: Sequence[str], missing: Sequence[str] = ()) -> str:
    """The summary line: how many of `count` settings are within tolerance, which are not, and which are missing."""
    text = f"{count - len(missed)} of {count} within their bars"
    if missed:
        text += f"; MISSED: {', '.join(missed)}"
    if missing:
        text += f"; not there: {', '.join(missing)}"
    return text
