"""What a check has found."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Finding", "Verdict", "fail", "ok", "warn"]


class Verdict(enum.Enum):
    """OK: as it should be. WARN: works, but worse than it could, or not checked. FAIL: does not work."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        verdict: How it stands.
        subject: What was looked at, in a word.
        text: What was found.
        advice: What to do; empty for OK.
    """

    verdict: Verdict
    subject: str
    text: str
    advice: str = ""


def ok(subject: str, text: str) -> Finding:
    """All is well with `subject`."""
    return Finding(Verdict.OK, subject, text)


def warn(subject: str, text: str, advice: str) -> Finding:
    """It works, but."""
    return Finding(Verdict.WARN, subject, text, advice)


def fail(subject: str, text: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(Verdict.FAIL, subject, text, advice)
