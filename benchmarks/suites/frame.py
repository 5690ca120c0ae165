"""Suite `frame`: a whole frame, from uint8 image to features and matches on the CPU; ours compared with kornia."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.engines.extraction import KorniaEngine, NetworkEngine, load_engines
from benchmarks.engines.frames import FrameEngine, KorniaFrames, OwnFrames
from benchmarks.floors import Floor, copying_floor, count_operations, product_floor
from benchmarks.images import load_frames, resized
from benchmarks.measure import interleave, synchronizer
from benchmarks.tables import TIMING_COLUMNS, milliseconds, timing_cells
from benchmarks.types import Canvas, Options, Size, SuiteResult, Table
from benchmarks.variants import agreement_table, agreements_of_variants, ratio_table, ratios_of_variants
from feature_frontend.errors import SettingsError
from feature_frontend.extractors.execution import whole_frame
from feature_frontend.extractors.extractor import Extractor

__all__ = ["ENGINES", "HELP", "run"]

HELP = "a whole frame, uint8 image in, features and matches on the CPU out: ours and kornia, beside the floors"
ENGINES = ("fast", "plain", "kornia")

_SIZE: Size = (640, 480)
_BUDGET = 1000
_FRAME_COUNT = 8
# On a GPU, enough for a 99th percentile.
_ROUNDS = {"cpu": 30, "cuda": 1000}
_QUICK_ROUNDS = 5

Log = Callable[[str], None]


def run(options: Options, log: Log) -> SuiteResult:
    """Measures each network's variants.

    Raises:
        FeatureFrontendError: No engine is left, images or weights cannot be read, or engines that should compute the
            same results differ.
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
    agreements = agreements_of_variants(engines, frames.at(0))
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
    note = f"{rounds} interleaved rounds over {frames.description}; each frame is matched with the previous one."
    tables = [Table(f"Whole frame, {where}", ("engine", "matches", *TIMING_COLUMNS), rows, note)]
    ratios = ratios_of_variants(timings)
    if ratios:
        tables.append(ratio_table(f"How many times as fast, {where}", ratios, timings))
    if agreements:
        tables.append(agreement_table(agreements))
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
        "ratios": {name: ratio.as_json() for name, ratio in ratios.items()},
        "agreement": {name: agreement.as_json() for name, agreement in agreements.items()},
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
        # Positions, scores and descriptors; a match has an index, a similarity and a margin.
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
