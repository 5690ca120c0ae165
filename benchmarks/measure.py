"""Times several engines in one process in alternation, so that changes on the machine affect all of them."""

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
    """A function that waits until `device` has finished all work; does nothing on the CPU."""
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
    """Runs every engine once per round, always in the order of `calls`: A B C, A B C.

    Args:
        calls: Engines by name. Each receives the round number, so that all use the same input in a round.
        rounds: Number of timed rounds, at least 1.
        warmup: Number of untimed rounds before these, also numbered from 0.
        synchronize: Waits for a device; called before each start and end of a duration.
        inspect: Receives an engine's name and result after each timed round, outside the duration.
        clock_ns: Monotonic time in ns.

    Raises:
        ValueError: The number of rounds is 0.
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
                # Freed here, outside the durations: users also free a result only after the next frame.
                del result
            gc.collect()
    return {name: Timing(name, tuple(durations)) for name, durations in samples.items()}


@contextmanager
def _collector_off() -> Iterator[None]:
    """Disables automatic garbage collection; existing objects are frozen so that manual collection is fast."""
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
