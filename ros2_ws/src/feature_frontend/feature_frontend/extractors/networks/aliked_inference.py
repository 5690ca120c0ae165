"""Fast inference version of `Aliked`, with the same weights and the same results.

- Batch norm is folded into the convolutions, and all maps are channels-last.
- The feature map at the image's size (157 MB for N16 at 640x480) is never built. Bilinear upsampling is linear, so
  the score head's first 1x1 convolution runs on each level at its own size, and its 8 channels are upsampled and added.
- The descriptor head computes the upsampled, concatenated, normalised features only at the pixels that it reads.
- Shapes depend on the image's size and the budget, not on the image's content: nothing waits for the device.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_weights

from feature_frontend.extractors.covariances import POSITION_NOISE
from feature_frontend.extractors.networks.aliked import TOTAL_STRIDE, Aliked
from feature_frontend.extractors.networks.layers.deformable_convolution import (
    DeformableConv2d,
    SparseDeformableDescriptorHead,
    regular_positions,
)
from feature_frontend.extractors.networks.layers.detect_and_describe import DetectAndDescribe
from feature_frontend.extractors.networks.layers.sampling import (
    corner_weights,
    corners_of_upsampling,
    rows_of_map,
    weighted_row_sums,
)
from feature_frontend.image.resize import Padding, padding_to_multiple

__all__ = ["FastAliked"]

_STRIDES = (1, 2, 4, 4)  # strides of the pooling before each block
_CORNERS = 4
_SMALLEST_NORM = 1e-12  # as in torch.nn.functional.normalize


class FastAliked(DetectAndDescribe):
    """Computes what `Aliked` computes with the same weights; for inference only.

    Args:
        reference: A network with its final weights, in float32.
    """

    input_channels = Aliked.input_channels
    default_nms_radius = Aliked.default_nms_radius
    minimum_size = Aliked.minimum_size
    refines_keypoints = True
    position_noise = POSITION_NOISE["aliked"]
    # Where near surroundings grow by 10 % from frame to frame, a higher one loses true pairs; motion and template
    # decide about the rest. Half of its cosine distance, for descriptors alone, hardly any unrelated pair reaches.
    default_track_similarity = 0.5

    def __init__(self, reference: Aliked) -> None:
        super().__init__()
        self.descriptor_dim = reference.descriptor_dim
        blocks = (reference.block1, reference.block2, reference.block3, reference.block4)
        self.block = nn.ModuleList([_Block(block) for block in blocks])
        convolutions = (reference.conv1, reference.conv2, reference.conv3, reference.conv4)
        self.level = nn.ModuleList([_copy(convolution) for convolution in convolutions])
        first, *others = (layer for layer in reference.score_head if isinstance(layer, nn.Conv2d))
        weights = first.weight.detach().chunk(len(convolutions), dim=1)
        self.score_parts = nn.ModuleList([_convolution(weight, None) for weight in weights])
        self.score = nn.ModuleList([_copy(convolution) for convolution in others])
        self.describer = _SparseHead(reference.desc_head)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.eval().requires_grad_(requires_grad=False)

    def dense(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The per-pixel work on (B, 3, H, W) RGB images in [0, 1].

        Returns:
            The score map (B, 1, H, W) float32, and the four levels' features (B, D / 4, h, w), each at its own size,
            with the margins that make both sides multiples of 32 px.
        """
        padding = padding_to_multiple(images.shape[-2], images.shape[-1], TOTAL_STRIDE)
        maps = padding.pad(images).to(self.describer.aggregation.dtype).contiguous(memory_format=torch.channels_last)
        encoded = []
        for block, stride in zip(self.block, _STRIDES, strict=True):
            maps = block(functional.avg_pool2d(maps, stride) if stride > 1 else maps)
            encoded.append(maps)
        levels = [functional.selu(level(maps)) for level, maps in zip(self.level, encoded, strict=True)]
        return padding.crop(self._score_map(levels)).contiguous(), *levels

    def describe(self, dense: tuple[torch.Tensor, ...], keypoints: torch.Tensor) -> torch.Tensor:
        """See `FastNetwork`."""
        score_map, *levels = dense
        height, width = score_map.shape[-2:]
        padding = padding_to_multiple(height, width, TOTAL_STRIDE)
        descriptors: torch.Tensor = self.describer(levels, keypoints, padding, (height, width))
        return descriptors

    def _score_map(self, levels: list[torch.Tensor]) -> torch.Tensor:
        """S of the paper, computed at the levels' own sizes (III-B, III-C)."""
        total, *smaller = (part(level) for part, level in zip(self.score_parts, levels, strict=True))
        size = total.shape[-2:]
        for part in smaller:
            total = total + functional.interpolate(part, size, mode="bilinear", align_corners=True)
        for convolution in self.score:
            total = convolution(functional.selu(total))
        return torch.sigmoid(total.float())


class _Block(nn.Module):
    """One block of Fig. 1, batch norm folded."""

    def __init__(self, reference: nn.Module) -> None:
        super().__init__()
        self.conv1 = _folded(reference.conv1, reference.bn1)
        self.conv2 = _folded(reference.conv2, reference.bn2)
        downsample = getattr(reference, "downsample", None)
        self.downsample = None if downsample is None else _copy(downsample)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        inner = self.conv2(functional.selu(self.conv1(maps)))
        return functional.selu(inner if self.downsample is None else inner + self.downsample(maps))


class _FoldedDeformableConvolution(nn.Module):
    """`DeformableConv2d` with the batch norm that follows it, on channels-last maps."""

    def __init__(self, reference: DeformableConv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.kernel_size = reference.kernel_size
        self.offset = _copy(reference.offset_conv)
        weight, bias = _fold(reference.regular_conv, norm)
        # (K * K * C, C'): the samples of a pixel are ordered by tap, channels innermost.
        self.weight = nn.Parameter(weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0]).contiguous())
        self.bias = nn.Parameter(bias)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, C', H, W)."""
        batch, _channels, height, width = maps.shape
        limit = max(height, width) / 4.0
        offsets = self.offset(maps).float().clamp(-limit, limit)
        # (y, x) of the first tap, (y, x) of the second ...
        offsets = offsets.permute(0, 2, 3, 1).reshape(batch, height * width, -1, 2).flip(3)
        positions = regular_positions(height, width, self.kernel_size, maps.device) + offsets
        corners, weights = corner_weights(positions, height, width)
        indices = corners[..., 1] * width + corners[..., 0]
        indices = indices + _first_rows(batch, height * width, maps.device)[:, None, None, None]
        samples = weighted_row_sums(rows_of_map(maps), indices.reshape(-1, _CORNERS), weights.reshape(-1, _CORNERS))
        convolved = torch.addmm(self.bias, samples.reshape(batch * height * width, -1), self.weight)
        return convolved.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


class _SparseHead(nn.Module):
    """`SparseDeformableDescriptorHead` on the levels' own maps (IV-B)."""

    def __init__(self, reference: SparseDeformableDescriptorHead) -> None:
        super().__init__()
        self.num_positions = reference.num_positions
        self.kernel_size = reference.kernel_size
        first, last = cast(nn.Conv2d, reference.offset_conv[0]), cast(nn.Conv2d, reference.offset_conv[2])
        self.first_weight = nn.Parameter(first.weight.detach().permute(2, 3, 1, 0).reshape(-1, first.out_channels))
        self.first_bias = nn.Parameter(cast(torch.Tensor, first.bias).detach())
        self.last_weight = nn.Parameter(last.weight.detach()[:, :, 0, 0].t().contiguous())
        self.last_bias = nn.Parameter(cast(torch.Tensor, last.bias).detach())
        self.support_weight = nn.Parameter(reference.sf_conv.weight.detach()[:, :, 0, 0].t().contiguous())
        self.aggregation = nn.Parameter(reference.agg_weights.detach().flatten(0, 1).contiguous())

    def forward(
        self, levels: list[torch.Tensor], keypoints: torch.Tensor, padding: Padding, size: tuple[int, int]
    ) -> torch.Tensor:
        """Descriptors of each image's keypoints.

        Args:
            levels: (B, D / 4, h, w) each.
            keypoints: (B, K, 2) float32, (x, y) px inside the unpadded image.
            padding: Padding of the levels' image.
            size: (height, width) of the unpadded image, px.

        Returns:
            (B, K, D), L2-normalised, in the type of the levels.
        """
        batch, count = keypoints.shape[:2]
        height, width = size
        if count == 0:
            return levels[0].new_zeros((batch, 0, self.aggregation.shape[1]))
        features = _PixelFeatures(levels, padding)
        reach = torch.arange(self.kernel_size, device=keypoints.device) - self.kernel_size // 2
        window = torch.stack(torch.meshgrid(reach, reach, indexing="xy"), dim=-1).reshape(-1, 2)
        pixels = keypoints.long()[:, :, None] + window
        patches = features.normalized(_inside(pixels, height, width))
        x, y = pixels.unbind(-1)
        is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        patches = patches * is_inside[..., None]
        inner = torch.addmm(self.first_bias, patches.reshape(batch * count, -1), self.first_weight)
        offsets = torch.addmm(self.last_bias, functional.selu(inner), self.last_weight).float()
        limit = max(height, width) / 4.0
        # x of all positions, then y of all.
        offsets = offsets.clamp(-limit, limit).reshape(batch, count, 2, self.num_positions).transpose(2, 3)
        corners, weights = corner_weights(keypoints[:, :, None] + offsets, height, width)
        samples = features.normalized_sums(corners, weights)
        supports = functional.selu(samples.reshape(-1, samples.shape[-1]) @ self.support_weight)
        descriptors = supports.reshape(batch * count, -1) @ self.aggregation
        normalized = functional.normalize(descriptors.float(), dim=1).to(descriptors.dtype)
        return normalized.reshape(batch, count, -1)


class _PixelFeatures:
    """Computes single pixels of the feature map F, which `Aliked` builds in full."""

    def __init__(self, levels: list[torch.Tensor], padding: Padding) -> None:
        self._sizes = [(int(level.shape[2]), int(level.shape[3])) for level in levels]
        self._rows = [rows_of_map(level) for level in levels]
        self._padding = padding

    def normalized(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, ..., D) L2-normalised features at (B, ..., 2) int64 pixels of the unpadded image."""
        features = torch.cat(self._by_level(pixels), dim=1)
        unit = functional.normalize(features.float(), dim=1).to(features.dtype)
        return unit.reshape(*pixels.shape[:-1], -1)

    def normalized_sums(self, pixels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Weighted sums (Q, D) of four L2-normalised features each.

        Args:
            pixels: (B, ..., 4, 2) int64, with Q groups of four.
            weights: (B, ..., 4) float32.
        """
        parts = self._by_level(pixels)
        lengths = torch.stack([torch.linalg.vector_norm(part, dim=1, dtype=torch.float32) for part in parts])
        scaled = weights.reshape(-1) / lengths.square().sum(dim=0).sqrt().clamp(min=_SMALLEST_NORM)
        fractions = scaled.reshape(-1, _CORNERS)
        own = torch.arange(fractions.numel(), device=fractions.device).reshape(-1, _CORNERS)
        return torch.cat([weighted_row_sums(part, own, fractions) for part in parts], dim=1)

    def _by_level(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Each level's (P, D / 4) part of the features at P pixels."""
        batch = pixels.shape[0]
        padded = torch.stack([pixels[..., 0] + self._padding.left, pixels[..., 1] + self._padding.top], dim=-1)
        (height, width), *smaller = self._sizes
        indices = padded[..., 1] * width + padded[..., 0]
        starts = _first_rows(batch, height * width, pixels.device).reshape(-1, *[1] * (indices.ndim - 1))
        parts = [self._rows[0].index_select(0, (indices + starts).reshape(-1))]
        for size, rows in zip(smaller, self._rows[1:], strict=True):
            corners, weights = corners_of_upsampling(padded, size, (height, width))
            starts = _first_rows(batch, size[0] * size[1], pixels.device).reshape(-1, *[1] * (corners.ndim - 1))
            parts.append(
                weighted_row_sums(rows, (corners + starts).reshape(-1, _CORNERS), weights.reshape(-1, _CORNERS))
            )
        return parts


def _first_rows(batch: int, rows_of_image: int, device: torch.device) -> torch.Tensor:
    """(B,) index of each image's first row."""
    return torch.arange(batch, device=device) * rows_of_image


def _inside(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return torch.stack([pixels[..., 0].clamp(0, width - 1), pixels[..., 1].clamp(0, height - 1)], dim=-1)


def _folded(convolution: nn.Module | torch.Tensor, norm: nn.Module | torch.Tensor) -> nn.Module:
    """A block's convolution with its batch norm folded in."""
    norm = cast(nn.BatchNorm2d, norm)
    if isinstance(convolution, DeformableConv2d):
        return _FoldedDeformableConvolution(convolution, norm)
    return _convolution(*_fold(cast(nn.Conv2d, convolution), norm))


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution with the following batch norm folded in."""
    statistics = cast(torch.Tensor, norm.running_mean), cast(torch.Tensor, norm.running_var)
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, *statistics, norm.eps, norm.weight, norm.bias
    )
    return weight.detach(), bias.detach()


def _copy(convolution: nn.Conv2d) -> nn.Conv2d:
    bias = None if convolution.bias is None else convolution.bias.detach()
    return _convolution(convolution.weight.detach(), bias)


def _convolution(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Conv2d:
    """A convolution that keeps the size of its maps."""
    out_channels, in_channels, side = weight.shape[:3]
    layer = nn.Conv2d(in_channels, out_channels, side, padding=side // 2, bias=bias is not None)
    layer.weight = nn.Parameter(weight.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer
