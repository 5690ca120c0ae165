"""How a network's work on a batch is set in motion: plainly, compiled on the CPU, or as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.coordinates import Resize
from feature_frontend.extractors.base import (
    DetectionOptions,
    FastNetwork,
    NetworkFeatures,
    NetworkProtocol,
    PaddedFeatures,
)
from feature_frontend.extractors.compilation import BackgroundCompiler
from feature_frontend.preprocessing import images_to_batch, resize_tensor, tensors_to_batch

__all__ = ["CompiledExecution", "Execution", "GraphExecution", "PlainExecution", "whole_frame"]

Images = Sequence[npt.NDArray[np.uint8]]
_MOST_GRAPHS = 4
_WARM_UP_RUNS = 3  # as torch's documentation of CUDA graphs has it


class Execution(Protocol):
    """Runs a network on images of one size."""

    @property
    def description(self) -> str:
        """How the network runs now, in a word or two."""

    def __call__(self, images: Images, resize: Resize, options: DetectionOptions) -> list[NetworkFeatures]:
        """Features of (H, W[, 3]) uint8 images in the coordinates of the resized image, one entry an image."""


class PlainExecution:
    """One operation after another."""

    description = "uncompiled"

    def __init__(self, network: NetworkProtocol, device: torch.device) -> None:
        self._network = network
        self._device = device

    def __call__(self, images: Images, resize: Resize, options: DetectionOptions) -> list[NetworkFeatures]:
        """See `Execution`."""
        batch = images_to_batch(images, self._device, self._network.input_channels)
        return self._network.extract(resize_tensor(batch, resize), options)


class CompiledExecution:
    """On the CPU: the work for every pixel compiled, once `compiler` is ready with it."""

    def __init__(self, network: FastNetwork, compiler: BackgroundCompiler) -> None:
        self._network = network
        self._compiler = compiler

    @property
    def description(self) -> str:
        """See `Execution`."""
        return "compiled" if self._compiler.is_in_use else "uncompiled so far"

    def __call__(self, images: Images, resize: Resize, options: DetectionOptions) -> list[NetworkFeatures]:
        """See `Execution`."""
        batch = images_to_batch(images, torch.device("cpu"), self._network.input_channels)
        return self._network.sparse(self._compiler(resize_tensor(batch, resize)), options).unpadded()


@dataclass(frozen=True)
class _Key:
    """What a graph is made for."""

    shapes: tuple[tuple[int, ...], ...]
    resize: Resize
    options: DetectionOptions


@dataclass(frozen=True)
class _Graph:
    """A recorded frame: fill `host`, copy it to `device`, `replay`, read `features`."""

    host: list[torch.Tensor]
    device: list[torch.Tensor]
    replay: Callable[[], object]
    features: PaddedFeatures


class GraphExecution:
    """On a GPU: the whole frame, from bytes to descriptors, as one CUDA graph for each image size.

    The bytes go up from pinned memory on a stream of their own, and the host waits once a frame, at its end.

    Args:
        network: On `device`, in evaluation mode.
        device: A CUDA device.
    """

    description = "CUDA graph"

    def __init__(self, network: FastNetwork, device: torch.device) -> None:
        self._network = network
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: dict[_Key, _Graph] = {}

    def __call__(self, images: Images, resize: Resize, options: DetectionOptions) -> list[NetworkFeatures]:
        """See `Execution`."""
        key = _Key(tuple(image.shape for image in images), resize, options)
        if key not in self._graphs:
            while len(self._graphs) >= _MOST_GRAPHS:
                # The oldest, with its memory: a live parameter that moves makes one graph after another.
                self._graphs.pop(next(iter(self._graphs)))
            self._graphs[key] = self._record(key)
        graph = self._graphs[key]
        with torch.cuda.stream(self._stream):
            for image, host, device in zip(images, graph.host, graph.device, strict=True):
                np.copyto(host.numpy(), image)
                device.copy_(host, non_blocking=True)
            graph.replay()
            # The graph's own tensors are written again with the next frame, when these are still wanted for matching.
            own = graph.features
            kept = PaddedFeatures(
                own.keypoints.clone(), own.scores.clone(), own.descriptors.clone(), own.counts.clone()
            )
            # Reads the counts, and so waits for all of the above.
            return kept.unpadded()

    def _record(self, key: _Key) -> _Graph:
        host = [torch.zeros(shape, dtype=torch.uint8).pin_memory() for shape in key.shapes]
        device = [torch.zeros(shape, dtype=torch.uint8, device=self._device) for shape in key.shapes]
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_RUNS):
                whole_frame(self._network, device, key.resize, key.options)
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):
                features = whole_frame(self._network, device, key.resize, key.options)
        return _Graph(host, device, graph.replay, features)


def whole_frame(
    network: FastNetwork, images: Sequence[torch.Tensor], resize: Resize, options: DetectionOptions
) -> PaddedFeatures:
    """All work on (H, W[, 3]) uint8 images that are on the network's device; waits for nothing on a GPU."""
    batch = tensors_to_batch(images, network.input_channels)
    return network.sparse(network.dense(resize_tensor(batch, resize)), options)
