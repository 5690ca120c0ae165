"""The interface of an extractor's network; `Extractor` does the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.extractors.covariances import PositionNoise
from feature_frontend.image.resize import Resize

__all__ = [
    "DetectionOptions",
    "FastNetwork",
    "FrameMaps",
    "GridOptions",
    "NetworkFeatures",
    "NetworkProtocol",
    "PaddedFeatures",
    "PreparedImage",
]


@dataclass(frozen=True)
class GridOptions:
    """How keypoints are distributed over the cells of a grid; `layers.selection` has the rule.

    Attributes:
        rows: Number of rows of cells.
        columns: Number of columns of cells.
        slack: Quota of a cell, as a multiple of budget / number of cells, 1 or more.
    """

    rows: int
    columns: int
    slack: float


@dataclass(frozen=True)
class DetectionOptions:
    """How keypoints are selected from a score map; each field has the meaning of the parameter of the same name.

    `grid` stands for `distribution` and the parameters that begin with `grid_`; None for distribution none.
    """

    max_num_keypoints: int
    detection_threshold: float
    nms_radius: int
    border: int
    grid: GridOptions | None = None
    multi_scale: bool = False


@dataclass(frozen=True)
class NetworkFeatures:
    """The features that a network extracts from one image, in the coordinates of its input.

    Attributes:
        keypoints: (N, 2) float32, (x, y) px.
        scores: (N,) float32 in [0, 1].
        descriptors: (N, D), L2-normalised.
        sizes: (N,) float32, diameter in px; None if the network does not estimate it.
        angles: (N,) float32, rad, as in `types.Features`; None if the network does not estimate it.
        scales: (N,) float32, px of the input per px of the image in which the keypoint was found; None for 1.
        covariances: (N, 3) float32, as in `types.Features`, px^2 of the input; None if the network does not estimate
            them.
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    descriptors: torch.Tensor
    sizes: torch.Tensor | None = None
    angles: torch.Tensor | None = None
    scales: torch.Tensor | None = None
    covariances: torch.Tensor | None = None

    def to(self, device: torch.device) -> NetworkFeatures:
        """The same features with their tensors on `device`."""
        return NetworkFeatures(
            self.keypoints.to(device),
            self.scores.to(device),
            self.descriptors.to(device),
            None if self.sizes is None else self.sizes.to(device),
            None if self.angles is None else self.angles.to(device),
            None if self.scales is None else self.scales.to(device),
            None if self.covariances is None else self.covariances.to(device),
        )


@dataclass(frozen=True)
class PaddedFeatures:
    """`NetworkFeatures` of a batch, padded to one length; rows from an image's count on are padding.

    Attributes:
        keypoints: (B, K, 2) float32, (x, y) px, best first.
        scores: (B, K) float32 in [0, 1].
        descriptors: (B, K, D), L2-normalised.
        counts: (B,) int64, number of valid rows of each image.
        scales: (B, K) float32, as in `NetworkFeatures`.
        covariances: (B, K, 3) float32, as in `NetworkFeatures`.
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    descriptors: torch.Tensor
    counts: torch.Tensor
    scales: torch.Tensor
    covariances: torch.Tensor

    def unpadded(self) -> list[NetworkFeatures]:
        """One entry per image; waits for the device."""
        arrays = (self.keypoints, self.scores, self.descriptors, self.scales, self.covariances)
        found = []
        for *rows, count in zip(*arrays, self.counts.tolist(), strict=True):
            keypoints, scores, descriptors, scales, covariances = (array[:count] for array in rows)
            found.append(NetworkFeatures(keypoints, scores, descriptors, scales=scales, covariances=covariances))
        return found


class NetworkProtocol(Protocol):
    """A network that turns images into keypoints and descriptors."""

    @property
    def descriptor_dim(self) -> int:
        """Descriptor length D."""

    @property
    def minimum_size(self) -> int:
        """Smallest image side in px."""

    @property
    def input_channels(self) -> int:
        """3 for RGB, 1 for grey; a one-channel network converts RGB itself."""

    @property
    def default_nms_radius(self) -> int:
        """The network's default radius of non-maximum suppression in px; 0 for none."""

    def extract(
        self, images: torch.Tensor, options: DetectionOptions, allowed: torch.Tensor | None = None
    ) -> list[NetworkFeatures]:
        """Keypoints and descriptors of (B, C, H, W) images in [0, 1], one entry per image.

        Args:
            images: The images.
            options: How keypoints are selected.
            allowed: (B, H, W) bool, the pixels on which keypoints may lie; None for all. Applied after non-maximum
                suppression, so that the edge of a mask creates no maxima, and before the budget.
        """


class FastNetwork(NetworkProtocol, Protocol):
    """A network in two parts, whose shapes depend on the images' size and the options, not on the images' content.

    Neither part waits for a GPU, so both can be captured as one CUDA graph; the first can be compiled on a CPU.

    Attributes:
        refines_keypoints: Whether keypoints have sub-pixel positions: a soft-argmax over `nms_radius` around maxima.
        default_track_similarity: Minimum cosine similarity of two descriptors of the same point.
        position_noise: What the covariances of its keypoints are made with.
    """

    refines_keypoints: bool
    default_track_similarity: float
    position_noise: PositionNoise

    def dense(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The per-pixel work on (B, C, H, W) images in [0, 1]; returns maps for `sparse`."""

    def sparse(
        self,
        dense: tuple[torch.Tensor, ...],
        options: DetectionOptions,
        allowed: torch.Tensor | None = None,
        *,
        trim: bool = False,
        maxima: torch.Tensor | None = None,
    ) -> PaddedFeatures:
        """Keypoints and descriptors from the maps of `dense`.

        Args:
            dense: The maps.
            options: How keypoints are selected.
            allowed: As for `extract`.
            trim: Return only as many rows as the image with most keypoints has, so that no padding is described.
                Shapes then depend on the images, and the call waits for a GPU.
            maxima: (B, 1, H, W), result of `suppress_non_maxima` with `nms_radius` on `score_maps`, if already known.
        """

    def score_maps(self, dense: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """(B, 1, H, W) float32 scores in [0, 1] of every pixel of the images, from the maps of `dense`."""

    def describe(self, dense: tuple[torch.Tensor, ...], keypoints: torch.Tensor) -> torch.Tensor:
        """(B, K, D) L2-normalised descriptors of any (B, K, 2) points (x, y) px inside the images."""


@dataclass(frozen=True)
class PreparedImage:
    """A checked image, and how to process it.

    Attributes:
        pixels: (H, W[, 3]) uint8.
        mask: (H, W) uint8, 0 = do not use; None for none.
        resize: To the network's image.
        options: How keypoints are selected.
    """

    pixels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None
    resize: Resize
    options: DetectionOptions


@dataclass(frozen=True)
class FrameMaps:
    """A network's results for one image, with the maps from which more points can be located and described.

    All coordinates are those of the network's image.

    Attributes:
        network: The network.
        dense: The maps of its `dense`.
        resize: From the image as published to the network's image.
        options: How the keypoints were selected.
        allowed: (1, H, W) bool, the pixels on which keypoints may lie; None for all.
        features: The selected keypoints.
        images: (1, C, H, W) float32 in [0, 1], the network's input.
        maxima: (1, 1, H, W), result of `suppress_non_maxima` with `nms_radius` on the scores; None if that is 0.
        is_padded: Whether shapes must not depend on the image's content, as on a GPU: `features` are then padded.
    """

    network: FastNetwork
    dense: tuple[torch.Tensor, ...]
    resize: Resize
    options: DetectionOptions
    allowed: torch.Tensor | None
    features: PaddedFeatures
    images: torch.Tensor
    maxima: torch.Tensor | None
    is_padded: bool
