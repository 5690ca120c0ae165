"""The findings of checks."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Finding", "Verdict", "fail", "ok", "warn"]


class Verdict(enum.Enum):
    """OK: works. WARN: works, but could be better, or was not checked. FAIL: does not work."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        verdict: OK, WARN or FAIL.
        subject: What was checked, in a word.
        text: What was found.
        advice: What to do; empty for OK.
    """

    verdict: Verdict
    subject: str
    text: str
    advice: str = ""


def ok(subject: str, text: str) -> Finding:
    """A finding that `subject` works."""
    return Finding(Verdict.OK, subject, text)


def warn(subject: str, text: str, advice: str) -> Finding:
    """A finding that `subject` works with limitations."""
    return Finding(Verdict.WARN, subject, text, advice)


def fail(subject: str, text: str, advice: str) -> Finding:
    """A finding that `subject` does not work."""
    return Finding(Verdict.FAIL, subject, text, advice)
