"""How a network's work on a batch is set in motion: plainly, compiled on the CPU, or recorded, as a CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.coordinates import Resize
from feature_frontend.extractors.base import (
    DetectionOptions,
    FastNetwork,
    FrameMaps,
    NetworkFeatures,
    NetworkProtocol,
    PaddedFeatures,
)
from feature_frontend.extractors.compilation import BackgroundCompiler
from feature_frontend.extractors.layers.keypoint_detection import suppress_non_maxima
from feature_frontend.extractors.multi_scale import extract_at_scales, sparse_at_scales
from feature_frontend.preprocessing import (
    allowed_pixels,
    images_to_batch,
    masks_to_tensors,
    resize_tensor,
    tensors_to_batch,
)
from feature_frontend.recording import Recorder, Recording

__all__ = ["CompiledExecution", "Execution", "PlainExecution", "RecordedExecution", "whole_frame"]

Images = Sequence[npt.NDArray[np.uint8]]
_MOST_RECORDINGS = 4


class Execution(Protocol):
    """Runs a network on images of one size."""

    @property
    def description(self) -> str:
        """How the network runs now, in a word or two."""

    def __call__(
        self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None
    ) -> list[NetworkFeatures]:
        """Features of (H, W[, 3]) uint8 images in the coordinates of the resized image, one entry an image.

        Masks are (H, W) uint8, 0 = do not use, one an image; None where no image has one.
        """

    def maps(self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None) -> FrameMaps:
        """The same with what it was made from; only for a fast network. Not recorded: on a GPU it takes longer."""


class PlainExecution:
    """One operation after another."""

    description = "uncompiled"

    def __init__(self, network: NetworkProtocol, device: torch.device) -> None:
        self._network = network
        self._device = device

    def __call__(
        self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None
    ) -> list[NetworkFeatures]:
        """See `Execution`."""
        batch = images_to_batch(images, self._device, self._network.input_channels)

        def extract(level: Resize, own: DetectionOptions) -> list[NetworkFeatures]:
            return self._network.extract(resize_tensor(batch, level), own, _allowed(masks, level, self._device))

        return extract_at_scales(extract, resize, options, self._network.minimum_size)

    def maps(self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None) -> FrameMaps:
        """See `Execution`."""
        network = cast(FastNetwork, self._network)
        batch = resize_tensor(images_to_batch(images, self._device, network.input_channels), resize)
        return _maps(network, batch, network.dense(batch), resize, options, _allowed(masks, resize, self._device))


class CompiledExecution:
    """On the CPU: the work for every pixel compiled, once `compiler` is ready with it."""

    def __init__(self, network: FastNetwork, compiler: BackgroundCompiler) -> None:
        self._network = network
        self._compiler = compiler

    @property
    def description(self) -> str:
        """See `Execution`."""
        return "compiled" if self._compiler.is_in_use else "uncompiled so far"

    def __call__(
        self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None
    ) -> list[NetworkFeatures]:
        """See `Execution`."""
        device = torch.device("cpu")
        batch = images_to_batch(images, device, self._network.input_channels)

        def sparse(level: Resize, own: DetectionOptions) -> PaddedFeatures:
            dense = self._compiler(resize_tensor(batch, level), is_made_smaller=level != resize)
            return self._network.sparse(dense, own, _allowed(masks, level, device), trim=True)

        return sparse_at_scales(sparse, resize, options, self._network.minimum_size).unpadded()

    def maps(self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None) -> FrameMaps:
        """See `Execution`."""
        device = torch.device("cpu")
        batch = resize_tensor(images_to_batch(images, device, self._network.input_channels), resize)
        return _maps(self._network, batch, self._compiler(batch), resize, options, _allowed(masks, resize, device))


@dataclass(frozen=True)
class _Key:
    """What a frame is recorded for."""

    shapes: tuple[tuple[int, ...], ...]
    resize: Resize
    options: DetectionOptions
    has_masks: bool


@dataclass(frozen=True)
class _RecordedFrame:
    """Fill `host` with images, then masks; copy it to `device`; replay."""

    host: list[torch.Tensor]
    device: list[torch.Tensor]
    recording: Recording[PaddedFeatures]


class RecordedExecution:
    """The whole frame, from bytes to descriptors, recorded once for each image size: on a GPU, one CUDA graph.

    The bytes go up from the host's pinned memory, and nothing waits before the results are read.

    Args:
        network: On the recorder's device, in evaluation mode.
        recorder: Records and runs the work.
    """

    description = "CUDA graph"

    def __init__(self, network: FastNetwork, recorder: Recorder) -> None:
        self.recorder = recorder
        self._network = network
        self._frames: dict[_Key, _RecordedFrame] = {}

    def submit(
        self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None
    ) -> PaddedFeatures:
        """Starts on images as `Execution` takes them; the device's work for the ones before must be done.

        Returns:
            Features in the coordinates of the resized image, in tensors that the next images of these sizes overwrite.
        """
        key = _Key(tuple(image.shape for image in images), resize, options, masks is not None)
        if key not in self._frames:
            while len(self._frames) >= _MOST_RECORDINGS:
                # The oldest, with its memory: a live parameter that moves makes one recording after another.
                self._frames.pop(next(iter(self._frames)))
            self._frames[key] = self._record(key)
        frame = self._frames[key]
        with self.recorder.active():
            for pixels, host, device in zip([*images, *(masks or ())], frame.host, frame.device, strict=True):
                np.copyto(host.numpy(), pixels)
                device.copy_(host, non_blocking=True)
            frame.recording.replay()
        return frame.recording.result

    def free_recordings(self) -> None:
        """Lets go of what is recorded; it is recorded anew when it is needed."""
        self._frames.clear()

    def __call__(
        self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None
    ) -> list[NetworkFeatures]:
        """See `Execution`."""
        own = self.submit(images, resize, options, masks)
        with self.recorder.active():
            # The recording's tensors are written again with the next frame, when these are still wanted for matching.
            kept = PaddedFeatures(
                own.keypoints.clone(), own.scores.clone(), own.descriptors.clone(), own.counts.clone()
            )
            # Reads the counts, and so waits for all of the above.
            return kept.unpadded()

    def maps(self, images: Images, resize: Resize, options: DetectionOptions, masks: Images | None = None) -> FrameMaps:
        """See `Execution`."""
        device, network = self.recorder.device, self._network
        batch = resize_tensor(images_to_batch(images, device, network.input_channels), resize)
        allowed = _allowed(masks, resize, device)
        return _maps(network, batch, network.dense(batch), resize, options, allowed, is_padded=True)

    def _record(self, key: _Key) -> _RecordedFrame:
        shapes = [*key.shapes, *(shape[:2] for shape in key.shapes if key.has_masks)]
        host = [self.recorder.host_buffer(shape, torch.uint8) for shape in shapes]
        device = [torch.zeros(shape, dtype=torch.uint8, device=self.recorder.device) for shape in shapes]
        images, masks = device[: len(key.shapes)], device[len(key.shapes) :] or None
        recording = self.recorder.record(lambda: whole_frame(self._network, images, key.resize, key.options, masks))
        return _RecordedFrame(host, device, recording)


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

    def sparse(level: Resize, own: DetectionOptions) -> PaddedFeatures:
        allowed = None if masks is None else allowed_pixels(masks, level)
        return network.sparse(network.dense(resize_tensor(batch, level)), own, allowed)

    return sparse_at_scales(sparse, resize, options, network.minimum_size)


def _maps(
    network: FastNetwork,
    images: torch.Tensor,
    dense: tuple[torch.Tensor, ...],
    resize: Resize,
    options: DetectionOptions,
    allowed: torch.Tensor | None,
    *,
    is_padded: bool = False,
) -> FrameMaps:
    radius = options.nms_radius
    maxima = suppress_non_maxima(network.score_maps(dense), radius) if radius else None
    features = network.sparse(dense, options, allowed, trim=not is_padded, maxima=maxima)
    return FrameMaps(network, dense, resize, options, allowed, features, images, maxima, is_padded)


def _allowed(masks: Images | None, resize: Resize, device: torch.device) -> torch.Tensor | None:
    return None if masks is None else allowed_pixels(masks_to_tensors(masks, device), resize)
