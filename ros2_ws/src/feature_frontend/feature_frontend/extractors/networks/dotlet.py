"""Dotlet: this project's small network for the CPU; grey input, descriptors of 64 numbers.

    image -> stem 1/2 -> 1/4 -> 1/8 -> 1/16 -> 1/32 of the size, each level by a convolution of stride 2
    scores:       detail of the stem and context of all levels, added at 1/4; a 3x3 convolution; 16 scores of each cell
                  of 4x4 px, by a pixel shuffle; soft-argmax over 5x5 px around each maximum, as ALIKED
    descriptors:  only at the keypoints: the levels 1/4 to 1/32, read bilinearly and joined, through two linear layers

What the design follows from is measured (docs/research/dotlet.md): on a CPU a convolution's time goes with its
multiplications whatever the level, except that few channels, groups and 1x1 convolutions waste it. So nothing is
computed at the image's size, little at half of it, and much at 1/16 and 1/32, where it costs next to nothing.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from feature_frontend.extractors.covariances import POSITION_NOISE
from feature_frontend.extractors.networks.layers.detect_and_describe import DetectAndDescribe
from feature_frontend.extractors.networks.layers.sampling import (
    at_least_float32,
    corner_weights,
    rows_of_map,
    weighted_row_sums,
)
from feature_frontend.extractors.networks.silk import to_grey
from feature_frontend.image.resize import padding_to_multiple

__all__ = ["DOTLET_CONFIGS", "SMALLEST_CONTRAST", "Dotlet", "DotletConfig", "fold_batch_norm", "standardized"]

_STRIDES = (4, 8, 16, 32)  # of the levels that describe a point
_TOTAL_STRIDE = _STRIDES[-1]
_CELL_PX = _STRIDES[0]
_CORNERS = 4
# Added to the contrast: an image of noise is not to be turned up to full contrast.
SMALLEST_CONTRAST = 0.02


@dataclass(frozen=True)
class DotletConfig:
    """The sizes of the network.

    Attributes:
        stem_channels: Channels at 1/2.
        channels: Channels at 1/4, 1/8, 1/16 and 1/32.
        inner_dim: Length of the layer between the levels and the descriptor.
        descriptor_dim: Length of a descriptor.
    """

    stem_channels: int = 16
    channels: tuple[int, int, int, int] = (32, 64, 64, 96)
    inner_dim: int = 128
    descriptor_dim: int = 64


DOTLET_CONFIGS = {"dotlet": DotletConfig()}


class _Convolution(nn.Module):
    """A convolution and its batch norm, which `fold_batch_norm` makes one."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        padding = (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        convolved: torch.Tensor = self.norm(self.conv(maps))
        return convolved


class _Level(nn.Module):
    """Halves the size by a convolution of stride 2; a residual convolution follows."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.down = _Convolution(in_channels, out_channels, 3, stride=2)
        self.residual = _Convolution(out_channels, out_channels, 3)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = functional.relu(self.down(maps))
        return functional.relu(maps + self.residual(maps))


class _PixelLinear(nn.Linear):
    """A 1x1 convolution as a matrix product over channels-last maps, which PyTorch runs faster on a CPU."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, C', H, W)."""
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Dotlet(DetectAndDescribe):
    """The network, for training and inference; implements `FastNetwork`. Images of any size from 32x32 px up.

    Args:
        config: The sizes.
    """

    input_channels = 1
    default_nms_radius = 2
    minimum_size = _TOTAL_STRIDE
    refines_keypoints = True
    position_noise = POSITION_NOISE["dotlet"]
    # A higher one shortens tracks on TUM and a rendered street without making them truer (docs/research/dotlet.md).
    default_track_similarity = 0.5

    def __init__(self, config: DotletConfig) -> None:
        super().__init__()
        self.config = config
        self.descriptor_dim = config.descriptor_dim
        stem, (first, *others) = config.stem_channels, config.channels
        self.stem = _Convolution(self.input_channels, stem, 4, stride=2)
        widths = (stem, *config.channels)
        self.levels = nn.ModuleList([_Level(*pair) for pair in pairwise(widths)])
        self.detail = nn.Conv2d(stem, first, 2, stride=2, bias=False)
        self.context = nn.ModuleList([_PixelLinear(width, first) for width in others])
        self.score = _Convolution(first, first, 3)
        self.cell_scores = _PixelLinear(first, _CELL_PX**2)
        self.describe_inner = nn.Linear(sum(config.channels), config.inner_dim)
        self.describe_outer = nn.Linear(config.inner_dim, config.descriptor_dim)
        # Few pixels are keypoints: begin there.
        nn.init.constant_(self.cell_scores.bias, -2.0)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, 1, H, W) float32 score logits, and the levels' maps as those of `dense`."""
        return self.maps_of(standardized(images if images.shape[1] == self.input_channels else to_grey(images)))

    def maps_of(self, standard: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What `forward` returns for images as (B, 1, H, W) `standardized` ones."""
        height, width = standard.shape[-2:]
        padding = padding_to_multiple(height, width, _TOTAL_STRIDE)
        maps = padding.pad(standard).to(self.stem.conv.weight.dtype)
        stem = functional.relu(self.stem(maps.contiguous(memory_format=torch.channels_last)))
        levels = []
        maps = stem
        for level in self.levels:
            maps = level(maps)
            levels.append(maps)
        context = levels[0].new_zeros(())
        for linear, maps in zip(reversed(self.context), reversed(levels[1:]), strict=True):
            context = _doubled(context + linear(maps))
        inner = functional.relu(self.detail(stem) + levels[0] + context)
        cells = self.cell_scores(functional.relu(self.score(inner)))
        logits = functional.pixel_shuffle(at_least_float32(cells), _CELL_PX)
        return padding.crop(logits).contiguous(), *levels

    def dense(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The per-pixel work on (B, 1, H, W) grey or (B, 3, H, W) RGB images in [0, 1].

        Returns:
            The score map (B, 1, H, W) float32, and the maps of the levels 1/4 to 1/32 (B, C, h, w), with the margins
            that make both sides multiples of 32 px.
        """
        logits, *levels = self(images)
        return torch.sigmoid(logits), *levels

    def describe(self, dense: tuple[torch.Tensor, ...], keypoints: torch.Tensor) -> torch.Tensor:
        """See `FastNetwork`; differentiable in the maps."""
        scores, *levels = dense
        batch, count = keypoints.shape[:2]
        if count == 0:
            return levels[0].new_zeros((batch, 0, self.descriptor_dim))
        padding = padding_to_multiple(scores.shape[-2], scores.shape[-1], _TOTAL_STRIDE)
        padded = padding.apply(keypoints)
        joined = torch.cat(
            [_read(level, padded, stride) for level, stride in zip(levels, _STRIDES, strict=True)], dim=1
        )
        descriptors = self.describe_outer(functional.relu(self.describe_inner(joined)))
        unit = functional.normalize(at_least_float32(descriptors), dim=1).to(levels[0].dtype)
        return unit.reshape(batch, count, -1)


def fold_batch_norm(network: Dotlet) -> Dotlet:
    """A copy for inference, with batch norm in the weights of the convolutions.

    Args:
        network: In evaluation mode, with its final weights.
    """
    folded = copy.deepcopy(network)
    for layer in folded.modules():
        if isinstance(layer, _Convolution):
            layer.conv = nn.utils.fusion.fuse_conv_bn_eval(layer.conv, cast(nn.BatchNorm2d, layer.norm))
            layer.norm = nn.Identity()
    folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return folded.eval().requires_grad_(requires_grad=False)


def standardized(images: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) grey images with mean 0 and contrast 1 each, so that exposure changes nothing."""
    exact = at_least_float32(images)
    deviation, mean = torch.std_mean(exact, dim=(1, 2, 3), correction=0, keepdim=True)
    return (exact - mean) / (deviation + SMALLEST_CONTRAST)


def _doubled(maps: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)


def _read(level: torch.Tensor, points: torch.Tensor, stride: int) -> torch.Tensor:
    """(B * K, C) bilinear values of a (B, C, h, w) map at (B, K, 2) px of the padded image; clamped at its edges."""
    batch, _channels, height, width = level.shape
    x, y = ((points + 0.5) / stride - 0.5).unbind(-1)
    inside = torch.stack([x.clamp(0, width - 1), y.clamp(0, height - 1)], dim=-1)
    corners, weights = corner_weights(inside, height, width)
    firsts = torch.arange(batch, device=level.device) * (height * width)
    rows = corners[..., 1] * width + corners[..., 0] + firsts[:, None, None]
    return weighted_row_sums(rows_of_map(level), rows.reshape(-1, _CORNERS), weights.reshape(-1, _CORNERS))
