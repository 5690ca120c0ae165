"""What an extractor's network must offer; `Extractor` does the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

__all__ = ["DetectionOptions", "NetworkFeatures", "NetworkProtocol"]


@dataclass(frozen=True)
class DetectionOptions:
    """How keypoints are picked from a score map; the meaning of each is that of the parameter of the same name."""

    max_num_keypoints: int
    detection_threshold: float
    nms_radius: int
    border: int


@dataclass(frozen=True)
class NetworkFeatures:
    """What a network finds in one image, in the coordinates of its input.

    Attributes:
        keypoints: (N, 2) float32, (x, y) px.
        scores: (N,) float32 in [0, 1].
        descriptors: (N, D), L2-normalised.
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    descriptors: torch.Tensor


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

    def extract(self, images: torch.Tensor, options: DetectionOptions) -> list[NetworkFeatures]:
        """Keypoints and descriptors of (B, C, H, W) images in [0, 1], one entry an image."""
