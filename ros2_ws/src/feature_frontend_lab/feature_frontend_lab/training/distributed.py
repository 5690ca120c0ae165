"""Distributed training: `torchrun`'s settings and communication between processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed

from feature_frontend.runtime.device import resolve_device

__all__ = ["Processes", "processes"]

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process and its place in the run.

    Attributes:
        rank: Index of this process, from 0.
        count: Number of processes.
        device: Device of this process.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports to the user."""
        return self.rank == 0

    def from_first(self, value: T) -> T:
        """The first process's `value`, in all processes."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in any process."""
        if self.count == 1:
            return flag
        tensor = torch.tensor(int(flag), device=self.device)
        distributed.all_reduce(tensor, op=distributed.ReduceOp.MAX)
        return bool(tensor.item())


@contextmanager
def processes(device_name: str) -> Iterator[Processes]:
    """Joins the processes started by `torchrun`; without it, there is only this process.

    Args:
        device_name: "auto", "cpu", "cuda" or "cuda:N". With several processes on GPUs, each uses a separate one.

    Raises:
        SettingsError: The device does not exist.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    device = resolve_device(device_name)
    if count == 1:
        yield Processes(0, 1, device)
        return
    if device.type == "cuda":
        device = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), count, device)
    finally:
        distributed.destroy_process_group()
