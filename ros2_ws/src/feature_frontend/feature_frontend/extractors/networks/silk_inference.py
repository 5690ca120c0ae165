"""Fast inference version of `Silk`, with the same weights and the same results.

- Batch norm follows ReLU, so it is folded into the next convolution: exactly, because no convolution pads its input.
- Maps are channels-last; a pixel's channels are contiguous where the descriptor head reads them.
- The descriptor head is two matrix products over all keypoints; the best keypoints are found without sorting the map.
- Shapes depend on the image's size and the budget, not on the image's content: nothing waits for the device.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from feature_frontend.extractors.base import DetectionOptions, NetworkFeatures, PaddedFeatures
from feature_frontend.extractors.covariances import POSITION_NOISE, detected_covariances
from feature_frontend.extractors.networks.layers.keypoint_detection import suppress_non_maxima, zero_border
from feature_frontend.extractors.networks.layers.selection import select_candidates
from feature_frontend.extractors.networks.silk import Silk, SilkConfig, inside_border, to_grey

__all__ = ["FusedSilk"]

_KERNEL_SIZE = 3


class FusedSilk(nn.Module):
    """Computes what `Silk` computes with the same weights; for inference only.

    Args:
        config: A row of Table 7.
    """

    input_channels = Silk.input_channels
    default_nms_radius = Silk.default_nms_radius
    minimum_size = Silk.minimum_size
    refines_keypoints = False
    position_noise = POSITION_NOISE["silk"]
    # SiLK's cosines are less discriminative than ALIKED's: most of those in an unrelated image are also above it.
    default_track_similarity = 0.7

    def __init__(self, config: SilkConfig) -> None:
        super().__init__()
        self.config = config
        self.descriptor_dim = config.head_channels
        channels = (self.input_channels, *(width for width in config.channels for _ in range(2)))
        self.backbone = nn.ModuleList([nn.Conv2d(*pair, _KERNEL_SIZE) for pair in pairwise(channels)])
        self.keypoint_inner = nn.Conv2d(channels[-1], config.head_channels, _KERNEL_SIZE)
        self.keypoint_outer = nn.Linear(config.head_channels, 1)
        self.descriptor_inner = nn.Linear(_KERNEL_SIZE**2 * channels[-1], config.head_channels)
        self.descriptor_outer = nn.Linear(config.head_channels, config.head_channels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def from_reference(cls, reference: Silk) -> FusedSilk:
        """Builds the network from `reference`, which must have its final weights."""
        fused = cls(reference.config).to(reference.keypoint_head.conv.weight)
        norm: nn.BatchNorm2d | None = None
        for target, layer in zip(fused.backbone, reference.backbone, strict=True):
            _fill(cast(nn.Conv2d, target), cast(nn.Conv2d, layer.conv), before=norm)
            norm = cast(nn.BatchNorm2d, layer.norm)
        heads = (
            (reference.keypoint_head, fused.keypoint_inner, fused.keypoint_outer),
            (reference.descriptor_head, fused.descriptor_inner, fused.descriptor_outer),
        )
        for head, inner, outer in heads:
            _fill(inner, head.inner.conv, before=norm)
            _fill(outer, head.conv, before=head.inner.norm, after=head.norm)
        return fused.eval().requires_grad_(requires_grad=False)

    def extract(
        self, images: torch.Tensor, options: DetectionOptions, allowed: torch.Tensor | None = None
    ) -> list[NetworkFeatures]:
        """Keypoints and descriptors of (B, 1 or 3, H, W) images in [0, 1], best score first; see `NetworkProtocol`."""
        return self.sparse(self.dense(images), options, allowed, trim=True).unpadded()

    def dense(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The per-pixel work on (B, 1, H, W) grey or (B, 3, H, W) RGB images in [0, 1].

        Returns:
            Keypoint probabilities (B, 1, H - 2 border, W - 2 border) float32, and the backbone's features before their
            batch norm (B, C, H - 2 border + 2, W - 2 border + 2).
        """
        logits, features = self.logits(images)
        return torch.sigmoid(logits), features

    def logits(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keypoint logits (B, 1, H - 2 border, W - 2 border) float32, and the features as returned by `dense`."""
        maps = images if images.shape[1] == self.input_channels else to_grey(images)
        maps = maps.to(self.keypoint_outer.weight.dtype).contiguous(memory_format=torch.channels_last)
        for convolution in self.backbone:
            maps = functional.relu_(convolution(maps))
        inner = functional.relu_(self.keypoint_inner(maps))
        logits: torch.Tensor = self.keypoint_outer(inner.permute(0, 2, 3, 1))
        return logits.permute(0, 3, 1, 2).float(), maps

    def sparse(
        self,
        dense: tuple[torch.Tensor, ...],
        options: DetectionOptions,
        allowed: torch.Tensor | None = None,
        *,
        trim: bool = False,
        maxima: torch.Tensor | None = None,
    ) -> PaddedFeatures:
        """Keypoints and descriptors from the maps of `dense`; see `FastNetwork`."""
        probabilities, features = dense
        border = self.config.border_px
        if maxima is not None:
            probabilities = functional.pad(maxima, [-border] * 4)
        elif options.nms_radius:
            probabilities = suppress_non_maxima(probabilities, options.nms_radius)
        candidates = zero_border(probabilities[:, 0], max(options.border - border, 0))
        width = candidates.shape[2]
        scores, positions = select_candidates(candidates, options, inside_border(allowed, border))
        counts = (scores > options.detection_threshold).sum(dim=1)
        if trim:
            most = int(counts.max())
            scores, positions = scores[:, :most], positions[:, :most]
        pixels = torch.stack([positions % width, torch.div(positions, width, rounding_mode="floor")], dim=2)
        keypoints = (pixels + border).float()
        covariances = detected_covariances(dense[0], pixels, self.position_noise)
        descriptors = self._describe(features, pixels)
        return PaddedFeatures(keypoints, scores, descriptors, counts, torch.ones_like(scores), covariances)

    def score_maps(self, dense: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """See `FastNetwork`."""
        return functional.pad(dense[0], [self.config.border_px] * 4)

    def describe(self, dense: tuple[torch.Tensor, ...], keypoints: torch.Tensor) -> torch.Tensor:
        """See `FastNetwork`; uses the pixel nearest to each point."""
        probabilities, features = dense
        height, width = probabilities.shape[-2:]
        pixels = keypoints.round().long() - self.config.border_px
        pixels = torch.stack([pixels[..., 0].clamp(0, width - 1), pixels[..., 1].clamp(0, height - 1)], dim=2)
        return self._describe(features, pixels)

    def _describe(self, features: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """(B, K, D) L2-normalised descriptors at (B, K, 2) pixels of the probabilities' map."""
        batch, channels, height, width = features.shape
        # The heads' map is one row and column smaller on each side: its pixels are corners of windows in this map.
        reach = torch.arange(_KERNEL_SIZE, device=pixels.device)
        window = (reach[:, None] * width + reach).flatten()
        corners = torch.arange(batch, device=pixels.device)[:, None] * (height * width)
        corners = corners + pixels[:, :, 1] * width + pixels[:, :, 0]
        rows = features.permute(0, 2, 3, 1).reshape(-1, channels)
        windows = rows.index_select(0, (corners[:, :, None] + window).flatten())
        inner = functional.relu_(self.descriptor_inner(windows.reshape(batch, pixels.shape[1], len(window) * channels)))
        descriptors = self.descriptor_outer(inner)
        return functional.normalize(descriptors.float(), dim=2).to(features.dtype)


@torch.no_grad()
def _fill(
    target: nn.Conv2d | nn.Linear,
    convolution: nn.Conv2d,
    before: nn.BatchNorm2d | None,
    after: nn.BatchNorm2d | None = None,
) -> None:
    """Fills a layer with the weights of a convolution, folding in the batch norms on its input and output.

    Args:
        target: A convolution, or a linear layer over the window's channels pixel by pixel.
        convolution: Without padding, so that the norm's shift applies to all of its inputs.
        before: Batch norm between the last ReLU and the convolution.
        after: Batch norm after the convolution.
    """
    weight, bias = convolution.weight.double(), cast(torch.Tensor, convolution.bias).double()
    if before is not None:
        scale, shift = _scale_and_shift(before)
        bias = bias + weight.sum(dim=(2, 3)) @ shift
        weight = weight * scale[:, None, None]
    if after is not None:
        scale, shift = _scale_and_shift(after)
        weight, bias = weight * scale[:, None, None, None], bias * scale + shift
    if isinstance(target, nn.Linear):
        weight = weight.permute(0, 2, 3, 1).flatten(1)
    target.weight.copy_(weight)
    target.bias.copy_(bias)  # type: ignore[union-attr]


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift of a batch norm, one number per channel, in float64."""
    mean, variance = cast(torch.Tensor, norm.running_mean).double(), cast(torch.Tensor, norm.running_var).double()
    scale = norm.weight.double() / (variance + norm.eps).sqrt()
    return scale, norm.bias.double() - mean * scale
