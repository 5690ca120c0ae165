"""Work of fixed shapes, captured once and run again for each frame: a CUDA graph on a GPU, the same calls on a CPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import torch

__all__ = [
    "CudaGraphDevice",
    "EagerGraphDevice",
    "Graph",
    "GraphDevice",
    "Mark",
    "constants",
    "download",
    "make_graph_device",
    "tensors_of",
    "wait_for_own_work",
]

T = TypeVar("T")
_WARM_UP_RUNS = 3  # as torch's documentation of CUDA graphs has it
_MS_PER_S = 1e3
# Each capture begins by waiting for the whole device, which CUDA forbids while another thread captures on it.
_ONE_CAPTURE = threading.Lock()


@dataclass(frozen=True)
class Graph(Generic[T]):
    """What was captured: `replay` computes `result`, whose tensors `tensors_of` finds, anew in the same memory."""

    result: T
    replay: Callable[[], object]


class Mark(Protocol):
    """A moment in a device's work."""

    def elapsed_time(self, later: Any) -> float:
        """Milliseconds to a later mark that the device has reached."""


class GraphDevice(Protocol):
    """A device that runs captured work, one after another."""

    device: torch.device

    def active(self) -> AbstractContextManager[Any]:
        """In its context the device's work follows what was given to it before."""

    def capture(self, work: Callable[[], T]) -> Graph[T]:
        """Captures `work`, which waits for nothing.

        It may be run several times for that: what it overwrites must mean nothing before.
        """

    def host_buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Memory of the host that the device copies from and to while the host goes on."""

    def mark(self) -> Mark:
        """The end of what the device has been given so far."""

    def wait(self) -> None:
        """Returns once the device has done what it was given."""


class CudaGraphDevice:
    """Captures CUDA graphs on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # What was made for it so far, such as the network's weights, is there when its work begins.
        self._stream.wait_stream(torch.cuda.current_stream(device))

    def active(self) -> AbstractContextManager[Any]:
        """See `GraphDevice`."""
        context: AbstractContextManager[Any] = torch.cuda.stream(self._stream)
        return context

    def capture(self, work: Callable[[], T]) -> Graph[T]:
        """See `GraphDevice`."""
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with self.active():
            for _ in range(_WARM_UP_RUNS):
                work()
            self.wait()
            graph = torch.cuda.CUDAGraph()
            # thread_local: a model loaded beside the stream captures its graph while another thread uses the GPU.
            with _ONE_CAPTURE, torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                result = work()
        return Graph(result, graph.replay)

    def host_buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """See `GraphDevice`."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def mark(self) -> Mark:
        """See `GraphDevice`."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def wait(self) -> None:
        """See `GraphDevice`."""
        self._stream.synchronize()


class EagerGraphDevice:
    """Runs the work itself each time, with the memory and the order of a graph."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def active(self) -> AbstractContextManager[Any]:
        """See `GraphDevice`."""
        return nullcontext()

    def capture(self, work: Callable[[], T]) -> Graph[T]:
        """See `GraphDevice`."""
        result = work()

        def replay() -> None:
            for tensor, again in zip(tensors_of(result), tensors_of(work()), strict=True):
                tensor.copy_(again)

        return Graph(result, replay)

    def host_buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """See `GraphDevice`."""
        return torch.empty(shape, dtype=dtype)

    def mark(self) -> Mark:
        """See `GraphDevice`."""
        return _Moment(time.perf_counter())

    def wait(self) -> None:
        """See `GraphDevice`."""


@dataclass(frozen=True)
class _Moment:
    """A time of the host in s."""

    time_s: float

    def elapsed_time(self, later: _Moment) -> float:
        """See `Mark`."""
        return (later.time_s - self.time_s) * _MS_PER_S


def make_graph_device(device: torch.device) -> GraphDevice:
    """The graph_device for `device`."""
    return CudaGraphDevice(device) if device.type == "cuda" else EagerGraphDevice(device)


def wait_for_own_work(device: torch.device) -> None:
    """Returns once the device has done what this thread gave to its current stream; at once on a CPU.

    To wait for the whole device would be an error, and the end of the capture, while another thread captures.
    """
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def tensors_of(result: object) -> Iterator[torch.Tensor]:
    """The tensors in a dataclass or tuple, and in those that it holds."""
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, tuple):
        for part in result:
            yield from tensors_of(part)
    elif is_dataclass(result):
        for field in fields(result):
            yield from tensors_of(getattr(result, field.name))


def download(graph_device: GraphDevice, result: T) -> T:
    """A dataclass of tensors in the host's memory, once the device has been waited for."""
    copies = {}
    for field in fields(result):  # type: ignore[arg-type]
        tensor = getattr(result, field.name)
        copies[field.name] = graph_device.host_buffer(tuple(tensor.shape), tensor.dtype)
        copies[field.name].copy_(tensor, non_blocking=True)
    copied: T = replace(result, **copies)  # type: ignore[type-var]
    return copied


def constants(like: torch.Tensor, *values: float) -> torch.Tensor:
    """(N,) numbers of the type of `like`, made on its device: captured work can copy none from the host."""
    return torch.cat([like.new_full((1,), value) for value in values])
