"""The elements of a part: steps, their outcomes and their context."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.types import Table

__all__ = ["Context", "LeftOutError", "Outcome", "PartModule", "Step"]


class LeftOutError(Exception):
    """Raised by a step if something unrelated to its check is missing; the text names it."""


@dataclass(frozen=True)
class Context:
    """The input of every step.

    Attributes:
        device: "cuda", or "cpu" in a rehearsal.
        shared: Weights, sequences and reference outputs, laid out as in `../shared`; may be incomplete.
        scratch: Working folder of the part; files to return are listed in `Outcome.files`.
        keep: Folder whose files are returned even after a kill; for checkpoints only.
        deadline_s: `time.monotonic()` by which the part must have ended.
    """

    device: str
    shared: Path
    scratch: Path
    keep: Path
    deadline_s: float

    @property
    def is_rehearsal(self) -> bool:
        """Whether there is no GPU: the same code, with sizes and counts for a CPU."""
        return self.device == "cpu"

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(self.deadline_s - time.monotonic(), 0.0)


@dataclass(frozen=True)
class Outcome:
    """Result of a step.

    Attributes:
        passed: Whether all tolerances are met; a pure measurement passes when complete.
        text: Summary line: the main figures, or what is wrong.
        tables: Tables for the report.
        data: The same and all samples, in JSON types.
        files: Additional files for the part's archive, in `Context.scratch`.
    """

    passed: bool
    text: str
    tables: Sequence[Table] = ()
    data: dict[str, Any] = field(default_factory=dict)
    files: Sequence[Path] = ()


@dataclass(frozen=True)
class Step:
    """An independent unit of a part.

    Attributes:
        name: Letters, digits and "_".
        run: Function of the step. An exception fails only this step; a `LeftOutError` skips it.
        needs_s: Minimum time to start it, seconds.
        limit_s: Time after which its process is killed, so that a hang costs only this step, seconds.
    """

    name: str
    run: Callable[[Context], Outcome]
    needs_s: float = 1.0
    limit_s: float = 60.0


class PartModule(Protocol):
    """Interface of the modules in `PARTS`."""

    TITLE: str

    def steps(self, context: Context) -> Sequence[Step]:
        """The steps in order of execution; creating the list is fast and does not use the device."""
