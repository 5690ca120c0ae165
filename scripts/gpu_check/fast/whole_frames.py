"""Step: whole frames, from a uint8 image on the host to features, matches and tracks there, in all settings."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.images import Frames
from benchmarks.measure import interleave, synchronizer
from benchmarks.tables import milliseconds
from benchmarks.types import Table, Timing
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.types import FrameResult
from scripts.gpu_check.fast.floors import Floors, matching_operations
from scripts.gpu_check.fast.settings import FRAME_NS, NETWORKS, Timed, at_turn, frames_for, settings_in_order
from scripts.gpu_check.models import available, on_device, why_no_lightglue
from scripts.gpu_check.step import Context, Outcome
from scripts.gpu_check.timebox import TimeBox

__all__ = ["COLUMNS", "PeakMemory", "percentiles", "rounds_within", "whole_frames"]

COLUMNS = ("p50 ms", "p95", "p99")
_ROUNDS, _LEAST_ROUNDS, _REHEARSED_ROUNDS = 1000, 50, 3
_WARM_UP = 6
# Timed durations: long for the first settings, which differ from the headline in one value: 1,000 frames of 1.5 ms;
# short for the others, so that many fit.
_FIRST, _FIRST_S, _OTHER_S = 14, 1.5, 0.4
_MIB = 2**20


class PeakMemory:
    """Peak GPU memory held by this process since creation; None on a CPU."""

    def __init__(self, device: str) -> None:
        self._is_card = device != "cpu"
        if self._is_card:
            gc.collect()  # graphs of earlier front-ends
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def mib(self) -> float | None:
        """MiB, including torch's cache."""
        return torch.cuda.max_memory_reserved() / _MIB if self._is_card else None


def percentiles(timing: Timing) -> tuple[str, ...]:
    """The cells below `COLUMNS`."""
    return tuple(milliseconds(value) for value in (timing.median, timing.p95, timing.p99))


def rounds_within(context: Context, seconds: float, once: Callable[[], object]) -> int:
    """The number of rounds that fit into the given seconds, from the time of one; few in a rehearsal."""
    if context.is_rehearsal:
        return _REHEARSED_ROUNDS
    start_s = time.perf_counter()
    once()
    return int(np.clip(seconds / max(time.perf_counter() - start_s, 1e-6), _LEAST_ROUNDS, _ROUNDS))


def whole_frames(context: Context, box: TimeBox) -> Outcome:
    """All networks, trackers, sizes, budgets and number formats in turn."""
    networks, missing = available(context, NETWORKS)
    why_not = why_no_lightglue(context)
    missing += [f"lightglue ({why_not})"] if why_not else []
    floors = Floors(context.device)
    frames: dict[Any, Frames] = {}
    rows: list[tuple[str, ...]] = []
    data: dict[str, Any] = {}
    settings = settings_in_order(context, networks, has_lightglue=not why_not)
    for timed in box.each(settings, lambda each: each.name):
        with box.attempt(timed.name):
            seconds = _FIRST_S if len(rows) < _FIRST else _OTHER_S
            if timed.size not in frames:
                frames[timed.size] = frames_for(context, timed.size)
            found = _measure(context, timed, frames[timed.size], floors, seconds)
            timing: Timing = found.pop("timing")
            floor_ms, memory = found["floor"]["ms"], found["peak_mib"]
            rows.append(
                (
                    f"{timed.model} {timed.tracker}",
                    timed.where,
                    timed.precision,
                    str(len(timing.samples_ms)),
                    *percentiles(timing),
                    milliseconds(found["tracks_ms"]),
                    milliseconds(floor_ms),
                    f"{timing.median / floor_ms:.1f}",
                    "-" if memory is None else f"{memory:.0f}",
                )
            )
            data[timed.name] = {**found, **timing.as_json()}
    columns = ("front-end", "image, points", "format", "frames", *COLUMNS, "tracks", "floor", "p50/floor", "MiB")
    note = (
        "From the image to features, matches with the frame before and tracks, all on the host. Tracks: ids and ages, "
        "NumPy on the CPU, part of the time. Floor: operations at the rate of the device's best large product, image "
        "up and results down in one copy each. MiB: the most that torch held of the card. Fewer frames than "
        f"1,000 where {_FIRST_S:g} s were over, behind the first {_FIRST} settings {_OTHER_S:g} s."
    )
    best = min(data, key=lambda name: data[name]["median_ms"])
    text = f"{len(rows)} of {len(settings)} settings; the quickest, {best}: {data[best]['median_ms']:.2f} ms"
    text += f"; not there: {', '.join(missing)}" if missing else ""
    table = Table(f"Whole frames, {context.device}", columns, tuple(rows), note)
    return Outcome(passed=True, text=text, tables=[table], data={"settings": data, "missing": missing})


def _measure(context: Context, timed: Timed, frames: Frames, floors: Floors, seconds: float) -> dict[str, Any]:
    settings = timed.settings(context)
    memory = PeakMemory(context.device)
    frontend = Frontend(on_device(settings), settings)
    tracks_ms: list[float] = []
    points: list[int] = []

    def call(number: int) -> FrameResult:
        return frontend.process(at_turn(frames, number), number * FRAME_NS)

    def inspect(_: str, result: FrameResult) -> None:
        tracks_ms.append(result.times.tracking_ms)
        points.append(len(result.features))

    warm_up = 2 if context.is_rehearsal else _WARM_UP
    for number in range(warm_up):
        call(number)
    rounds = rounds_within(context, seconds, lambda: call(warm_up))
    frontend.reset()
    timings = interleave(
        {timed.name: call}, rounds, warmup=1, synchronize=synchronizer(context.device), inspect=inspect
    )
    peak_mib = memory.mib()
    features = [frontend.extractor.extract(frames.at(number)) for number in (0, 1)]
    dim, is_mnn = features[0].descriptor_dim, timed.matcher == "mnn"
    matching = matching_operations(
        timed.budget, dim, None if is_mnn else lambda: frontend.matcher.match(features[0], features[1])
    )
    floor = floors.of(frontend.extractor, [frames.at(0)], matching)
    frontend.close()
    return {
        "timing": timings[timed.name],
        "tracks_ms": float(np.median(tracks_ms)),
        "points": int(np.median(points)),
        "peak_mib": peak_mib,
        "floor": floor,
        "execution": frontend.extractor.execution,
    }
