"""Captures work with fixed shapes once and replays it for each frame: a CUDA graph on a GPU, plain calls on a CPU."""

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
_WARM_UP_RUNS = 3  # as in torch's documentation of CUDA graphs
_MS_PER_S = 1e3
# Each capture first waits for the whole device, which CUDA forbids while another thread is capturing.
_ONE_CAPTURE = threading.Lock()


@dataclass(frozen=True)
class Graph(Generic[T]):
    """Captured work: `replay` recomputes the tensors of `result` (see `tensors_of`) in the same memory."""

    result: T
    replay: Callable[[], object]


class Mark(Protocol):
    """A point in a device's sequence of work."""

    def elapsed_time(self, later: Any) -> float:
        """Milliseconds to a later mark that the device has reached."""


class GraphDevice(Protocol):
    """A device that runs captured work, one after another."""

    device: torch.device

    def active(self) -> AbstractContextManager[Any]:
        """A context in which new work runs after the work submitted before."""

    def capture(self, work: Callable[[], T]) -> Graph[T]:
        """Captures `work`, which must not wait for the device.

        It may run several times during capture, so the tensors that it overwrites must not hold anything needed.
        """

    def host_buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Host memory for asynchronous copies to and from the device."""

    def mark(self) -> Mark:
        """Marks the end of the work submitted so far."""

    def wait(self) -> None:
        """Returns once the device has finished all submitted work."""


class CudaGraphDevice:
    """Captures CUDA graphs on a separate stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # Earlier work, such as copying the network's weights, finishes before this stream starts.
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
            # thread_local: a model loaded in the background captures its graph while another thread uses the GPU.
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
    """Runs the work directly each time, with the same memory and order as a graph."""

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
    """A host time in s."""

    time_s: float

    def elapsed_time(self, later: _Moment) -> float:
        """See `Mark`."""
        return (later.time_s - self.time_s) * _MS_PER_S


def make_graph_device(device: torch.device) -> GraphDevice:
    """The `GraphDevice` for `device`."""
    return CudaGraphDevice(device) if device.type == "cuda" else EagerGraphDevice(device)


def wait_for_own_work(device: torch.device) -> None:
    """Returns once the device has finished this thread's work on its current stream; at once on a CPU.

    Waiting for the whole device while another thread captures would raise an error and abort the capture.
    """
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def tensors_of(result: object) -> Iterator[torch.Tensor]:
    """The tensors in a dataclass or tuple, recursively."""
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, tuple):
        for part in result:
            yield from tensors_of(part)
    elif is_dataclass(result):
        for field in fields(result):
            yield from tensors_of(getattr(result, field.name))


def download(graph_device: GraphDevice, result: T) -> T:
    """Copies a dataclass of tensors to host memory; valid once `wait` has returned."""
    copies = {}
    for field in fields(result):  # type: ignore[arg-type]
        tensor = getattr(result, field.name)
        copies[field.name] = graph_device.host_buffer(tuple(tensor.shape), tensor.dtype)
        copies[field.name].copy_(tensor, non_blocking=True)
    copied: T = replace(result, **copies)  # type: ignore[type-var]
    return copied


def constants(like: torch.Tensor, *values: float) -> torch.Tensor:
    """(N,) numbers with the type and device of `like`, created on the device: a graph cannot copy from the host."""
    return torch.cat([like.new_full((1,), value) for value in values])
