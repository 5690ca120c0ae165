"""The extractors' graphs, from images to keypoints, scores and descriptors."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from feature_frontend.extractors.base import DetectionOptions
from feature_frontend.extractors.networks.aliked import TOTAL_STRIDE
from feature_frontend.extractors.networks.aliked_inference import FastAliked
from feature_frontend.extractors.networks.dotlet import SMALLEST_CONTRAST, Dotlet
from feature_frontend.extractors.networks.silk_inference import FusedSilk
from feature_frontend_lab.export.onnx_model.tracing import (
    Margins,
    corner_weights,
    grid_of,
    refine,
    sample,
    select_pixels,
    size_of,
)

__all__ = ["GRAPHS", "ExtractorGraph"]

_SMALLEST_NORM = 1e-12  # as in torch.nn.functional.normalize


class ExtractorGraph(nn.Module, ABC):
    """Base: (B, C, H, W) float32 images in [0, 1] to what `forward` returns.

    Args:
        network: In evaluation mode, in float32, on the CPU.
        options: Budget, threshold, radius and border.
        for_opencv: As `cv::ALIKED` of OpenCV 5 reads them: keypoints in -1 to 1 instead of px, and no batch.
    """

    def __init__(self, network: Any, options: DetectionOptions, *, for_opencv: bool) -> None:
        super().__init__()
        self.network = network
        self.options = options
        self.for_opencv = for_opencv

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keypoints (B, K, 2) px, scores (B, K) and descriptors (B, K, D), best first; a score of 0 marks padding."""
        keypoints, scores, descriptors, is_valid = self.extract(image)
        scores = torch.where(is_valid, scores, torch.zeros(()))
        if self.for_opencv:
            # It computes px by (x + 1) / 2 * width.
            return (keypoints * 2.0 / size_of(image) - 1.0)[0], scores[0], descriptors[0]
        return keypoints, scores, descriptors

    @abstractmethod
    def extract(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keypoints, scores, descriptors, and which rows are valid: (B, K) bool."""


class AlikedGraph(ExtractorGraph):
    """ALIKED. All levels are read at the same GridSample coordinates: upsampling with aligned corners is just that."""

    def __init__(self, network: FastAliked, options: DetectionOptions, *, for_opencv: bool) -> None:
        super().__init__(network, options, for_opencv=for_opencv)
        self.blocks = copy.deepcopy(network.block)
        for block in self.blocks:
            for name in ("conv1", "conv2"):
                layer = getattr(block, name)
                if not isinstance(layer, nn.Conv2d):
                    setattr(block, name, _DeformableConvolution(layer))

    def extract(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `ExtractorGraph`."""
        radius = self.options.nms_radius
        margins = Margins.of(image, TOTAL_STRIDE)
        levels = self._levels(margins.pad(image))
        score_maps = margins.crop(self._scores(levels), image)
        selection = select_pixels(score_maps, self.options, max(radius, self.options.border), radius)
        keypoints, scores = refine(score_maps, selection, radius)
        descriptors = self._describe(levels, keypoints, size_of(image), margins.shift())
        return keypoints, scores, descriptors, selection.is_valid

    def _levels(self, maps: torch.Tensor) -> list[torch.Tensor]:
        levels = []
        for block, level, stride in zip(self.blocks, self.network.level, (1, 2, 4, 4), strict=True):
            maps = block(functional.avg_pool2d(maps, stride) if stride > 1 else maps)
            levels.append(functional.selu(level(maps)))
        return levels

    def _scores(self, levels: list[torch.Tensor]) -> torch.Tensor:
        total, *smaller = (part(level) for part, level in zip(self.network.score_parts, levels, strict=True))
        for part in smaller:
            total = total + functional.interpolate(part, total.shape[2:], mode="bilinear", align_corners=True)
        for convolution in self.network.score:
            total = convolution(functional.selu(total))
        return torch.sigmoid(total)

    def _describe(
        self, levels: list[torch.Tensor], keypoints: torch.Tensor, size: torch.Tensor, shift: torch.Tensor
    ) -> torch.Tensor:
        """(B, K, D) descriptors; `shift` is from the image of `size` to the padded one."""
        head = self.network.describer
        batch, budget, positions = keypoints.shape[0], self.options.max_num_keypoints, head.num_positions
        reach = torch.arange(head.kernel_size) - head.kernel_size // 2
        window = torch.stack(torch.meshgrid(reach, reach, indexing="xy"), dim=-1).reshape(1, 1, -1, 2).float()
        pixels = keypoints.floor().unsqueeze(2) + window
        is_inside = ((pixels >= 0.0) & (pixels <= size - 1.0)).float()
        patches = _features(levels, pixels + shift)
        patches = patches * (is_inside[..., 0] * is_inside[..., 1]).unsqueeze(1) / _lengths(patches)
        patches = patches.permute(0, 2, 3, 1).reshape(batch, budget, head.first_weight.shape[0])
        inner = functional.selu(patches @ head.first_weight + head.first_bias)
        offsets = _limited(inner @ head.last_weight + head.last_bias, size)
        # x of all positions, then y of all.
        offsets = offsets.reshape(batch, budget, 2, positions).transpose(2, 3)
        points = (keypoints.unsqueeze(2) + offsets).reshape(batch, budget * positions, 2)
        corners, weights = corner_weights(points, size)
        features = _features(levels, corners + shift)
        samples = (features * (weights.unsqueeze(1) / _lengths(features))).sum(dim=2)
        supports = functional.selu(head.support_weight.t() @ samples)
        supports = supports.reshape(batch, -1, budget, positions).permute(0, 2, 3, 1)
        descriptors = supports.reshape(batch, budget, head.aggregation.shape[0]) @ head.aggregation
        return functional.normalize(descriptors, dim=2)


def _features(levels: list[torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """(B, D, P, Q) features, not normalised, at (B, P, Q, 2) pixels of the padded image."""
    full = size_of(levels[0])
    parts = []
    for level in levels:
        size = size_of(level)
        parts.append(sample(level, grid_of(pixels * ((size - 1.0) / (full - 1.0)), size)))
    return torch.cat(parts, dim=1)


def _lengths(features: torch.Tensor) -> torch.Tensor:
    return (features * features).sum(dim=1, keepdim=True).sqrt().clamp(min=_SMALLEST_NORM)


def _limited(offsets: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    limit = size.max() / 4.0
    return torch.minimum(torch.maximum(offsets, -limit), limit)


class _DeformableConvolution(nn.Module):
    """ALIKED's deformable convolution of 3x3 taps as GridSample and a matrix product."""

    def __init__(self, folded: Any) -> None:
        super().__init__()
        self.offset = folded.offset
        self.taps = folded.kernel_size**2
        # From (taps * C, C') to (C', C * taps).
        weight = folded.weight.detach()
        weight = weight.reshape(self.taps, -1, weight.shape[1]).permute(2, 1, 0).reshape(weight.shape[1], -1)
        self.weight = nn.Parameter(weight.contiguous())
        self.bias = nn.Parameter(folded.bias.detach().reshape(-1, 1))
        reach = torch.arange(folded.kernel_size) - folded.kernel_size // 2
        y, x = torch.meshgrid(reach, reach, indexing="ij")
        self.reach = torch.stack([x, y], dim=-1).reshape(1, 1, -1, 2).float()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, C', H, W)."""
        batch, _channels, height, width = maps.shape
        size = size_of(maps)
        # (y, x) of the first tap, (y, x) of the second ...
        offsets = _limited(self.offset(maps), size).reshape(batch, self.taps, 2, height * width)
        offsets = torch.stack([offsets[:, :, 1], offsets[:, :, 0]], dim=3).transpose(1, 2)
        columns = torch.arange(width).unsqueeze(0).expand(height, width)
        rows = torch.arange(height).unsqueeze(1).expand(height, width)
        pixels = torch.stack([columns, rows], dim=2).float().reshape(1, -1, 1, 2)
        samples = sample(maps, grid_of(pixels + self.reach + offsets, size))
        samples = samples.transpose(2, 3).reshape(batch, self.weight.shape[1], height * width)
        return (self.weight @ samples + self.bias).reshape(batch, self.weight.shape[0], height, width)


class DotletGraph(ExtractorGraph):
    """Dotlet, whose maps are traced as they are; its descriptors read all levels at the same coordinates."""

    def extract(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `ExtractorGraph`."""
        radius, network = self.options.nms_radius, self.network
        logits, *levels = network.maps_of(_standardized(image))
        score_maps = torch.sigmoid(logits)
        selection = select_pixels(score_maps, self.options, max(radius, self.options.border), radius)
        keypoints, scores = refine(score_maps, selection, radius)
        margins = Margins.of(image, network.minimum_size)
        # The levels' pixels are cells of the padded image, so its coordinates, -1 to 1, are those of every level.
        grid = grid_of(keypoints + margins.shift(), margins.padded_size(image)).unsqueeze(1)
        joined = torch.cat([sample(level, grid, "border") for level in levels], dim=1)[:, :, 0].transpose(1, 2)
        descriptors = network.describe_outer(functional.relu(network.describe_inner(joined)))
        unit = functional.normalize(descriptors, dim=2)
        return keypoints, scores, unit, selection.is_valid


def _standardized(image: torch.Tensor) -> torch.Tensor:
    """As `dotlet.standardized`. In two steps: onnxruntime's sum over a whole image is off by 1e-4 of the mean."""
    deviations = image - image.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
    variance = (deviations * deviations).mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
    return deviations / (variance.sqrt() + SMALLEST_CONTRAST)


class SilkGraph(ExtractorGraph):
    """SiLK, whose maps are traced as they are; keypoints are pixels."""

    def extract(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `ExtractorGraph`."""
        network, border = self.network, self.network.config.border_px
        score_maps, features = network.dense(image)
        selection = select_pixels(score_maps, self.options, max(self.options.border - border, 0), 0)
        batch, channels, height, width = features.shape
        reach = torch.arange(3)
        window = (reach.unsqueeze(1) * width + reach).reshape(-1)
        firsts = torch.arange(batch).unsqueeze(1) * (height * width)
        corners = (firsts + selection.rows * width + selection.columns).unsqueeze(2) + window
        rows = features.permute(0, 2, 3, 1).reshape(-1, channels)
        windows = rows[corners.reshape(-1)].reshape(batch, -1, network.descriptor_inner.in_features)
        descriptors = network.descriptor_outer(functional.relu(network.descriptor_inner(windows)))
        keypoints = torch.stack([selection.columns, selection.rows], dim=2).float() + border
        unit = functional.normalize(descriptors, dim=2)
        return keypoints, selection.scores, unit, selection.is_valid


GRAPHS: dict[type[nn.Module], Callable[..., ExtractorGraph]] = {
    FastAliked: AlikedGraph,
    Dotlet: DotletGraph,
    FusedSilk: SilkGraph,
}
