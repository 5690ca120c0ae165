"""Lower bounds for a frame: the bytes to move, the operations to compute, and the device's speed for these."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Floor", "copying_floor", "count_operations", "product_floor"]

_REPETITIONS = {"cpu": 5, "cuda": 20}
_SIDE = {"cpu": 1024, "cuda": 8192}
_MS_PER_S = 1e3


@dataclass(frozen=True)
class Floor:
    """An amount of work and the best rate measured on this device for such work.

    Attributes:
        what: Description for a table.
        amount: Amount of work.
        unit: Unit of the amount: "B" or "FLOP".
        rate: Amount per second.
    """

    what: str
    amount: float
    unit: str
    rate: float

    @property
    def milliseconds(self) -> float:
        """Duration at that rate."""
        return self.amount / self.rate * _MS_PER_S


def copying_floor(what: str, count: int, device: torch.device, *, to_device: bool) -> Floor:
    """`count` bytes copied in one piece between the host's pinned memory and a GPU."""
    host = torch.zeros(count, dtype=torch.uint8, pin_memory=True)
    on_device = torch.zeros(count, dtype=torch.uint8, device=device)
    source, target = (host, on_device) if to_device else (on_device, host)
    seconds = _fastest(lambda: target.copy_(source, non_blocking=True), device)
    return Floor(what, count, "B", count / seconds)


def product_floor(what: str, operations: int, device: torch.device, dtype: torch.dtype) -> Floor:
    """`operations` at the rate of one large matrix product, with torch's current settings."""
    side = _SIDE[device.type]
    matrix = torch.randn((side, side), device=device, dtype=dtype)
    seconds = _fastest(lambda: matrix @ matrix, device)
    return Floor(what, operations, "FLOP", 2 * side**3 / seconds)


def count_operations(work: Callable[[], object]) -> int:
    """Counts the floating-point operations of the convolutions and matrix products in `work`, including additions."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    """Minimum time in s over several runs."""
    wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    durations = []
    for _ in range(_REPETITIONS[device.type]):
        wait()
        start = time.perf_counter()
        work()
        wait()
        durations.append(time.perf_counter() - start)
    return float(np.min(durations))
