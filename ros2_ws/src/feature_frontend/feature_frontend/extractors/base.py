"""What an extractor's network must offer; `Extractor` does the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

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
    """How keypoints are spread over the cells of a grid; `layers.selection` has the rule.

    Attributes:
        rows: Cells from top to bottom.
        columns: Cells from left to right.
        slack: A cell's quota in even shares of the budget, 1 or more.
    """

    rows: int
    columns: int
    slack: float


@dataclass(frozen=True)
class DetectionOptions:
    """How keypoints are picked from a score map; the meaning of each is that of the parameter of the same name.

    `grid` stands for `distribution` and the parameters that begin with `grid_`; it is None for the distribution none.
    """

    max_num_keypoints: int
    detection_threshold: float
    nms_radius: int
    border: int
    grid: GridOptions | None = None
    multi_scale: bool = False


@dataclass(frozen=True)
class NetworkFeatures:
    """What a network finds in one image, in the coordinates of its input.

    Attributes:
        keypoints: (N, 2) float32, (x, y) px.
        scores: (N,) float32 in [0, 1].
        descriptors: (N, D), L2-normalised.
        sizes: (N,) float32, diameter in px; None where the network estimates none.
        angles: (N,) float32, rad, as in `types.Features`; None where the network estimates none.
        scales: (N,) float32, px of the input for 1 px of the image in which the keypoint was found; None for 1.
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    descriptors: torch.Tensor
    sizes: torch.Tensor | None = None
    angles: torch.Tensor | None = None
    scales: torch.Tensor | None = None

    def to(self, device: torch.device) -> NetworkFeatures:
        """The same features with their tensors on `device`."""
        return NetworkFeatures(
            self.keypoints.to(device),
            self.scores.to(device),
            self.descriptors.to(device),
            None if self.sizes is None else self.sizes.to(device),
            None if self.angles is None else self.angles.to(device),
            None if self.scales is None else self.scales.to(device),
        )


@dataclass(frozen=True)
class PaddedFeatures:
    """`NetworkFeatures` of a batch in tensors of one length; rows from an image's count on mean nothing.

    Attributes:
        keypoints: (B, K, 2) float32, (x, y) px, best first.
        scores: (B, K) float32 in [0, 1].
        descriptors: (B, K, D), L2-normalised.
        counts: (B,) int64, how many of the K rows each image fills.
        scales: (B, K) float32, as in `NetworkFeatures`.
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    descriptors: torch.Tensor
    counts: torch.Tensor
    scales: torch.Tensor

    def unpadded(self) -> list[NetworkFeatures]:
        """One entry an image; waits for the device."""
        parts = zip(self.keypoints, self.scores, self.descriptors, self.scales, self.counts.tolist(), strict=True)
        return [
            NetworkFeatures(keypoints[:count], scores[:count], descriptors[:count], scales=scales[:count])
            for keypoints, scores, descriptors, scales, count in parts
        ]


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
        """3 for RGB, 1 for grey; a network of one channel converts RGB itself."""

    @property
    def default_nms_radius(self) -> int:
        """The radius in px that the network was made for; 0 for none."""

    def extract(
        self, images: torch.Tensor, options: DetectionOptions, allowed: torch.Tensor | None = None
    ) -> list[NetworkFeatures]:
        """Keypoints and descriptors of (B, C, H, W) images in [0, 1], one entry an image.

        Args:
            images: What to look at.
            options: How keypoints are picked.
            allowed: (B, H, W) bool, the pixels on which keypoints may lie; None for all. It acts behind the
                suppression of non-maxima, so that the edge of a mask makes no maxima of its own, and before the budget.
        """


class FastNetwork(NetworkProtocol, Protocol):
    """A network in two parts, whose shapes depend on the images' size and the options, not on what is in the images.

    Neither part waits for a GPU, so that both can be captured as one CUDA graph; the first can be compiled on a CPU.

    Attributes:
        refines_keypoints: Whether keypoints lie between pixels: a soft-argmax over `nms_radius` around maxima.
        default_track_similarity: Below this cosine, descriptors of this network are not taken for the same point.
    """

    refines_keypoints: bool
    default_track_similarity: float

    def dense(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The work for every pixel of (B, C, H, W) images in [0, 1]: maps for `sparse`."""

    def sparse(
        self,
        dense: tuple[torch.Tensor, ...],
        options: DetectionOptions,
        allowed: torch.Tensor | None = None,
        *,
        trim: bool = False,
        maxima: torch.Tensor | None = None,
    ) -> PaddedFeatures:
        """Keypoints and descriptors from what `dense` returned.

        Args:
            dense: Its maps.
            options: How keypoints are picked.
            allowed: As `extract` takes it.
            trim: Only as many rows as the fullest image has, so that nothing is described that is not there. Shapes
                then depend on the images, and a GPU is waited for.
            maxima: (B, 1, H, W), what `suppress_non_maxima` with `nms_radius` leaves of `score_maps`, where that is
                known already.
        """

    def score_maps(self, dense: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """(B, 1, H, W) float32 scores in [0, 1] of every pixel of the images, from what `dense` returned."""

    def describe(self, dense: tuple[torch.Tensor, ...], keypoints: torch.Tensor) -> torch.Tensor:
        """(B, K, D) L2-normalised descriptors of any (B, K, 2) points (x, y) px inside the images."""


@dataclass(frozen=True)
class PreparedImage:
    """An image that has passed the checks, and what is to be done with it.

    Attributes:
        pixels: (H, W[, 3]) uint8.
        mask: (H, W) uint8, 0 = do not use; None for none.
        resize: To the image that the network shall see.
        options: How keypoints are picked.
    """

    pixels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None
    resize: Resize
    options: DetectionOptions


@dataclass(frozen=True)
class FrameMaps:
    """What a network made of one image, with the maps from which more points can be located and described.

    Attributes:
        network: That made them.
        dense: What its `dense` returned.
        resize: From the image as published to the one that the network saw, in whose coordinates all of this is.
        options: By which the keypoints were picked.
        allowed: (1, H, W) bool, the pixels on which keypoints may lie; None for all.
        features: The keypoints that it picked.
        images: (1, C, H, W) float32 in [0, 1], what the network saw.
        maxima: (1, 1, H, W), what `suppress_non_maxima` with `nms_radius` leaves of the scores; None where that is 0.
        is_padded: Whether shapes must not depend on what is in the image, as on a GPU: `features` are padded then.
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
