"""Suite `tracks`: the cost of tracking, `tracker:=persistent` compared with `chain` and OpenCV's Lucas-Kanade."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.images import Frames, load_frames, resized
from benchmarks.measure import interleave, synchronizer
from benchmarks.ratios import CONFIDENCE, median_interval
from benchmarks.tables import TIMING_COLUMNS, timing_cells
from benchmarks.types import Options, SuiteResult, Table, Timing
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.settings import Settings
from feature_frontend.types import Tracks
from feature_frontend_lab.evaluation.tracks.baselines import LucasKanadeSequence

__all__ = ["HELP", "run"]

HELP = "a whole frame with tracks: persistent beside chain, and OpenCV's Lucas-Kanade with as many corners"
BAR = 0.25

_BUDGET = 1000
_FRAME_COUNT = 20
_ROUNDS = 95
_QUICK_ROUNDS = 5
_TRACKERS = ("chain", "persistent")
_LUCAS_KANADE = "lk"
_FRAME_NS = 100_000_000

Log = Callable[[str], None]


def run(options: Options, log: Log) -> SuiteResult:
    """Measures each network's trackers.

    Raises:
        FeatureFrontendError: Images or weights cannot be read.
    """
    budget = options.keypoints[0] if options.keypoints else _BUDGET
    frames = load_frames(options.images, _FRAME_COUNT)
    if options.sizes:
        frames = resized(frames, options.sizes[0])
    rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    measured = {name: _measure(name, frames, budget, rounds, options, log) for name in options.extractors}
    where = f"at most {budget} points, {options.device}"
    note = f"{rounds} interleaved rounds over {frames.description}, forwards and backwards in turns."
    rows = tuple(
        (f"{name} {engine}", f"{np.median(points):.0f}", *timing_cells(timing))
        for name, own in measured.items()
        for engine, (timing, points) in own.engines.items()
    )
    fractions = tuple((name, *own.cost_cells()) for name, own in measured.items())
    meaning = (
        f"Persistent minus chain, as a fraction of the extraction of chain, round by round. Aim: at most {BAR:.0%}."
    )
    tables = (
        Table(f"Whole frame with tracks, {where}", ("engine", "points", *TIMING_COLUMNS), rows, note),
        Table(
            "What persistent costs",
            ("network", "median", f"{CONFIDENCE:.0%} interval", "aim"),
            fractions,
            meaning,
        ),
    )
    data = {"image_source": frames.description, "networks": {name: own.as_json() for name, own in measured.items()}}
    return SuiteResult("tracks", tables, data)


class _Measured:
    """One network's timings.

    Args:
        engines: Timing and number of points per frame, by tracker.
        extraction_ms: Extraction time of `chain`, one per round.
    """

    def __init__(self, engines: dict[str, tuple[Timing, list[int]]], extraction_ms: list[float]) -> None:
        self.engines = engines
        chain, persistent = (np.array(engines[name][0].samples_ms) for name in _TRACKERS)
        self.fractions: list[float] = ((persistent - chain) / np.array(extraction_ms)).tolist()
        self.extraction = Timing("extraction", tuple(extraction_ms))

    def cost_cells(self) -> tuple[str, str, str]:
        """Median of the fractions, its interval, and whether the aim is met."""
        median, interval = float(np.median(self.fractions)), median_interval(self.fractions)
        between = "-" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}"
        return f"{median:.1%}", between, "met" if median <= BAR else "MISSED"

    def as_json(self) -> dict[str, Any]:
        """Every sample."""
        engines = {name: {**timing.as_json(), "points": points} for name, (timing, points) in self.engines.items()}
        return {"engines": engines, "extraction": self.extraction.as_json(), "fractions": self.fractions}


def _measure(name: str, frames: Frames, budget: int, rounds: int, options: Options, log: Log) -> _Measured:
    settings = {
        tracker: Settings(
            extractor=name,
            max_num_keypoints=budget,
            weights_dir=options.weights_dir,
            device=options.device,
            tracker=tracker,
            fallback_extractor="",
        )
        for tracker in _TRACKERS
    }
    frontends = {tracker: Frontend.from_pretrained(own) for tracker, own in settings.items()}
    lucas_kanade = LucasKanadeSequence(budget)
    points: dict[str, list[int]] = {engine: [] for engine in (*_TRACKERS, _LUCAS_KANADE)}
    extraction_ms: list[float] = []

    def call(process: Callable[[Any, int], Any], number: int) -> Any:
        return process(frames.at(_there_and_back(number, len(frames))), number * _FRAME_NS)

    def inspect(engine: str, result: Any) -> None:
        tracks: Tracks = result.tracks
        points[engine].append(len(tracks))
        if engine == _TRACKERS[0]:
            extraction_ms.append(result.times.extraction_ms)

    try:
        calls = {tracker: partial(call, frontend.process) for tracker, frontend in frontends.items()}
        calls[_LUCAS_KANADE] = partial(call, lucas_kanade.process)
        interleave(calls, 2 if options.quick else 2 * len(frames))  # enough calls to trigger compilation
        for frontend in frontends.values():
            frontend.extractor.wait_until_fast()
            frontend.reset()
        log(f"{name}: {rounds} rounds")
        timings = interleave(
            calls, rounds, warmup=options.warmup, synchronize=synchronizer(options.device), inspect=inspect
        )
    finally:
        for frontend in frontends.values():
            frontend.close()
    return _Measured({engine: (timing, points[engine]) for engine, timing in timings.items()}, extraction_ms)


def _there_and_back(number: int, count: int) -> int:
    """0, 1 ... count - 1, count - 2 ... 0, 1 ...: an endless sequence without jumps."""
    place = number % max(2 * count - 2, 1)
    return min(place, 2 * count - 2 - place) if count > 1 else 0
