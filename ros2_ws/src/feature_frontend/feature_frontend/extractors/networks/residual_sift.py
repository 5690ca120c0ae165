"""Residual descriptors on hand-crafted points (Shrestha et al., "Residual Learning for Image Point Descriptors", 2023).

OpenCV detects and describes the points; a network complements these descriptors with features of the image around them
(3.1, 3.2, Figure 1): y = [h(I, x), f(g(I, x))] / |...|, with the hand-crafted descriptors g, the dense features h of a
trimmed SuperPoint, sampled at the points x, and a small perceptron f, the Refine layer.

Our choices where the paper is silent: g is scaled to a mean square of 1; h is sampled bilinearly between the centres of
its cells; batch norm follows each convolution but the last, as in open trainings of SuperPoint; ReLU follows each layer
but the last of h and of f. Weights are initialised by He et al., but so that the refined descriptor equals the
hand-crafted one and h is small: training starts from the known descriptor and learns the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import nn

from feature_frontend.extractors.base import DetectionOptions, NetworkFeatures
from feature_frontend.extractors.covariances import POSITION_NOISE
from feature_frontend.extractors.networks.layers.sampling import sample_bilinear
from feature_frontend.extractors.networks.opencv_sift import (
    CLASSICAL_CONFIGS,
    DESCRIPTOR_DIM,
    ClassicalConfig,
    PointDetector,
    grey_bytes,
)

__all__ = ["RESIDUAL_CONFIGS", "Residual", "ResidualConfig", "fold_batch_norm"]

_CELL_PX = 8
_ENCODER_CHANNELS = ((64, 64), (64, 64), (128, 128), (128, 128))  # SuperPoint's; the image is halved between the blocks
_HEAD_CHANNELS = 256
_REFINE_CHANNELS = 256
_FIRST_FRACTION = 0.1  # initial scale of h relative to the hand-crafted part


@dataclass(frozen=True)
class ResidualConfig:
    """A hand-crafted method and the learned part.

    Attributes:
        points: Detects and describes the points.
        image_dim: Length d_s of the network's part.
        refined_dim: Length d_r of the refined hand-crafted part; 0 for none, as in the ablation (4.5).
    """

    points: ClassicalConfig
    image_dim: int = 128
    refined_dim: int = 128


RESIDUAL_CONFIGS = {
    **{f"residual-{name}": ResidualConfig(points) for name, points in CLASSICAL_CONFIGS.items()},
    "residual-surf": ResidualConfig(ClassicalConfig("surf")),
    "residual-sift-ablation": ResidualConfig(ClassicalConfig(), image_dim=256, refined_dim=0),
}


class Residual(nn.Module):
    """Hand-crafted points with refined descriptors and dense features, with the interface `NetworkProtocol`.

    Args:
        config: A value of `RESIDUAL_CONFIGS`.

    Raises:
        SettingsError: This OpenCV has no such detector.
    """

    input_channels = 3
    minimum_size = 32  # px, of an image's side
    default_nms_radius = 0
    position_noise = POSITION_NOISE["sift"]

    def __init__(self, config: ResidualConfig) -> None:
        super().__init__()
        self.descriptor_dim = config.image_dim + config.refined_dim
        self.detect = PointDetector(config.points)
        self.encoder = _dense_features(config.image_dim)
        self.refine = _refine_layer(config.refined_dim) if config.refined_dim else None
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(cast(torch.Tensor, layer.bias))
        if self.refine is not None:
            _begin_with_identity(self.refine)
            with torch.no_grad():
                cast(nn.Conv2d, self.encoder[-1]).weight.mul_(_FIRST_FRACTION)

    def forward(
        self, images: torch.Tensor, points: Sequence[torch.Tensor], described: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Descriptors of the points of each image.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].
            points: (N, 2) float32 each, (x, y) px.
            described: (N, 128) each, the hand-crafted descriptors, L2-normalised.

        Returns:
            (N, D) each, L2-normalised.
        """
        weight = cast(torch.Tensor, self.encoder[0].weight)
        maps = self.encoder(images.to(weight.dtype))
        joined = []
        for feature_map, of_image, by_hand in zip(maps, points, described, strict=True):
            parts = [_sample(feature_map, of_image)]
            if self.refine is not None:
                parts.append(self.refine((by_hand * math.sqrt(DESCRIPTOR_DIM)).to(weight.dtype)))
            joined.append(nn.functional.normalize(torch.cat(parts, dim=1).float(), dim=1))
        return joined

    def extract(
        self, images: torch.Tensor, options: DetectionOptions, allowed: torch.Tensor | None = None
    ) -> list[NetworkFeatures]:
        """Keypoints and descriptors of (B, 3, H, W) images in [0, 1]; the points are detected on the CPU."""
        masks = [None] * len(images) if allowed is None else list(allowed.cpu())
        found = [
            self.detect.detect(image, options, mask, self.position_noise).to(images.device)
            for image, mask in zip(grey_bytes(images), masks, strict=True)
        ]
        descriptors = self(images, [one.keypoints for one in found], [one.descriptors for one in found])
        return [replace(one, descriptors=rows) for one, rows in zip(found, descriptors, strict=True)]


def fold_batch_norm(network: Residual) -> Residual:
    """Folds batch norm into the convolutions of a network in evaluation mode."""
    layers: list[nn.Module] = []
    for layer in network.encoder:
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = nn.utils.fusion.fuse_conv_bn_eval(cast(nn.Conv2d, layers[-1]), layer)
        else:
            layers.append(layer)
    network.encoder = nn.Sequential(*layers)
    return network


def _dense_features(channels: int) -> nn.Sequential:
    """(B, 3, H, W) to (B, channels, H / 8, W / 8), rounded down: SuperPoint without its point decoder (Figure 2)."""
    layers: list[nn.Module] = []
    before = Residual.input_channels
    for number, block in enumerate(_ENCODER_CHANNELS):
        if number > 0:
            layers.append(nn.MaxPool2d(2))
        for after in block:
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
            before = after
    layers += [nn.Conv2d(before, _HEAD_CHANNELS, 3, padding=1), nn.BatchNorm2d(_HEAD_CHANNELS), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(_HEAD_CHANNELS, channels, 1))


def _refine_layer(channels: int) -> nn.Sequential:
    """(N, 128) to (N, channels)."""
    return nn.Sequential(
        nn.Linear(DESCRIPTOR_DIM, _REFINE_CHANNELS),
        nn.ReLU(inplace=True),
        nn.Linear(_REFINE_CHANNELS, _REFINE_CHANNELS),
        nn.ReLU(inplace=True),
        nn.Linear(_REFINE_CHANNELS, channels),
    )


@torch.no_grad()
def _begin_with_identity(refine: nn.Sequential) -> None:
    """Initialises the Refine layer to the identity (its input is non-negative); other hidden units are unused."""
    for layer in refine:
        if isinstance(layer, nn.Linear):
            layer.weight[:DESCRIPTOR_DIM] = torch.eye(DESCRIPTOR_DIM, layer.in_features)


def _sample(feature_map: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(N, C) values of a (C, h, w) map at (N, 2) px of the image; clamped to the centres of the outer cells."""
    height, width = feature_map.shape[1:]
    cells = (points + 0.5) / _CELL_PX - 0.5
    limit = torch.tensor([width - 1, height - 1], device=points.device)
    inside = torch.minimum(cells.clamp(min=0), limit)
    return sample_bilinear(feature_map[None], inside[None, None])[0, :, 0].T
