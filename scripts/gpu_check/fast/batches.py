"""Step: throughput in images per second in batches, with peers at the same batch size."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from benchmarks.measure import interleave, synchronizer
from benchmarks.tables import milliseconds
from benchmarks.types import Table
from feature_frontend.types import Features
from scripts.gpu_check.fast.aims import AIMS, aim_text
from scripts.gpu_check.fast.floors import Floors
from scripts.gpu_check.fast.settings import NETWORKS, PRECISIONS, Timed, at_turn, budgets, frames_for, sizes
from scripts.gpu_check.fast.whole_frames import PeakMemory, rounds_within
from scripts.gpu_check.models import available, on_device
from scripts.gpu_check.step import Context, Outcome
from scripts.gpu_check.timebox import TimeBox

__all__ = ["batches"]

_SIZES = (32, 8, 1)
_REHEARSED_SIZES = (2, 1)
_SECONDS = 0.8


def batches(context: Context, box: TimeBox) -> Outcome:
    """`Extractor.extract` on batches of 32, 8 and 1, including the upload from host memory."""
    networks = ("silk-vggnp-mu",) if context.is_rehearsal else NETWORKS
    there, missing = available(context, networks)
    batch_sizes = _REHEARSED_SIZES if context.is_rehearsal else _SIZES
    settings = list(product(there, batch_sizes, PRECISIONS))
    floors = Floors(context.device)
    rows, data = [], {}
    for network, count, precision in box.each(settings, lambda each: f"{each[0]} {each[2]}, {each[1]} at a time"):
        with box.attempt(f"{network} {precision}, {count} at a time"):
            found = _measure(context, network, count, precision, floors)
            rows.append(
                (
                    network,
                    precision,
                    str(count),
                    milliseconds(found["median_ms"]),
                    milliseconds(found["p95_ms"]),
                    f"{found['per_second']:.0f}",
                    f"{found['per_second_on_host']:.0f}",
                    milliseconds(found["floor"]["ms"]),
                    f"{found['median_ms'] / found['floor']['ms']:.1f}",
                    "-" if found["peak_mib"] is None else f"{found['peak_mib']:.0f}",
                )
            )
            data[f"{network} {precision} {count}"] = found
    width, height = sizes(context)[0]
    columns = ("network", "format", "images", "p50 ms", "p95", "images/s", "to the host", "floor", "p50/floor", "MiB")
    note = (
        f"{width}x{height}, {budgets(context)[0]} points. Images on the host in, features on the device out; to the "
        "host: images a second when they are brought there, each image's tensors by themselves, as a user would."
    )
    best = max(data, key=lambda name: data[name]["per_second"])
    own = max((found["per_second"] for name, found in data.items() if name.startswith(networks[0])), default=0.0)
    text = f"{networks[0]}: {own:.0f} images/s at best; all: {data[best]['per_second']:.0f} by {best}"
    text += aim_text(context, own >= AIMS.images_per_second, f"aim {AIMS.images_per_second:g} images/s")
    text += f"; not there: {', '.join(missing)}" if missing else ""
    table = Table(f"Batches, {context.device}", columns, tuple(rows), note)
    return Outcome(passed=True, text=text, tables=[table], data={"settings": data, "missing": missing})


def _measure(context: Context, network: str, count: int, precision: str, floors: Floors) -> dict[str, Any]:
    timed = Timed(network, "chain", "mnn", sizes(context)[0], budgets(context)[0], precision)
    frames = frames_for(context, timed.size)
    memory = PeakMemory(context.device)
    extractor = on_device(timed.settings(context))

    def call(number: int) -> list[Features]:
        return extractor.extract_batch([at_turn(frames, number + place) for place in range(count)])

    def to_host(number: int) -> list[Features]:
        return [features.to("cpu") for features in call(number)]

    call(0)
    rounds = rounds_within(context, _SECONDS / 2, lambda: call(1))
    timings = interleave({"device": call, "host": to_host}, rounds, warmup=1, synchronize=synchronizer(context.device))
    peak_mib = memory.mib()
    floor = floors.of(extractor, [at_turn(frames, place) for place in range(count)])
    medians = {name: float(np.median(timing.samples_ms)) for name, timing in timings.items()}
    return {
        **timings["device"].as_json(),
        "per_second": count / medians["device"] * 1e3,
        "per_second_on_host": count / medians["host"] * 1e3,
        "floor": floor,
        "peak_mib": peak_mib,
    }
