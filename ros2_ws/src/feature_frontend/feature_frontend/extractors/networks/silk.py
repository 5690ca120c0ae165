"""SiLK (Gleize et al., ICCV 2023): Section 4.1, backbones of 4.5.1 and Table 7. Written from the paper.

Every pixel is a candidate: the network outputs a keypoint logit and a descriptor at the resolution of the image,
without pooling and without padding, so its maps are smaller than the image by a border on each side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from feature_frontend.extractors.base import DetectionOptions, NetworkFeatures
from feature_frontend.extractors.networks.layers.deformable_convolution import gather_patches
from feature_frontend.extractors.networks.layers.keypoint_detection import suppress_non_maxima, zero_border
from feature_frontend.extractors.networks.layers.selection import select_candidates

__all__ = ["SILK_CONFIGS", "Silk", "SilkConfig", "SilkMaps", "from_published_names", "inside_border", "to_grey"]

_RGB_TO_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
_CONVOLUTIONS_PER_BLOCK = 2


@dataclass(frozen=True)
class SilkConfig:
    """One row of Table 7.

    Attributes:
        channels: Channels of each backbone block, of two 3x3 convolutions each.
        head_channels: Channels inside both heads, and length of the descriptors.
    """

    channels: tuple[int, ...]
    head_channels: int

    @property
    def border_px(self) -> int:
        """Rows and columns missing on each side of the maps: one per 3x3 convolution, including the heads'."""
        return len(self.channels) * _CONVOLUTIONS_PER_BLOCK + 1


SILK_CONFIGS = {
    "silk-vggnp-4": SilkConfig((64, 64, 128, 128), 128),
    "silk-vggnp-3": SilkConfig((64, 128, 128), 128),
    "silk-vggnp-2": SilkConfig((128, 128), 128),
    "silk-vggnp-1": SilkConfig((128,), 128),
    "silk-vggnp-mu": SilkConfig((64,), 32),
}


@dataclass(frozen=True)
class SilkMaps:
    """The network's per-pixel output; map pixel (x, y) is image pixel (x + border, y + border).

    Attributes:
        logits: (B, 1, h, w), keypoint logits q.
        descriptors: (B, D, h, w), not normalised.
    """

    logits: torch.Tensor
    descriptors: torch.Tensor


class _Convolution(nn.Module):
    """3x3 convolution without padding, then ReLU, then batch norm."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        normalized: torch.Tensor = self.norm(functional.relu(self.conv(maps)))
        return normalized


class _Head(nn.Module):
    """A 3x3 convolution, then a 1x1 convolution with batch norm."""

    def __init__(self, in_channels: int, inner_channels: int, out_channels: int) -> None:
        super().__init__()
        self.inner = _Convolution(in_channels, inner_channels)
        self.conv = nn.Conv2d(inner_channels, out_channels, 1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        normalized: torch.Tensor = self.norm(self.conv(self.inner(maps)))
        return normalized


class Silk(nn.Module):
    """A VGG backbone without pooling, a keypoint head and a descriptor head.

    Args:
        config: A row of Table 7.
    """

    input_channels = 1
    minimum_size = 32  # px, of an image's side
    default_nms_radius = 0  # the paper uses no suppression (3.2)

    def __init__(self, config: SilkConfig) -> None:
        super().__init__()
        self.config = config
        self.descriptor_dim = config.head_channels
        layers: list[nn.Module] = []
        channels = self.input_channels
        for block_channels in config.channels:
            for _ in range(_CONVOLUTIONS_PER_BLOCK):
                layers.append(_Convolution(channels, block_channels))
                channels = block_channels
        self.backbone = nn.Sequential(*layers)
        self.keypoint_head = _Head(channels, config.head_channels, 1)
        self.descriptor_head = _Head(channels, config.head_channels, config.head_channels)

    def forward(self, images: torch.Tensor) -> SilkMaps:
        """Both maps of (B, 1, H, W) grey or (B, 3, H, W) RGB images in [0, 1]; h = H - 2 border."""
        features = self._encode(images)
        return SilkMaps(self.keypoint_head(features), self.descriptor_head(features))

    def extract(
        self, images: torch.Tensor, options: DetectionOptions, allowed: torch.Tensor | None = None
    ) -> list[NetworkFeatures]:
        """Keypoints and descriptors of (B, 1, H, W) or (B, 3, H, W) images in [0, 1], best score first.

        The descriptor head runs only at the keypoints. `allowed` is as for `NetworkProtocol.extract`.
        """
        features = self._encode(images)
        probabilities = torch.sigmoid(self.keypoint_head(features).float())
        if options.nms_radius:
            probabilities = suppress_non_maxima(probabilities, options.nms_radius)
        border = self.config.border_px
        candidates = zero_border(probabilities[:, 0], max(options.border - border, 0))
        width = candidates.shape[2]
        best, flat_indices = select_candidates(candidates, options, inside_border(allowed, border))
        found = []
        for scores, indices, feature_map in zip(best, flat_indices, features, strict=True):
            kept = scores > options.detection_threshold
            rows = torch.div(indices[kept], width, rounding_mode="floor")
            pixels = torch.stack([indices[kept] % width, rows], dim=1)
            descriptors = self._describe(feature_map, pixels)
            found.append(NetworkFeatures((pixels + border).float(), scores[kept], descriptors))
        return found

    def _encode(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[1] != self.input_channels:
            images = to_grey(images)
        features: torch.Tensor = self.backbone(images.to(self.keypoint_head.conv.weight.dtype))
        return features

    def _describe(self, feature_map: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """(N, D) L2-normalised descriptors at (N, 2) map pixels, of a (C, h + 2, w + 2) backbone map."""
        if pixels.shape[0] == 0:
            return feature_map.new_zeros((0, self.descriptor_dim))
        # The heads' map is one row and column smaller: its pixel (x, y) is (x + 1, y + 1) of the backbone's map.
        patches = gather_patches(feature_map, pixels + 1, 3)
        descriptors = self.descriptor_head(patches)[:, :, 0, 0]
        return functional.normalize(descriptors.float(), dim=1).to(feature_map.dtype)


def inside_border(allowed: torch.Tensor | None, border: int) -> torch.Tensor | None:
    """The part of (B, H, W) pixels that (B, H - 2 border, W - 2 border) maps cover; None stays None."""
    if allowed is None:
        return None
    height, width = allowed.shape[1:]
    return allowed[:, border : height - border, border : width - border]


def to_grey(images: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) grey of (B, 3, H, W) RGB."""
    red, green, blue = (weight * images[:, i : i + 1] for i, weight in enumerate(_RGB_TO_GREY))
    return red + green + blue


def from_published_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Renames the tensors of a published checkpoint to this module's names.

    Omits the checkpoint's `descriptor_scale_factor` (1.41): it scales all descriptors alike, which does not affect
    cosine similarity. The published double softmax at temperature T equals this project's at T / 1.41^2.

    Args:
        state: Names as published ("_mods.model.backbone...") or this module's names, which are kept.
    """
    prefix = "_mods.model."
    if not any(name.startswith(prefix) for name in state):
        return dict(state)
    renamed = {}
    for name, tensor in state.items():
        short = name.removeprefix(prefix)
        if short != "descriptor_scale_factor":
            renamed[_own_name(short)] = tensor
    return renamed


_HEADS = {"logits._detH": "keypoint_head", "raw_descriptors._desH": "descriptor_head"}
_PARTS = {"0": "conv", "1": "norm", "2": "norm"}


def _own_name(published: str) -> str:
    """Renames one tensor; a name of another layout is returned unchanged, so that strict loading rejects it."""
    layers, heads = "backbone._backbone.layers.", "backbone._heads._mods."
    if published.startswith(layers):
        block, convolution, part, rest = published.removeprefix(layers).split(".", 3)
        index = int(block) * _CONVOLUTIONS_PER_BLOCK + int(convolution)
        return f"backbone.{index}.{_PARTS.get(part, part)}.{rest}"
    for theirs, ours in _HEADS.items():
        if published.startswith(heads + theirs):
            stage, part, rest = published.removeprefix(heads + theirs).split(".", 2)
            inner = "inner." if stage == "1" else ""
            return f"{ours}.{inner}{_PARTS.get(part, part)}.{rest}"
    return published
