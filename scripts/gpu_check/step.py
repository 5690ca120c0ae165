"""What a part of the check is made of: steps, their outcomes, and what they are given."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.types import Table

__all__ = ["Context", "LeftOutError", "Outcome", "PartModule", "Step"]


class LeftOutError(Exception):
    """Raised by a step for which something is missing here that is no fault of what it checks; the text says what."""


@dataclass(frozen=True)
class Context:
    """What every step is given.

    Attributes:
        device: "cuda", or "cpu" in a rehearsal.
        shared: Weights, sequences and reference outputs, laid out as in `../shared`; not all of it need be there.
        scratch: Folder of the part for files of its own; what is to come back is named in `Outcome.files`.
        keep: Folder whose files come back even if everything is killed; for checkpoints alone.
        deadline_s: `time.monotonic()` at which the part must have ended.
    """

    device: str
    shared: Path
    scratch: Path
    keep: Path
    deadline_s: float

    @property
    def is_rehearsal(self) -> bool:
        """Whether there is no card: the same code, with sizes and counts that a CPU can do."""
        return self.device == "cpu"

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(self.deadline_s - time.monotonic(), 0.0)


@dataclass(frozen=True)
class Outcome:
    """What a step found.

    Attributes:
        passed: Whether every bar is met; a step that only measures passes by measuring.
        text: A line for the summary: the figures that matter, or what is wrong.
        tables: For the report.
        data: The same and every sample, of types that JSON has.
        files: Further files for the part's archive, in `Context.scratch`.
    """

    passed: bool
    text: str
    tables: Sequence[Table] = ()
    data: dict[str, Any] = field(default_factory=dict)
    files: Sequence[Path] = ()


@dataclass(frozen=True)
class Step:
    """A piece of a part that stands by itself.

    Attributes:
        name: Letters, digits and "_".
        run: Does it. An exception fails this step and no other; a `LeftOutError` leaves it out.
        needs_s: Seconds without which it is not begun.
        limit_s: Seconds after which its process is killed, so that a hang costs this step and no other.
    """

    name: str
    run: Callable[[Context], Outcome]
    needs_s: float = 1.0
    limit_s: float = 60.0


class PartModule(Protocol):
    """What a module in `PARTS` offers."""

    TITLE: str

    def steps(self, context: Context) -> Sequence[Step]:
        """The steps in the order in which they run; making the list is quick and touches no device."""
