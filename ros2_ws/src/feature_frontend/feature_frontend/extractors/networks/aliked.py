"""ALIKED (Zhao et al., IEEE TIM 2023): Sections III and IV of the paper, configurations of Table II.

The module's parameter names are those of the published checkpoints, which load strictly. Details that the paper leaves
open (padding to multiples of 32, corner-aligned upsampling, clamped offsets) follow the published models' outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from feature_frontend.extractors.base import DetectionOptions, NetworkFeatures
from feature_frontend.extractors.networks.layers.deformable_convolution import (
    DeformableConv2d,
    SparseDeformableDescriptorHead,
)
from feature_frontend.extractors.networks.layers.keypoint_detection import detect_keypoints
from feature_frontend.extractors.networks.layers.sampling import at_least_float32
from feature_frontend.image.resize import padding_to_multiple

__all__ = ["ALIKED_CONFIGS", "TOTAL_STRIDE", "Aliked", "AlikedConfig", "DenseMaps"]

TOTAL_STRIDE = 32  # pooling by 2, 4 and 4 between the four blocks


@dataclass(frozen=True)
class AlikedConfig:
    """One row of Table II: channels of the four blocks, descriptor length, sample positions M of the head."""

    channels: tuple[int, int, int, int]
    descriptor_dim: int
    num_positions: int


ALIKED_CONFIGS = {
    "aliked-t16": AlikedConfig((8, 16, 32, 64), 64, 16),
    "aliked-n16": AlikedConfig((16, 32, 64, 128), 128, 16),
    "aliked-n16rot": AlikedConfig((16, 32, 64, 128), 128, 16),
    "aliked-n32": AlikedConfig((16, 32, 64, 128), 128, 32),
}


@dataclass(frozen=True)
class DenseMaps:
    """The network's per-pixel output.

    Attributes:
        score_map: (B, 1, H, W) float32 in [0, 1], S of the paper.
        feature_map: (B, C, H, W), L2-normalised along C, F of the paper.
    """

    score_map: torch.Tensor
    feature_map: torch.Tensor


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)


class _ConvBlock(nn.Module):
    """Two 3x3 convolutions, each with batch norm and SELU (block1 of Fig. 1)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, out_channels)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = functional.selu(self.bn1(self.conv1(maps)))
        return functional.selu(self.bn2(self.conv2(maps)))


class _ResidualBlock(nn.Module):
    """Residual block with plain (block2) or deformable (block3, block4) 3x3 convolutions."""

    def __init__(self, in_channels: int, out_channels: int, *, deformable: bool) -> None:
        super().__init__()
        convolution = DeformableConv2d if deformable else _conv3x3
        self.conv1 = convolution(in_channels, out_channels)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = convolution(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        inner = functional.selu(self.bn1(self.conv1(maps)))
        inner = self.bn2(self.conv2(inner))
        return functional.selu(inner + self.downsample(maps))


class Aliked(nn.Module):
    """The network of Fig. 1. Accepts images of any size from 32x32 px up, in batches of one size.

    Args:
        config: A row of Table II.
    """

    input_channels = 3
    default_nms_radius = 2
    minimum_size = TOTAL_STRIDE

    def __init__(self, config: AlikedConfig) -> None:
        super().__init__()
        self.config = config
        self.descriptor_dim = config.descriptor_dim
        c1, c2, c3, c4 = config.channels
        dim = self.descriptor_dim
        self.block1 = _ConvBlock(3, c1)
        self.block2 = _ResidualBlock(c1, c2, deformable=False)
        self.block3 = _ResidualBlock(c2, c3, deformable=True)
        self.block4 = _ResidualBlock(c3, c4, deformable=True)
        self.conv1 = nn.Conv2d(c1, dim // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(c2, dim // 4, 1, bias=False)
        self.conv3 = nn.Conv2d(c3, dim // 4, 1, bias=False)
        self.conv4 = nn.Conv2d(c4, dim // 4, 1, bias=False)
        self.score_head = nn.Sequential(
            nn.Conv2d(dim, 8, 1, bias=False),
            nn.SELU(),
            _conv3x3(8, 4),
            nn.SELU(),
            _conv3x3(4, 4),
            nn.SELU(),
            _conv3x3(4, 1),
        )
        self.desc_head = SparseDeformableDescriptorHead(dim, config.num_positions)

    def forward(self, images: torch.Tensor) -> DenseMaps:
        """Score map and feature map of (B, 3, H, W) RGB images in [0, 1], at the images' size."""
        height, width = images.shape[-2:]
        padding = padding_to_multiple(height, width, TOTAL_STRIDE)
        maps1 = self.block1(padding.pad(images).to(self.conv1.weight.dtype))
        maps2 = self.block2(functional.avg_pool2d(maps1, 2))
        maps3 = self.block3(functional.avg_pool2d(maps2, 4))
        maps4 = self.block4(functional.avg_pool2d(maps3, 4))
        aggregated = self._aggregate(maps1, maps2, maps3, maps4)
        score_map = torch.sigmoid(at_least_float32(self.score_head(aggregated)))
        return DenseMaps(
            score_map=padding.crop(score_map),
            feature_map=functional.normalize(padding.crop(aggregated), dim=1),
        )

    def extract(
        self, images: torch.Tensor, options: DetectionOptions, allowed: torch.Tensor | None = None
    ) -> list[NetworkFeatures]:
        """Keypoints and descriptors of (B, 3, H, W) RGB images in [0, 1], best score first; see `NetworkProtocol`."""
        maps = self(images)
        detections = detect_keypoints(maps.score_map, options, allowed)
        return [
            NetworkFeatures(keypoints, scores, self.desc_head(feature_map, keypoints))
            for (keypoints, scores), feature_map in zip(detections, maps.feature_map, strict=True)
        ]

    def _aggregate(self, *maps: torch.Tensor) -> torch.Tensor:
        """The features of the four levels, upsampled to the first level's size and concatenated (III-B)."""
        convolutions = (self.conv1, self.conv2, self.conv3, self.conv4)
        levels = [functional.selu(convolution(level)) for convolution, level in zip(convolutions, maps, strict=True)]
        size = maps[0].shape[-2:]
        upsampled = [functional.interpolate(level, size, mode="bilinear", align_corners=True) for level in levels[1:]]
        return torch.cat([levels[0], *upsampled], dim=1)
