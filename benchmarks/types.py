"""What the runner and the suites hand to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Canvas", "Options", "Size", "SuiteResult", "Table", "Timing"]

Size = tuple[int, int]  # (width, height) in px, as on the command line
Canvas = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Options:
    """What a run was asked for. A suite reads what concerns it.

    Attributes:
        sizes: (width, height) px of the images; empty: the suite's own.
        keypoints: Budgets of an extractor, or points a side for a matcher; empty: the suite's own.
        rounds: Rounds of the headline, in each of which every engine runs once; None: the suite's own.
        warmup: Calls of each engine that are not timed, before the first round.
        threads: Threads for torch and OpenCV.
        device: Where networks and matchers run: "cpu" or "cuda".
        images: Folder of images or video that is read; None: the frames that `benchmarks.images` finds.
        engines: Names of the engines to run, in any order; empty: all that the suite has.
        parts: Sections of a suite that has several; empty: all.
        extractors: Networks of this project that are measured; the first is the one a suite with one network takes.
        weights_dir: Folder in which published weights are looked for first; empty: the usual places.
        duration_s: How long a suite that watches a stream does so, seconds for each setting.
        frames: How many frames a suite that looks for growth runs.
        quick: Fewer rounds and settings: does it run, not what does it give.
    """

    sizes: tuple[Size, ...] = ()
    keypoints: tuple[int, ...] = ()
    rounds: int | None = None
    warmup: int = 3
    threads: int = 1
    device: str = "cpu"
    images: Path | None = None
    engines: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    extractors: tuple[str, ...] = ("aliked-n16", "aliked-t16")
    weights_dir: str = ""
    duration_s: float = 10.0
    frames: int = 5000
    quick: bool = False


@dataclass(frozen=True)
class Timing:
    """How long one thing took, again and again.

    Attributes:
        name: What was timed.
        samples_ms: Each duration in ms, in the order in which they were measured; at least one.
    """

    name: str
    samples_ms: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples_ms:
            msg = f"timing {self.name!r} has no samples; expected at least one: measure at least one round"
            raise ValueError(msg)

    def quantile(self, fraction: float) -> float:
        """The duration in ms that `fraction` (0 to 1) of the samples do not exceed, linear between samples."""
        return float(np.quantile(self.samples_ms, fraction))

    @property
    def median(self) -> float:
        """Median in ms."""
        return self.quantile(0.5)

    @property
    def iqr(self) -> float:
        """Interquartile range in ms: the width of the middle half."""
        return self.quantile(0.75) - self.quantile(0.25)

    @property
    def p95(self) -> float:
        """95th percentile in ms."""
        return self.quantile(0.95)

    @property
    def p99(self) -> float:
        """99th percentile in ms; with fewer than 100 samples it lies between the two slowest."""
        return self.quantile(0.99)

    def as_json(self) -> dict[str, Any]:
        """The statistics and every sample."""
        return {
            "name": self.name,
            "count": len(self.samples_ms),
            "median_ms": self.median,
            "iqr_ms": self.iqr,
            "p95_ms": self.p95,
            "p99_ms": self.p99,
            "samples_ms": list(self.samples_ms),
        }


@dataclass(frozen=True)
class Table:
    """A table as it is printed.

    Attributes:
        title: What it shows, and under which conditions.
        columns: Headings; the first column holds names.
        rows: Cells as text, one for each column.
        note: What a reader must know to read it right; empty for nothing.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class SuiteResult:
    """What a suite measured.

    Attributes:
        name: The suite's name in `SUITES`.
        tables: In the order in which they are printed.
        data: The same and every sample, of types that JSON has.
        plots: Each draws one picture, (H, W, 3) RGB.
    """

    name: str
    tables: tuple[Table, ...]
    data: dict[str, Any] = field(default_factory=dict)
    plots: tuple[Callable[[], Canvas], ...] = ()
