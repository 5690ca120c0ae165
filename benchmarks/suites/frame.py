"""Suite `frame`: a whole frame, from a uint8 image to features and matches on the CPU, ours beside kornia's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.agreement import compare_found
from benchmarks.engines.extraction import KorniaEngine, NetworkEngine, load_engines
from benchmarks.engines.frames import FrameEngine, KorniaFrames, OwnFrames
from benchmarks.floors import Floor, copying_floor, count_operations, product_floor
from benchmarks.images import load_frames, resized
from benchmarks.measure import interleave, synchronizer
from benchmarks.ratios import compare
from benchmarks.tables import TIMING_COLUMNS, milliseconds, timing_cells
from benchmarks.types import Canvas, Options, Size, SuiteResult, Table, Timing
from feature_frontend.errors import SettingsError
from feature_frontend.extractors.execution import whole_frame
from feature_frontend.extractors.extractor import Extractor

__all__ = ["ENGINES", "HELP", "run"]

HELP = "a whole frame, uint8 image in, features and matches on the CPU out: ours and kornia, beside the floors"
ENGINES = ("fast", "plain", "kornia")

_SIZE: Size = (640, 480)
_BUDGET = 1000
_FRAME_COUNT = 8
# Enough on a GPU for a 99th percentile.
_ROUNDS = {"cpu": 30, "cuda": 1000}
_QUICK_ROUNDS = 5

Log = Callable[[str], None]


def run(options: Options, log: Log) -> SuiteResult:
    """Measures each network's variants.

    Raises:
        FeatureFrontendError: No engine is left, images or weights cannot be read, or two engines that should compute
            the same do not.
    """
    size = options.sizes[0] if options.sizes else _SIZE
    budget = options.keypoints[0] if options.keypoints else _BUDGET
    frames = resized(load_frames(options.images, _FRAME_COUNT), size)
    engines = _frame_engines(options, log)
    if not engines:
        msg = f"no engine is left of {', '.join(options.engines or ENGINES)}; choose others by --engines"
        raise SettingsError(msg)
    for engine in engines:
        engine.prepare(frames.at(0), budget)
    agreements = _agreements(engines, frames.at(0))
    device = torch.device(options.device)
    rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS[device.type])
    log(f"frame: {rounds} rounds")
    matches: dict[str, list[int]] = {engine.name: [] for engine in engines}
    by_name = {engine.name: engine for engine in engines}

    def call(engine: FrameEngine, number: int) -> Any:
        return engine(frames.at(number))

    timings = interleave(
        {name: partial(call, engine) for name, engine in by_name.items()},
        rounds,
        warmup=options.warmup,
        synchronize=synchronizer(options.device),
        inspect=lambda name, result: matches[name].append(len(by_name[name].pairs(result))),
    )
    where = f"{size[0]}x{size[1]}, at most {budget} keypoints, {options.device}"
    rows = tuple((name, str(int(np.median(matches[name]))), *timing_cells(timing)) for name, timing in timings.items())
    note = f"{rounds} interleaved rounds over {frames.description}; each frame is matched with the one before."
    tables = [Table(f"Whole frame, {where}", ("engine", "matches", *TIMING_COLUMNS), rows, note)]
    ratios = _ratios(timings)
    if ratios:
        ratio_rows = tuple((name, str(compare(*pair))) for name, pair in ratios.items())
        tables.append(Table(f"How many times as fast, {where}", ("time / time", "median of rounds (95 %)"), ratio_rows))
    floors = {
        engine.name: _floors(engine.engine.extractor, frames.at(0), device)
        for engine in engines
        if isinstance(engine, OwnFrames) and engine.name.endswith(" fast")
    }
    if floors:
        tables.append(_floor_table(floors))
    data = {
        "image_source": frames.description,
        "engines": {name: {**timing.as_json(), "matches": matches[name]} for name, timing in timings.items()},
        "ratios": {name: compare(*pair).as_json() for name, pair in ratios.items()},
        "agreement": agreements,
        "floors": {
            name: [{**vars(floor), "milliseconds": floor.milliseconds} for floor in own] for name, own in floors.items()
        },
    }
    return SuiteResult("frame", tuple(tables), data)


def _frame_engines(options: Options, log: Log) -> list[FrameEngine]:
    engines: list[FrameEngine] = []
    for engine in load_engines(options, log):
        if isinstance(engine, KorniaEngine):
            engines.append(KorniaFrames(engine))
        elif isinstance(engine, NetworkEngine):
            engines.append(OwnFrames(engine))
    return engines


def _agreements(engines: Sequence[FrameEngine], image: Canvas) -> dict[str, Any]:
    """Each variant of a network against the first one."""
    agreements = {}
    for network in dict.fromkeys(engine.name.rpartition(" ")[0] for engine in engines):
        reference, *others = [engine for engine in engines if engine.name.rpartition(" ")[0] == network]
        expected = reference.found(reference(image))
        for other in others:
            agreement = compare_found(expected, other.found(other(image)))
            agreement.check(other.name)
            agreements[f"{other.name} vs {reference.name}"] = agreement.as_json()
    return agreements


def _ratios(timings: dict[str, Timing]) -> dict[str, tuple[Timing, Timing]]:
    networks = dict.fromkeys(name.rpartition(" ")[0] for name in timings)
    return {
        f"{network}: {slow} / fast": (timings[f"{network} {slow}"], timings[f"{network} fast"])
        for network in networks
        for slow in ("kornia", "plain")
        if {f"{network} {slow}", f"{network} fast"} <= timings.keys()
    }


@torch.no_grad()
def _floors(extractor: Extractor, image: Canvas, device: torch.device) -> list[Floor]:
    network: Any = extractor._network
    pixels = torch.from_numpy(image).to(device)
    resize, options = extractor._resize(*image.shape[:2]), extractor._options()
    features = whole_frame(network, [pixels], resize, options)
    capacity, dim = features.descriptors.shape[1:]
    operations = count_operations(lambda: whole_frame(network, [pixels], resize, options))
    matching = 2 * capacity * capacity * dim
    floors = [product_floor("convolutions and products", operations + matching, device, features.descriptors.dtype)]
    if device.type == "cuda":
        # Positions, scores and descriptors; a match is an index, a similarity and a margin.
        down = capacity * (3 * 4 + dim * features.descriptors.element_size() + 16)
        floors.append(copying_floor("image up", image.size, device, to_device=True))
        floors.append(copying_floor("results down", down, device, to_device=False))
    return floors


def _floor_table(floors: dict[str, list[Floor]]) -> Table:
    rows = tuple(
        (
            name,
            floor.what,
            f"{floor.amount:.3g} {floor.unit}",
            f"{floor.rate:.3g} {floor.unit}/s",
            milliseconds(floor.milliseconds),
        )
        for name, own in floors.items()
        for floor in own
    )
    note = (
        "What a frame cannot do without, at the best rate that this device showed at it: one large matrix product, one "
        "copy from or to pinned memory of just that size."
    )
    return Table("Floors", ("engine", "work", "amount", "rate", "ms"), rows, note)
