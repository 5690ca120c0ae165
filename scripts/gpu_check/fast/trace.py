"""Step: time per frame from torch's profiler: the longest kernels, and the device's idle time."""

from __future__ import annotations

import gzip
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import interleave, synchronizer
from benchmarks.tables import milliseconds
from benchmarks.types import Table
from feature_frontend.pipeline.frontend import Frontend
from scripts.gpu_check.fast.settings import FRAME_NS, Timed, at_turn, frames_for, headline
from scripts.gpu_check.models import available, on_device
from scripts.gpu_check.step import Context, Outcome
from scripts.gpu_check.timebox import TimeBox

__all__ = ["Kernel", "longest", "one_frame"]

_LONGEST = 5
_NAME_LENGTH = 70
_WARM_UP, _TIMED = 5, 20


@dataclass(frozen=True)
class Kernel:
    """A kernel on the device, or an operation on a CPU.

    Attributes:
        name: Name in the profiler.
        calls: Number of calls in the frame.
        ms: Total time of all calls.
    """

    name: str
    calls: int
    ms: float


def longest(kernels: Iterable[Kernel], count: int = _LONGEST) -> list[tuple[Kernel, float]]:
    """The `count` longest kernels, each with its fraction of the total time."""
    ordered = sorted(kernels, key=lambda kernel: -kernel.ms)
    whole = sum(kernel.ms for kernel in ordered)
    return [(kernel, kernel.ms / whole if whole else 0.0) for kernel in ordered[:count]]


def one_frame(context: Context, box: TimeBox) -> Outcome:
    """The headline's frame in float16, with the trace; its other format and tracker without it."""
    available(context, [headline(context).network])
    settings = [headline(context), headline(context, "float32"), headline(context, tracker="persistent")]
    tables, files, data, texts = [], [], {}, []
    for timed in box.each(settings, lambda each: each.name):
        with box.attempt(timed.name):
            trace = context.scratch / "frame_trace.json" if timed == settings[0] else None
            found, kernels = _profile(context, timed, trace)
            top = longest(kernels)
            rows = tuple(
                (_short(kernel.name), str(kernel.calls), milliseconds(kernel.ms), f"{fraction:.1%}")
                for kernel, fraction in top
            )
            others = len(kernels) - len(top)
            rest = found["busy_ms"] - sum(kernel.ms for kernel, _ in top)
            rows += (
                (f"{others} others", "", milliseconds(max(rest, 0.0)), f"{max(1 - sum(s for _, s in top), 0):.1%}"),
            )
            note = (
                f"Device busy {found['busy_ms']:.3f} ms in {found['launches']} kernels and copies, of "
                f"{found['frame_ms']:.3f} ms that a frame takes without the profiler; the rest is the host's."
            )
            tables.append(
                Table(f"The longest kernels, {timed.name}", ("kernel", "calls", "ms", "fraction"), rows, note)
            )
            data[timed.name] = {**found, "kernels": [vars(kernel) for kernel in kernels]}
            if trace is not None:
                files.append(_zipped(trace))
                named = ", ".join(f"{_short(kernel.name)} {fraction:.0%}" for kernel, fraction in top)
                busy = f"device busy {found['busy_ms']:.2f} of {found['frame_ms']:.2f} ms"
                texts.append(f"{timed.name}: {busy}; longest: {named}")
    if context.is_rehearsal:
        texts.append("a rehearsal: operations on the CPU instead of kernels")
    saw_all = all(found["launches"] for found in data.values())
    if not saw_all:
        texts.append("the profiler saw nothing on the device: may it read the card's counters?")
    return Outcome(passed=saw_all, text="; ".join(texts), tables=tables, data=data, files=files)


def _profile(context: Context, timed: Timed, trace: Path | None) -> tuple[dict[str, Any], list[Kernel]]:
    settings = timed.settings(context)
    frontend = Frontend(on_device(settings), settings)
    frames = frames_for(context, timed.size)

    def call(number: int) -> object:
        return frontend.process(at_turn(frames, number), number * FRAME_NS)

    rehearsed = 1 if context.is_rehearsal else None
    timings = interleave(
        {timed.name: call}, rehearsed or _TIMED, warmup=rehearsed or _WARM_UP, synchronize=synchronizer(context.device)
    )
    activities = [ProfilerActivity.CPU] if context.is_rehearsal else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    if not context.is_rehearsal:
        # The profiler's start-up slows down its first frame.
        with profile(activities=activities):
            call(_TIMED)
            torch.cuda.synchronize()
    with profile(activities=activities) as profiler:
        call(_TIMED + 1)
        if not context.is_rehearsal:
            torch.cuda.synchronize()
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    frontend.close()
    kernels = _kernels(profiler.events() or [], on_device=not context.is_rehearsal)
    found = {
        "frame_ms": timings[timed.name].median,
        "busy_ms": sum(kernel.ms for kernel in kernels),
        "launches": sum(kernel.calls for kernel in kernels),
    }
    return found, kernels


def _kernels(events: Sequence[Any], *, on_device: bool) -> list[Kernel]:
    """On a device, its kernels; on a CPU, the operations excluding nested calls."""
    durations: dict[str, list[float]] = defaultdict(list)
    for event in events:
        is_of_device = event.device_type.name == "CUDA"
        if is_of_device != on_device:
            continue
        us = event.time_range.elapsed_us() if on_device else event.self_cpu_time_total
        durations[event.name].append(us)
    return sorted(
        (Kernel(name, len(own), sum(own) / 1e3) for name, own in durations.items()), key=lambda kernel: -kernel.ms
    )


def _short(name: str) -> str:
    """A kernel's name without template arguments and parameters."""
    plain = re.sub(r"<.*>|\(.*\)", "", name.replace("(anonymous namespace)::", "")).strip() or name
    words = plain.removeprefix("void ")
    return words if len(words) <= _NAME_LENGTH else f"{words[:_NAME_LENGTH]}..."


def _zipped(path: Path) -> Path:
    target = path.with_suffix(".json.gz")
    with path.open("rb") as source, gzip.open(target, "wb") as packed:
        shutil.copyfileobj(source, packed)
    path.unlink()
    return target
