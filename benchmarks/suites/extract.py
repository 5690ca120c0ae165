"""Suite `extract`: uint8 image in, keypoints and descriptors out; ours compared with kornia and OpenCV."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.engines.extraction import ENGINES, ExtractionEngine, NetworkEngine, load_engines
from benchmarks.engines.stages import STAGES, stage_calls
from benchmarks.images import Frames, load_frames, resized
from benchmarks.measure import interleave, synchronizer
from benchmarks.plot import Line, draw_bars, draw_lines
from benchmarks.tables import TIMING_COLUMNS, growth_table, milliseconds, timing_cells
from benchmarks.types import Options, Size, SuiteResult, Table, Timing
from benchmarks.variants import agreement_table, agreements_of_variants, ratio_table, ratios_of_variants
from feature_frontend.errors import SettingsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ENGINES", "FRAME_COUNT", "HELP", "PARTS", "ExtractionSuite", "run"]

HELP = "uint8 image in, keypoints and descriptors out: plain and fast networks, kornia, XFeat, ORB, SIFT"
PARTS = ("headline", "stages", "sizes", "keypoints")
FRAME_COUNT = 8

_SIZE: Size = (640, 480)
_BUDGET = 1000
_SIZES: tuple[Size, ...] = ((320, 240), (640, 480), (1280, 720), (1920, 1080))
_BUDGETS = (256, 512, 1000, 2048, 4096)
_ROUNDS, _QUICK_ROUNDS = 30, 5
_FEWEST_ROUNDS = 3
# Divides the rounds where cost grows with size or budget: one such round takes as long as several of the headline's.
_GROWTH_DIVISOR = 5

Log = Callable[[str], None]


@dataclass(frozen=True)
class _Measurement:
    """All engines in the same rounds at one size and budget."""

    size: Size
    budget: int
    timings: dict[str, Timing]
    found: dict[str, int]
    modes: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        engines = {
            name: {**timing.as_json(), "found": self.found[name], "mode": self.modes[name]}
            for name, timing in self.timings.items()
        }
        ratios = {name: ratio.as_json() for name, ratio in ratios_of_variants(self.timings).items()}
        return {"size": list(self.size), "budget": self.budget, "engines": engines, "ratios": ratios}


def run(options: Options, log: Log) -> SuiteResult:
    """Measures the requested parts.

    Raises:
        FeatureFrontendError: No engine is left, images or weights cannot be read, or engines that should compute the
            same results differ.
    """
    frames = load_frames(options.images, FRAME_COUNT)
    engines = load_engines(options, log)
    if not engines:
        msg = (
            f"no engine is left of {', '.join(options.engines or ENGINES)}; choose others by --engines or --extractors"
        )
        raise SettingsError(msg)
    return ExtractionSuite("extract", options, log, frames, engines, options.parts or PARTS).result()


class ExtractionSuite:
    """One run of a suite that times extraction: `name`, with those of `PARTS` that are in `parts`."""

    def __init__(
        self,
        name: str,
        options: Options,
        log: Log,
        frames: Frames,
        engines: Sequence[ExtractionEngine],
        parts: Sequence[str],
    ) -> None:
        self._name, self._parts = name, parts
        self._options, self._log, self._frames, self._engines = options, log, frames, engines
        self._size = options.sizes[0] if options.sizes else _SIZE
        self._budget = options.keypoints[0] if options.keypoints else _BUDGET
        self._rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
        self._prepared_for = ""
        self._tables: list[Table] = []
        self._plots: list[Callable[[Axes], None]] = []
        self._data: dict[str, Any] = {"image_source": frames.description}

    def result(self) -> SuiteResult:
        """Measures, and returns the tables, data and plots."""
        if "headline" in self._parts:
            self._headline()
        if "stages" in self._parts:
            self._stages()
        if "sizes" in self._parts:
            sizes = self._options.sizes or (_SIZES[:2] if self._options.quick else _SIZES)
            self._growth("sizes", [(size, self._budget) for size in sizes])
        if "keypoints" in self._parts:
            budgets = self._options.keypoints or (_BUDGETS[:3] if self._options.quick else _BUDGETS)
            self._growth("keypoints", [(self._size, budget) for budget in budgets])
        return SuiteResult(self._name, tuple(self._tables), self._data, tuple(self._plots))

    def _measure(self, size: Size, budget: int, rounds: int) -> _Measurement:
        frames = resized(self._frames, size)
        self._prepare(frames, budget)
        counts: dict[str, list[int]] = defaultdict(list)
        by_name = {engine.name: engine for engine in self._engines}

        def call(engine: ExtractionEngine, number: int) -> Any:
            return engine(frames.at(number))

        timings = interleave(
            {name: partial(call, engine) for name, engine in by_name.items()},
            rounds,
            warmup=self._options.warmup,
            synchronize=synchronizer(self._options.device),
            inspect=lambda name, result: counts[name].append(by_name[name].count(result)),
        )
        found = {name: int(np.median(numbers)) for name, numbers in counts.items()}
        modes = {name: engine.mode for name, engine in by_name.items()}
        return _Measurement(size, budget, timings, found, modes)

    def _prepare(self, frames: Frames, budget: int) -> None:
        conditions = _conditions(_size_of(frames), budget)
        if conditions == self._prepared_for:
            return
        self._log(f"preparing {len(self._engines)} engines for {conditions}")
        for engine in self._engines:
            engine.prepare(frames.at(0), budget)
        self._prepared_for = conditions

    def _headline(self) -> None:
        frames = resized(self._frames, self._size)
        self._prepare(frames, self._budget)
        agreements = agreements_of_variants(self._engines, frames.at(0))
        self._log(f"headline: {self._rounds} rounds")
        measured = self._measure(self._size, self._budget, self._rounds)
        where = _conditions(self._size, self._budget)
        rows = tuple(
            (name, measured.modes[name], str(measured.found[name]), *timing_cells(timing))
            for name, timing in measured.timings.items()
        )
        note = f"{self._rounds} interleaved rounds over {frames.description}. {_opencv_note(self._options.device)}"
        self._tables.append(Table(f"Whole call, {where}", ("engine", "runs", "found", *TIMING_COLUMNS), rows, note))
        ratios = ratios_of_variants(measured.timings)
        if ratios:
            self._tables.append(ratio_table(f"How many times as fast, {where}", ratios, measured.timings))
        if agreements:
            self._tables.append(agreement_table(agreements))
        self._data["headline"] = measured.as_json()
        self._data["agreement"] = {name: agreement.as_json() for name, agreement in agreements.items()}
        title = f"uint8 image to keypoints and descriptors, {where} (median, quartiles)"
        self._plots.append(partial(draw_bars, title, list(measured.timings.values()), _colors(measured.timings)))

    def _stages(self) -> None:
        frames = resized(self._frames, self._size)
        self._prepare(frames, self._budget)
        calls: dict[str, Callable[[int], object]] = {}
        rows, data = [], {}
        staged = []
        for engine in self._engines:
            stages = stage_calls(engine, frames.at) if isinstance(engine, NetworkEngine) else None
            if stages is not None:
                staged.append(engine.name)
                calls |= {f"{engine.name}: {stage}": call for stage, call in stages.items()}
        if not staged:
            self._log("no engine of this run offers its stages one by one")
            return
        self._log(f"stages of {', '.join(staged)}")
        timings = interleave(
            calls,
            max(_FEWEST_ROUNDS, self._rounds // 2),
            warmup=self._options.warmup,
            synchronize=synchronizer(self._options.device),
        )
        for name in staged:
            parts = {stage: timings[f"{name}: {stage}"] for stage in STAGES}
            total = sum(timing.median for timing in parts.values())
            rows.append((name, *(milliseconds(timing.median) for timing in parts.values()), milliseconds(total)))
            data[name] = {stage: timing.as_json() for stage, timing in parts.items()}
        note = "Medians in ms, each stage waited for by itself, which the whole call need not do."
        title = f"By stage, {_conditions(self._size, self._budget)}"
        self._tables.append(Table(title, ("network", *STAGES, "sum"), tuple(rows), note))
        self._data["stages"] = data

    def _growth(self, part: str, settings: Sequence[tuple[Size, int]]) -> None:
        if len(settings) < 2:
            return
        rounds = max(_FEWEST_ROUNDS, self._rounds // _GROWTH_DIVISOR)
        measured = []
        # Sorted, so that curves run from left to right.
        for size, budget in sorted(set(settings), key=lambda setting: (setting[0][0] * setting[0][1], setting)):
            self._log(f"{part}: {_conditions(size, budget)}, {rounds} rounds")
            measured.append(self._measure(size, budget, rounds))
        self._data[part] = [measurement.as_json() for measurement in measured]
        by_size = part == "sizes"
        fixed = f"at most {self._budget} keypoints" if by_size else f"{self._size[0]}x{self._size[1]}"
        # The x axis: megapixels or budget.
        amounts = [row.size[0] * row.size[1] / 1e6 if by_size else row.budget for row in measured]
        labels = [f"{row.size[0]}x{row.size[1]}" if by_size else str(row.budget) for row in measured]
        by_setting = {label: row.timings for label, row in zip(labels, measured, strict=True)}
        heading, title = ("size", "image size") if by_size else ("keypoints", "number of keypoints")
        note = f"{rounds} interleaved rounds each. {_growth_note(measured, by_size=by_size)}"
        self._tables.append(growth_table(f"Medians in ms by {title}, {fixed}", heading, by_setting, note))
        lines = [
            Line(name, tuple((x, row.timings[name].median) for x, row in zip(amounts, measured, strict=True)))
            for name in measured[0].timings
        ]
        self._plots.append(
            partial(
                draw_lines, f"Whole call by {title}, {fixed}", title, lines, dict(zip(amounts, labels, strict=True))
            )
        )


def _growth_note(measured: Sequence[_Measurement], *, by_size: bool) -> str:
    last = measured[-1]
    if by_size:
        note = "The frames are cut and resized: what ORB and SIFT find, and so their time, depends on the image."
    else:
        found = ", ".join(f"{name} {count}" for name, count in last.found.items())
        note = f"A budget may not fill: found at the largest, {found}."
    uncompiled: dict[str, list[str]] = defaultdict(list)
    for row in measured:
        for name, mode in row.modes.items():
            if name.endswith(" fast") and mode.startswith("uncompiled"):
                uncompiled[name].append(f"{row.size[0]}x{row.size[1]}" if by_size else str(row.budget))
    listed = "; ".join(f"{name} at {', '.join(where)}" for name, where in uncompiled.items())
    return f"{note} Ran uncompiled: {listed}." if listed else note


def _colors(timings: dict[str, Timing]) -> dict[str, int]:
    """One colour each for ours, others with the same network, and other methods."""
    return {name: 0 if name.endswith((" fast", " plain")) else 1 if " " in name else 2 for name in timings}


def _opencv_note(device: str) -> str:
    return "" if device == "cpu" else "ORB and SIFT run on the CPU; the others leave their results on the GPU."


def _size_of(frames: Frames) -> Size:
    height, width = frames.at(0).shape[:2]
    return width, height


def _conditions(size: Size, budget: int) -> str:
    return f"{size[0]}x{size[1]}, at most {budget} keypoints"
