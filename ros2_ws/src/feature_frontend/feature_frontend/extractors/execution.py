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
from feature_frontend.preprocessing import (
    allowed_pixels,
    images_to_batch,
    masks_to_tensors,
    resize_tensor,
    tensors_to_batch,
)

__all__ = ["CompiledExecution", "Execution", "GraphExecution", "PlainExecution", "whole_frame"]

Images = Sequence[npt.NDArray[np.uint8]]
_MOST_GRAPHS = 4
_WARM_UP_RUNS = 3  # as torch's documentation of CUDA graphs has it


class Execution(Protocol):
    """Runs a network on images of one size."""

    def __call__(
        self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None
    ) -> list[NetworkFeatures]:
        """Features of (H, W[, 3]) uint8 images in the coordinates of the resized image, one entry an image.

        Masks are (H, W) uint8, 0 = do not use, one an image; None where no image has one.
        """


class PlainExecution:
    """One operation after another."""

    def __init__(self, network: NetworkProtocol, device: torch.device) -> None:
        self._network = network
        self._device = device

    def __call__(
        self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None
    ) -> list[NetworkFeatures]:
        """See `Execution`."""
        batch = images_to_batch(images, self._device, self._network.input_channels)
        return self._network.extract(resize_tensor(batch, resize), options, _allowed(masks, resize, self._device))


class CompiledExecution:
    """On the CPU: the work for every pixel compiled, once `compiler` is ready with it."""

    def __init__(self, network: FastNetwork, compiler: BackgroundCompiler) -> None:
        self._network = network
        self._compiler = compiler

    def __call__(
        self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None
    ) -> list[NetworkFeatures]:
        """See `Execution`."""
        device = torch.device("cpu")
        batch = images_to_batch(images, device, self._network.input_channels)
        dense = self._compiler(resize_tensor(batch, resize))
        return self._network.sparse(dense, options, _allowed(masks, resize, device)).unpadded()


@dataclass(frozen=True)
class _Key:
    """What a graph is made for."""

    shapes: tuple[tuple[int, ...], ...]
    resize: Resize
    options: DetectionOptions
    has_masks: bool


@dataclass(frozen=True)
class _Graph:
    """A recorded frame: fill `host` with images, then masks; copy it to `device`, `replay`, read `features`."""

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

    def __init__(self, network: FastNetwork, device: torch.device) -> None:
        self._network = network
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: dict[_Key, _Graph] = {}

    def __call__(
        self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None
    ) -> list[NetworkFeatures]:
        """See `Execution`."""
        key = _Key(tuple(image.shape for image in images), resize, options, masks is not None)
        if key not in self._graphs:
            while len(self._graphs) >= _MOST_GRAPHS:
                # The oldest, with its memory: a live parameter that moves makes one graph after another.
                self._graphs.pop(next(iter(self._graphs)))
            self._graphs[key] = self._record(key)
        graph = self._graphs[key]
        with torch.cuda.stream(self._stream):
            for pixels, host, device in zip([*images, *(masks or ())], graph.host, graph.device, strict=True):
                np.copyto(host.numpy(), pixels)
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
        shapes = [*key.shapes, *(shape[:2] for shape in key.shapes if key.has_masks)]
        host = [torch.zeros(shape, dtype=torch.uint8).pin_memory() for shape in shapes]
        device = [torch.zeros(shape, dtype=torch.uint8, device=self._device) for shape in shapes]
        images, masks = device[: len(key.shapes)], device[len(key.shapes) :] or None
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_RUNS):
                whole_frame(self._network, images, key.resize, key.options, masks)
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):
                features = whole_frame(self._network, images, key.resize, key.options, masks)
        return _Graph(host, device, graph.replay, features)


def whole_frame(
    network: FastNetwork,
    images: Sequence[torch.Tensor],
    resize: Resize,
    options: DetectionOptions,
    masks: Sequence[torch.Tensor] | None = None,
) -> PaddedFeatures:
    """All work on (H, W[, 3]) uint8 images that are on the network's device; waits for nothing on a GPU.

    Masks are (H, W) uint8, 0 = do not use, one an image; None where no image has one.
    """
    batch = tensors_to_batch(images, network.input_channels)
    allowed = None if masks is None else allowed_pixels(masks, resize)
    return network.sparse(network.dense(resize_tensor(batch, resize)), options, allowed)


def _allowed(masks: Images | None, resize: Resize, device: torch.device) -> torch.Tensor | None:
    return None if masks is None else allowed_pixels(masks_to_tensors(masks, device), resize)
