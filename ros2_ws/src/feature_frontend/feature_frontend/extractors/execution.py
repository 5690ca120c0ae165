"""How a network runs on a batch: uncompiled, compiled on the CPU, or captured as a CUDA graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.extractors.base import (
    DetectionOptions,
    FastNetwork,
    FrameMaps,
    NetworkFeatures,
    NetworkProtocol,
    PaddedFeatures,
    PreparedImage,
)
from feature_frontend.extractors.compilation import BackgroundCompiler
from feature_frontend.extractors.multi_scale import extract_at_scales, sparse_at_scales
from feature_frontend.extractors.networks.layers.keypoint_detection import suppress_non_maxima
from feature_frontend.image.preprocessing import (
    allowed_pixels,
    images_to_batch,
    masks_to_tensors,
    resize_tensor,
    tensors_to_batch,
)
from feature_frontend.image.resize import Resize
from feature_frontend.runtime.cuda_graphs import Graph, GraphDevice, Mark

__all__ = ["CompiledExecution", "Execution", "GraphExecution", "PlainExecution", "Submitted", "whole_frame"]

Images = Sequence[npt.NDArray[np.uint8]]
T = TypeVar("T")
_MOST_RECORDINGS = 4


class Execution(Protocol):
    """Runs a network on images of one size."""

    @property
    def description(self) -> str:
        """How the network currently runs, in a word or two."""

    def run(
        self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None
    ) -> list[NetworkFeatures]:
        """Features of (H, W[, 3]) uint8 images in the coordinates of the resized image, one entry per image.

        Masks are (H, W) uint8, 0 = do not use, one per image; None if no image has one.
        """

    def maps(self, image: PreparedImage, fraction: float) -> FrameMaps:
        """Features of one image, with the maps behind them; only for a `FastNetwork`, and not captured.

        `fraction` of `max_num_keypoints`, in (0, 1], are detected; `FrameMaps.options` keep the whole budget.
        """


class PlainExecution:
    """Runs the network uncompiled."""

    description = "uncompiled"

    def __init__(self, network: NetworkProtocol, device: torch.device) -> None:
        self._network = network
        self._device = device

    def run(
        self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None
    ) -> list[NetworkFeatures]:
        """See `Execution`."""
        batch = images_to_batch(images, self._device, self._network.input_channels)

        def extract(level: Resize, own: DetectionOptions) -> list[NetworkFeatures]:
            return self._network.extract(resize_tensor(batch, level), own, _allowed(masks, level, self._device))

        return extract_at_scales(extract, resize, options, self._network.minimum_size)

    def maps(self, image: PreparedImage, fraction: float) -> FrameMaps:
        """See `Execution`."""
        network = cast(FastNetwork, self._network)
        batch = _batch(image, self._device, network)
        return _maps(network, batch, network.dense(batch), image, fraction, _allowed_of(image, self._device))


class CompiledExecution:
    """On the CPU: runs the per-pixel work compiled, once `compiler` is ready."""

    def __init__(self, network: FastNetwork, compiler: BackgroundCompiler) -> None:
        self._network = network
        self._compiler = compiler

    @property
    def description(self) -> str:
        """See `Execution`."""
        return "compiled" if self._compiler.is_in_use else "uncompiled so far"

    def run(
        self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None
    ) -> list[NetworkFeatures]:
        """See `Execution`."""
        device = torch.device("cpu")
        batch = images_to_batch(images, device, self._network.input_channels)

        def sparse(level: Resize, own: DetectionOptions) -> PaddedFeatures:
            dense = self._compiler.run(resize_tensor(batch, level), is_made_smaller=level != resize)
            return self._network.sparse(dense, own, _allowed(masks, level, device), trim=True)

        return sparse_at_scales(sparse, resize, options, self._network.minimum_size).unpadded()

    def maps(self, image: PreparedImage, fraction: float) -> FrameMaps:
        """See `Execution`."""
        device = torch.device("cpu")
        batch = _batch(image, device, self._network)
        return _maps(self._network, batch, self._compiler.run(batch), image, fraction, _allowed_of(image, device))


@dataclass(frozen=True)
class _Key:
    """What a captured graph is valid for; `fraction` as for `GraphExecution.submit_maps`, 0 for `submit`."""

    shapes: tuple[tuple[int, ...], ...]
    resize: Resize
    options: DetectionOptions
    has_masks: bool
    fraction: float = 0.0


@dataclass
class _FrameGraph:
    """To run: fill `host` with images, then masks; copy it to `device`; replay the graph and the following one.

    Attributes:
        behind: The following graph, after what it depends on besides the first graph's result.
    """

    host: list[torch.Tensor]
    device: list[torch.Tensor]
    graph: Graph[Any]
    behind: tuple[Hashable, Graph[Any]] | None = None


@dataclass(frozen=True)
class Submitted(Generic[T]):
    """Work submitted to the device.

    Attributes:
        result: In tensors that the next images of these sizes overwrite.
        extracted: Marks the end of the network's part.
    """

    result: T
    extracted: Mark


class GraphExecution:
    """Captures the whole frame, from bytes to descriptors, once per image size: on a GPU, one CUDA graph.

    Images are uploaded from pinned host memory, and nothing waits until the results are read.

    Args:
        network: In evaluation mode, on the device of `graph_device`.
        graph_device: Captures and runs the work.
    """

    description = "CUDA graph"

    def __init__(self, network: FastNetwork, graph_device: GraphDevice) -> None:
        self.graph_device = graph_device
        self._network = network
        self._frames: dict[_Key, _FrameGraph] = {}

    def submit(
        self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None
    ) -> PaddedFeatures:
        """Starts on images as for `Execution`; the device's work on the previous ones must be done.

        Returns:
            Features in the coordinates of the resized image, in tensors that the next images of these sizes overwrite.
        """
        network = self._network

        def work(images: list[torch.Tensor], masks: list[torch.Tensor] | None) -> PaddedFeatures:
            return whole_frame(network, images, resize, options, masks)

        key = _Key(tuple(image.shape for image in images), resize, options, masks is not None)
        frame = self._captured(key, work)
        with self.graph_device.active():
            _upload(frame, images, masks)
            frame.graph.replay()
        features: PaddedFeatures = frame.graph.result
        return features

    def submit_maps(
        self, image: PreparedImage, fraction: float, behind: tuple[Hashable, Callable[[FrameMaps], T]]
    ) -> Submitted[T]:
        """Starts on the `maps` of one image and, in a following graph, on work with these maps.

        Args:
            image: As for `maps`; the device's work on the previous image must be done.
            fraction: As for `maps`.
            behind: A key of what the following work depends on besides the maps; and the work, as for
                `GraphDevice.capture`.
        """
        network, resize = self._network, image.resize

        def work(images: list[torch.Tensor], masks: list[torch.Tensor] | None) -> FrameMaps:
            batch = resize_tensor(tensors_to_batch(images, network.input_channels), resize)
            allowed = None if masks is None else allowed_pixels(masks, resize)
            return _maps(network, batch, network.dense(batch), image, fraction, allowed, is_padded=True)

        depends_on, follow = behind
        masks = None if image.mask is None else [image.mask]
        frame = self._captured(_Key((image.pixels.shape,), resize, image.options, masks is not None, fraction), work)
        if frame.behind is None or frame.behind[0] != depends_on:
            # A graph's result is undefined before its first replay, and capturing the next graph runs on it.
            with self.graph_device.active():
                frame.graph.replay()
            frame.behind = None
            frame.behind = depends_on, self.graph_device.capture(partial(follow, frame.graph.result))
        following = frame.behind[1]
        with self.graph_device.active():
            _upload(frame, [image.pixels], masks)
            frame.graph.replay()
            extracted = self.graph_device.mark()
            following.replay()
        return Submitted(following.result, extracted)

    def free_graphs(self) -> None:
        """Discards all captured graphs; they are captured again when needed."""
        self._frames.clear()

    def run(
        self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None
    ) -> list[NetworkFeatures]:
        """See `Execution`."""
        own = self.submit(images, resize, options, masks)
        self.graph_device.wait()
        # The next frame overwrites the graph's tensors while these are still needed for matching. Copies made on the
        # caller's stream keep their memory until the caller's work on them is done. Reading the counts waits for the
        # copies.
        return PaddedFeatures(
            own.keypoints.clone(),
            own.scores.clone(),
            own.descriptors.clone(),
            own.counts.clone(),
            own.scales.clone(),
            own.covariances.clone(),
        ).unpadded()

    def maps(self, image: PreparedImage, fraction: float) -> FrameMaps:
        """See `Execution`."""
        device, network = self.graph_device.device, self._network
        batch = _batch(image, device, network)
        return _maps(network, batch, network.dense(batch), image, fraction, _allowed_of(image, device), is_padded=True)

    def _captured(self, key: _Key, work: Callable[..., Any]) -> _FrameGraph:
        """The graph for `key`: the work on images and masks."""
        if key not in self._frames:
            while len(self._frames) >= _MOST_RECORDINGS:
                # Free the oldest and its memory: a changing live parameter creates one graph after another.
                self._frames.pop(next(iter(self._frames)))
            self._frames[key] = self._capture(key, work)
        return self._frames[key]

    def _capture(self, key: _Key, work: Callable[..., Any]) -> _FrameGraph:
        shapes = [*key.shapes, *(shape[:2] for shape in key.shapes if key.has_masks)]
        host = [self.graph_device.host_buffer(shape, torch.uint8) for shape in shapes]
        with self.graph_device.active():
            device = [torch.zeros(shape, dtype=torch.uint8, device=self.graph_device.device) for shape in shapes]
        images, masks = device[: len(key.shapes)], device[len(key.shapes) :] or None
        return _FrameGraph(host, device, self.graph_device.capture(partial(work, images, masks)))


def _upload(frame: _FrameGraph, images: Images, masks: Images | None) -> None:
    for pixels, host, device in zip([*images, *(masks or ())], frame.host, frame.device, strict=True):
        np.copyto(host.numpy(), pixels)
        device.copy_(host, non_blocking=True)


def whole_frame(
    network: FastNetwork,
    images: Sequence[torch.Tensor],
    resize: Resize,
    options: DetectionOptions,
    masks: Sequence[torch.Tensor] | None = None,
) -> PaddedFeatures:
    """All work on (H, W[, 3]) uint8 images on the network's device; waits for nothing on a GPU.

    Masks are (H, W) uint8, 0 = do not use, one per image; None if no image has one.
    """
    batch = tensors_to_batch(images, network.input_channels)

    def sparse(level: Resize, own: DetectionOptions) -> PaddedFeatures:
        allowed = None if masks is None else allowed_pixels(masks, level)
        return network.sparse(network.dense(resize_tensor(batch, level)), own, allowed)

    return sparse_at_scales(sparse, resize, options, network.minimum_size)


def _maps(
    network: FastNetwork,
    batch: torch.Tensor,
    dense: tuple[torch.Tensor, ...],
    image: PreparedImage,
    fraction: float,
    allowed: torch.Tensor | None,
    *,
    is_padded: bool = False,
) -> FrameMaps:
    options = image.options
    maxima = suppress_non_maxima(network.score_maps(dense), options.nms_radius) if options.nms_radius else None
    detected = replace(options, max_num_keypoints=math.ceil(fraction * options.max_num_keypoints))
    features = network.sparse(dense, detected, allowed, trim=not is_padded, maxima=maxima)
    return FrameMaps(network, dense, image.resize, options, allowed, features, batch, maxima, is_padded)


def _batch(image: PreparedImage, device: torch.device, network: FastNetwork) -> torch.Tensor:
    return resize_tensor(images_to_batch([image.pixels], device, network.input_channels), image.resize)


def _allowed(masks: Images | None, resize: Resize, device: torch.device) -> torch.Tensor | None:
    return None if masks is None else allowed_pixels(masks_to_tensors(masks, device), resize)


def _allowed_of(image: PreparedImage, device: torch.device) -> torch.Tensor | None:
    return _allowed(None if image.mask is None else [image.mask], image.resize, device)
