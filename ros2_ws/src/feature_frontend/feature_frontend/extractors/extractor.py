"""`Extractor`: an image in, `Features` out, for every network."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from feature_frontend.errors import ImageError, MaskError, SettingsError, WeightsError
from feature_frontend.extractors.automatic import with_extractor
from feature_frontend.extractors.base import (
    DetectionOptions,
    FastNetwork,
    FrameMaps,
    GridOptions,
    NetworkFeatures,
    NetworkProtocol,
    PaddedFeatures,
    PreparedImage,
)
from feature_frontend.extractors.compilation import BackgroundCompiler
from feature_frontend.extractors.covariances import PositionNoise
from feature_frontend.extractors.execution import (
    CompiledExecution,
    Execution,
    GraphExecution,
    PlainExecution,
    Submitted,
)
from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend.image.preprocessing import check_image, check_mask, grey_range
from feature_frontend.image.resize import Resize, network_size
from feature_frontend.models.weights import ensure_weights, find_own_weights, own_weights
from feature_frontend.models.weights_file import FoundWeights, fill_network
from feature_frontend.runtime.cuda_graphs import GraphDevice, make_graph_device
from feature_frontend.runtime.device import compute_with_one_thread_after_fork, resolve_device
from feature_frontend.settings import ExtractionSettings
from feature_frontend.system.files import user_path
from feature_frontend.types import Features

__all__ = ["Extractor", "Mask", "find_extractor_weights"]

_logger = logging.getLogger(__name__)

Mask = npt.NDArray[np.uint8] | npt.NDArray[np.bool_]
T = TypeVar("T")
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Extractor:
    """Checks and prepares images, runs the network, and maps its keypoints back to the image.

    Args:
        network: A network that implements `NetworkProtocol`.
        identity: Value for `Features.extractor`.
        settings: What to detect. Live parameters are read for each image; assign `settings` to change them.
        device: Device on which the network runs.
        graph_device: Captures the work on a frame as a graph; None: CUDA graphs on a GPU, nothing elsewhere.
        has_maps: Whether the network is a `FastNetwork`; for published networks the catalog says so.

    Attributes:
        has_maps: Whether `maps` is available; not for a network in one part.
        pixel_fraction: Upper limit of the pixels that the network processes, as a fraction of those by the settings,
            in (0, 1]. May change between two images.
    """

    def __init__(
        self,
        network: nn.Module,
        identity: str,
        settings: ExtractionSettings,
        device: torch.device,
        graph_device: GraphDevice | None = None,
        *,
        has_maps: bool = False,
    ) -> None:
        self.identity = identity
        self.device = device
        self.settings = settings
        self.has_maps = has_maps
        self.pixel_fraction = 1.0
        self._dtype = PRECISIONS[settings.precision]
        module = network.to(device=device, dtype=self._dtype).eval().requires_grad_(requires_grad=False)
        self._network = cast(NetworkProtocol, module)
        self._compiler: BackgroundCompiler | None = None
        self._execution = self._make_execution(graph_device)

    @classmethod
    def from_pretrained(cls, settings: ExtractionSettings) -> Extractor:
        """Finds, verifies and loads the weights that `settings` name; the extractor's own settings name the one in use.

        Raises:
            SettingsError: The name or the device is unknown.
            WeightsError: The weights are not available, or do not fit the network.
        """
        settings, notice = with_extractor(settings)
        if notice:
            _logger.warning(notice)
        if settings.extractor not in EXTRACTORS:
            raise SettingsError(
                f"no extractor is called {settings.extractor!r}; expected one of {', '.join(EXTRACTORS)}"
            )
        device = resolve_device(settings.device)
        record = EXTRACTORS[settings.extractor]
        if record.library:
            if settings.weights_path:
                raise SettingsError(
                    f"weights_path is {settings.weights_path!r}, but {settings.extractor} has no weights; set it to ''"
                )
            return cls(record.build(), f"{settings.extractor}@{record.library}", settings, device)
        network = record.build()
        found = find_extractor_weights(settings)
        fill_network(network, found, settings.extractor, record.rename)
        return cls(record.inference(network.eval()), found.identity, settings, device, has_maps=record.has_maps)

    def __getstate__(self) -> dict[str, Any]:
        """For `pickle`, for example in a process pool: network and settings, without compiled code and graphs."""
        return {name: value for name, value in vars(self).items() if name not in {"_compiler", "_execution"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores the extractor in another process, as newly made."""
        vars(self).update(state)
        self._compiler = None
        self._execution = self._make_execution(None)

    @property
    def descriptor_dim(self) -> int:
        """Descriptor length D."""
        return self._network.descriptor_dim

    @property
    def execution(self) -> str:
        """How the network runs now: uncompiled, compiled, or as a CUDA graph."""
        return self._execution.description

    def extract(self, image: npt.NDArray[np.uint8], mask: Mask | None = None) -> Features:
        """Extracts the features of one image.

        Args:
            image: (H, W) grey or (H, W, 3) RGB, uint8, both sides at least 32 px.
            mask: (H, W) uint8 or bool, 0 = do not use: no keypoint lies on such a pixel. None to use all pixels. The
                mask restricts where keypoints may lie, not what the network sees.

        Raises:
            ImageError: The image has the wrong type, shape or size.
            MaskError: The mask has the wrong type, shape or size.
        """
        return self.extract_batch([image], [mask])[0]

    @torch.no_grad()
    def extract_batch(
        self, images: Sequence[npt.NDArray[np.uint8]], masks: Sequence[Mask | None] | None = None
    ) -> list[Features]:
        """Extracts the features of images of the same size, in one run of the network; grey and RGB may be mixed.

        A blank image has no keypoints. The range of its grey levels decides whether it is blank, not the scores: noise
        in a blank image scores as high as weak corners in a good one.

        Args:
            images: Each as for `extract`.
            masks: One per image, each as for `extract`; None for no masks at all.

        Raises:
            ImageError: An image has the wrong type, shape or size, or the sizes differ.
            MaskError: A mask has the wrong type, shape or size, or the number of masks differs from that of images.
        """
        checked = [check_image(image, self._network.minimum_size) for image in images]
        if not checked:
            return []
        height, width = checked[0].shape[:2]
        if any(image.shape[:2] != (height, width) for image in checked):
            sizes = ", ".join(f"{image.shape[1]}x{image.shape[0]}" for image in checked)
            raise ImageError(f"images of a batch have sizes {sizes}; expected one size")
        checked_masks = _check_masks(masks, len(checked), height, width)
        textured = [i for i, image in enumerate(checked) if self._has_texture(image)]
        features = [self.nothing(height, width) for _ in checked]
        if textured:
            resize = self._resize(height, width)
            of_textured = None if checked_masks is None else [checked_masks[i] for i in textured]
            found = self._execution.run([checked[i] for i in textured], resize, self._options(), of_textured)
            for i, one in zip(textured, found, strict=True):
                features[i] = self._to_image(one, resize)
        return features

    @property
    def default_track_similarity(self) -> float:
        """See `FastNetwork`; only with `has_maps`."""
        return cast(FastNetwork, self._network).default_track_similarity

    @property
    def position_noise(self) -> PositionNoise | None:
        """What the covariances of positions are made with; None if the network estimates none. May be assigned."""
        noise: PositionNoise | None = getattr(self._network, "position_noise", None)
        return noise

    @position_noise.setter
    def position_noise(self, noise: PositionNoise) -> None:
        cast(FastNetwork, self._network).position_noise = noise
        self.free_graphs()

    def prepare(self, image: npt.NDArray[np.uint8], mask: Mask | None = None) -> PreparedImage | None:
        """Checks one image and its mask, as for `extract`; None for a blank image.

        Raises:
            ImageError: The image or its mask has the wrong type, shape or size.
        """
        checked = check_image(image, self._network.minimum_size)
        masks = _check_masks([mask], 1, *checked.shape[:2])
        if not self._has_texture(checked):
            return None
        return PreparedImage(checked, masks[0] if masks else None, self._resize(*checked.shape[:2]), self._options())

    @torch.no_grad()
    def maps(self, image: PreparedImage, fraction: float = 1.0) -> FrameMaps:
        """Keypoints of one image in the network's coordinates, and the maps behind them. Only with `has_maps`.

        Args:
            image: The image.
            fraction: Fraction of `max_num_keypoints` to detect, in (0, 1]. `FrameMaps.options` keep the whole budget.
        """
        return self._execution.maps(image, fraction)

    @torch.no_grad()
    def submit_maps(
        self, image: PreparedImage, fraction: float, behind: tuple[Hashable, Callable[[FrameMaps], T]]
    ) -> Submitted[T]:
        """See `GraphExecution`. Only with a `graph_device`."""
        assert isinstance(self._execution, GraphExecution)
        return self._execution.submit_maps(image, fraction, behind)

    @property
    def graph_device(self) -> GraphDevice | None:
        """Captures the work on a frame; None if nothing is captured, and `submit` is not available."""
        return self._execution.graph_device if isinstance(self._execution, GraphExecution) else None

    @torch.no_grad()
    def submit(self, image: npt.NDArray[np.uint8], mask: Mask | None = None) -> PaddedFeatures | None:
        """Starts the device on one image without waiting; its previous image must be done. Only with a `graph_device`.

        Returns:
            Input for `collect`, in tensors that the next image may overwrite; None for a blank image.

        Raises:
            ImageError: The image or its mask has the wrong type, shape or size.
        """
        assert isinstance(self._execution, GraphExecution)
        prepared = self.prepare(image, mask)
        if prepared is None:
            return None
        masks = None if prepared.mask is None else [prepared.mask]
        return self._execution.submit([prepared.pixels], prepared.resize, prepared.options, masks)

    def collect(self, submitted: PaddedFeatures | None, height: int, width: int) -> Features:
        """Features of a height x width image from the result of `submit`, or a copy of it; waits for the device."""
        if submitted is None:
            return self.nothing(height, width)
        return self._to_image(submitted.unpadded()[0], self._resize(height, width))

    def wait_until_fast(self) -> None:
        """Waits until the code being compiled in the background is in use; returns at once if there is none."""
        if self._compiler is not None:
            self._compiler.wait()

    def free_graphs(self) -> None:
        """Discards the graphs captured for the image sizes seen so far, and frees their memory."""
        if isinstance(self._execution, GraphExecution):
            self._execution.free_graphs()

    @torch.no_grad()
    def compile_only_for(self, shape: Sequence[int]) -> bool:
        """Compiles for images of this shape, waits for it, and then stops compiling in the background.

        The features of an image then depend on its shape, not on when it arrives.

        Args:
            shape: (H, W) or (H, W, 3): a grey network converts colour itself, which is different code.

        Returns:
            Whether images of this shape run compiled code.

        Raises:
            ImageError: The network does not accept images of this size.
        """
        if self._compiler is None:
            return False
        blank, resize = np.zeros(shape, np.uint8), self._resize(*shape[:2])
        # With several scales, only the largest.
        options = replace(self._options(), multi_scale=False)
        self._compiler.frames_before = 1
        self._execution.run([blank], resize, options)
        self._compiler.wait()
        self._compiler.frames_before = math.inf
        self._execution.run([blank], resize, options)
        return self._compiler.is_in_use

    def close(self) -> None:
        """Stops the background work; the extractor remains usable."""
        if self._compiler is not None:
            self._compiler.close()

    def _has_texture(self, image: npt.NDArray[np.uint8]) -> bool:
        return grey_range(image) >= self.settings.min_grey_range

    def _resize(self, height: int, width: int) -> Resize:
        settings, minimum = self.settings, self._network.minimum_size
        size = partial(network_size, height, width, resize_height=settings.resize_height, minimum=minimum)
        usual = size(max_pixels=settings.max_pixels)
        if self.pixel_fraction == 1:
            return usual
        return size(max_pixels=int(self.pixel_fraction * usual.height1 * usual.width1))

    def _options(self) -> DetectionOptions:
        settings = self.settings
        return DetectionOptions(
            max_num_keypoints=settings.max_num_keypoints,
            detection_threshold=settings.detection_threshold,
            nms_radius=settings.nms_radius if settings.nms_radius >= 0 else self._network.default_nms_radius,
            border=settings.border,
            grid=_grid(settings),
            multi_scale=settings.multi_scale,
        )

    def _make_execution(self, graph_device: GraphDevice | None) -> Execution:
        compute_with_one_thread_after_fork()
        if self.device.type == "cuda" and self._dtype == torch.float32:
            # By default cuDNN rounds inputs of convolutions to TF32, 10 of 23 bits: float16 exists for that trade-off.
            torch.backends.cudnn.allow_tf32 = False
        if self.has_maps and (graph_device is not None or self.device.type == "cuda"):
            return GraphExecution(cast(FastNetwork, self._network), graph_device or make_graph_device(self.device))
        if self.has_maps and self.settings.compile:
            network = cast(FastNetwork, self._network)
            self._compiler = BackgroundCompiler(self.settings.extractor, network, self._dtype)
            return CompiledExecution(network, self._compiler)
        return PlainExecution(self._network, self.device)

    def nothing(self, height: int, width: int) -> Features:
        """Features of a height x width image without keypoints."""
        return Features.empty(height, width, self.identity, self.descriptor_dim, self.device, self._dtype)

    def _to_image(self, found: NetworkFeatures, resize: Resize) -> Features:
        keypoints = found.keypoints if resize.is_identity else resize.invert(found.keypoints)
        return Features(
            keypoints,
            found.scores,
            found.descriptors.to(self._dtype),
            resize.height0,
            resize.width0,
            self.identity,
            None if found.sizes is None else resize.invert_lengths(found.sizes),
            found.angles,
            resize.invert_lengths(torch.ones_like(found.scores) if found.scales is None else found.scales),
            None if found.covariances is None else resize.invert_covariances(found.covariances),
        )


def _check_masks(
    masks: Sequence[Mask | None] | None, count: int, height: int, width: int
) -> list[npt.NDArray[np.uint8]] | None:
    """A mask for each image; None if no image has one."""
    if masks is None or all(mask is None for mask in masks):
        return None
    if len(masks) != count:
        raise MaskError(
            f"{count} image(s) come with {len(masks)} masks; expected one an image, None for an image without"
        )
    everything = np.full((height, width), 255, np.uint8)
    return [everything if mask is None else check_mask(mask, height, width) for mask in masks]


def _grid(settings: ExtractionSettings) -> GridOptions | None:
    if settings.distribution == "none":
        return None
    return GridOptions(settings.grid_rows, settings.grid_columns, settings.grid_slack)


def find_extractor_weights(settings: ExtractionSettings) -> FoundWeights:
    """The weights that `settings` name, found or downloaded, and verified.

    Raises:
        WeightsError: They are not available.
    """
    record = EXTRACTORS[settings.extractor]
    if settings.weights_path:
        return own_weights(settings.extractor, user_path(settings.weights_path))
    if record.weights is None:
        found = find_own_weights(settings.extractor, settings.weights_dir)
        if found is not None:
            return found
        raise WeightsError(
            f"no published weights of {settings.extractor} come with this project; train your own (feature_frontend "
            f"train --model {settings.extractor}) and name the file: weights_path, or put it as "
            f"{settings.extractor}.safetensors into the folder weights_dir; sift and dotlet need no file"
        )
    return ensure_weights(record.weights, settings.weights_dir)
