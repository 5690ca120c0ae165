"""Types passed between the runner and the suites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Canvas", "Options", "Size", "SuiteResult", "Table", "Timing"]

Size = tuple[int, int]  # (width, height) in px, as on the command line
Canvas = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Options:
    """Options of a run. A suite reads those that apply to it.

    Attributes:
        sizes: (width, height) px of the images; empty for the suite's default.
        keypoints: Budgets of an extractor, or points per side for a matcher; empty for the suite's default.
        rounds: Number of rounds of the headline, each with one call per engine; None for the suite's default.
        warmup: Number of untimed calls of each engine before the first round.
        threads: Threads for torch and OpenCV.
        device: Device of networks and matchers: "cpu" or "cuda".
        images: Folder of images or video; None for the frames found by `benchmarks.images`.
        engines: Names of the engines to run, in any order; empty for all.
        parts: Parts of the suite to run; empty for all.
        extractors: Networks of this project to measure; suites with one network use the first.
        weights_dir: Folder searched first for published weights; empty for the usual places.
        duration_s: Duration of streams, seconds per setting.
        frames: Number of frames for the memory suite.
        quick: Fewer rounds and settings, as a smoke test.
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
    """Repeated durations of one thing.

    Attributes:
        name: Name of what was timed.
        samples_ms: Each duration in ms, in measured order; at least one.
    """

    name: str
    samples_ms: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples_ms:
            msg = f"timing {self.name!r} has no samples; expected at least one: measure at least one round"
            raise ValueError(msg)

    def quantile(self, fraction: float) -> float:
        """The duration in ms that a `fraction` (0 to 1) of the samples does not exceed, interpolated linearly."""
        return float(np.quantile(self.samples_ms, fraction))

    @property
    def median(self) -> float:
        """Median in ms."""
        return self.quantile(0.5)

    @property
    def iqr(self) -> float:
        """Interquartile range in ms."""
        return self.quantile(0.75) - self.quantile(0.25)

    @property
    def p95(self) -> float:
        """95th percentile in ms."""
        return self.quantile(0.95)

    @property
    def p99(self) -> float:
        """99th percentile in ms; with fewer than 100 samples, it lies between the two slowest."""
        return self.quantile(0.99)

    def as_json(self) -> dict[str, Any]:
        """The statistics and all samples."""
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
    """A table for printing.

    Attributes:
        title: Content and conditions.
        columns: Headings; the first column contains names.
        rows: Cells as text, one per column.
        note: Explanation for the reader; may be empty.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class SuiteResult:
    """Results of a suite.

    Attributes:
        name: The suite's name in `SUITES`.
        tables: In the order in which they are printed.
        data: The same and every sample, of types that JSON has.
        plots: Each draws one plot.
    """

    name: str
    tables: tuple[Table, ...]
    data: dict[str, Any] = field(default_factory=dict)
    plots: tuple[Callable[[Axes], None], ...] = ()
