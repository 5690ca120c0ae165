"""Times several engines in one process, in turns, so that what changes on the machine meanwhile strikes all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.types import Timing

__all__ = ["interleave", "synchronizer"]

Call = Callable[[int], object]


def synchronizer(device: str) -> Callable[[], None]:
    """What waits until all work given to `device` is done; nothing on the CPU, which returns when it is."""
    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None


def interleave(
    calls: Mapping[str, Call],
    rounds: int,
    *,
    warmup: int = 0,
    synchronize: Callable[[], None] = lambda: None,
    inspect: Callable[[str, Any], None] = lambda _name, _result: None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Timing]:
    """Runs every engine once a round, always in the order of `calls`: A B C, A B C.

    Args:
        calls: Engines by name. Each is given the number of the round, for all to take the same input in one round.
        rounds: Timed rounds, at least 1.
        warmup: Rounds before these that are not timed; they too are numbered from 0.
        synchronize: Waits for a device; called before a duration begins and before it ends.
        inspect: Takes an engine's name and what it returned in a timed round, after the clock was read.
        clock_ns: Monotonic time in ns.

    Raises:
        ValueError: There is no round.
    """
    if rounds < 1:
        msg = f"{rounds} rounds cannot be timed; expected at least 1"
        raise ValueError(msg)
    for number in range(warmup):
        for call in calls.values():
            call(number)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    with _collector_off():
        for number in range(rounds):
            for name, call in calls.items():
                synchronize()
                start = clock_ns()
                result = call(number)
                synchronize()
                samples[name].append((clock_ns() - start) / 1e6)
                inspect(name, result)
                # Freed here, outside every duration, as a user frees it when the next frame's is there.
                del result
            gc.collect()
    return {name: Timing(name, tuple(durations)) for name, durations in samples.items()}


@contextmanager
def _collector_off() -> Iterator[None]:
    """No garbage collection on its own; what exists by now is set aside, so that collecting by hand is quick."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()
