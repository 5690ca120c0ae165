"""Deformable convolution in plain PyTorch (ALIKED paper, equation 3; Dai et al., ICCV 2017)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from feature_frontend.extractors.networks.layers.sampling import at_least_float32, sample_bilinear

__all__ = ["DeformableConv2d", "SparseDeformableDescriptorHead", "gather_patches", "regular_positions"]


class DeformableConv2d(nn.Module):
    """Convolution whose sample positions are shifted by offsets that a plain convolution estimates from the same input.

    F'(p) = sum_i w(p_i) F(p + p_i + dp_i), stride 1, same output size. The offsets are clamped to a quarter of the
    map's larger side: not in the paper, but the published weights were trained with it.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Odd side K of the kernel.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        padding = kernel_size // 2
        taps = kernel_size * kernel_size
        self.offset_conv = nn.Conv2d(in_channels, 2 * taps, kernel_size, padding=padding)
        self.regular_conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, C', H, W)."""
        batch, channels, height, width = maps.shape
        taps = self.kernel_size * self.kernel_size
        limit = max(height, width) / 4.0
        # Channels of the offsets: (y, x) of the first tap, (y, x) of the second, row by row of the kernel.
        offsets = at_least_float32(self.offset_conv(maps)).clamp(-limit, limit)
        offsets = offsets.reshape(batch, taps, 2, height * width).flip(2).transpose(2, 3)
        positions = regular_positions(height, width, self.kernel_size, maps.device).transpose(0, 1) + offsets
        samples = sample_bilinear(maps, positions).reshape(batch, channels * taps, height * width)
        weight = self.regular_conv.weight.reshape(self.regular_conv.out_channels, channels * taps)
        return functional.conv1d(samples, weight.unsqueeze(2)).reshape(batch, -1, height, width)


def regular_positions(height: int, width: int, kernel_size: int, device: torch.device) -> torch.Tensor:
    """(H*W, K*K, 2): position that each tap of a convolution reads for each pixel, (x, y) px."""
    half = kernel_size // 2
    rows = torch.arange(height, device=device, dtype=torch.float32)
    columns = torch.arange(width, device=device, dtype=torch.float32)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    pixels = torch.stack([x, y], dim=-1).reshape(height * width, 1, 2)
    reach = torch.arange(-half, half + 1, device=device, dtype=torch.float32)
    tap_y, tap_x = torch.meshgrid(reach, reach, indexing="ij")
    return pixels + torch.stack([tap_x, tap_y], dim=-1).reshape(1, -1, 2)


def gather_patches(feature_map: torch.Tensor, centres: torch.Tensor, size: int) -> torch.Tensor:
    """Square patches of a map, zero outside it.

    Args:
        feature_map: (C, H, W).
        centres: (N, 2) int64, (x, y) px inside the map.
        size: Odd side K of a patch in px.

    Returns:
        (N, C, K, K).
    """
    half = size // 2
    padded = functional.pad(feature_map, [half] * 4)
    reach = torch.arange(size, device=centres.device)
    rows = centres[:, 1, None, None] + reach[None, :, None]
    columns = centres[:, 0, None, None] + reach[None, None, :]
    return padded[:, rows, columns].transpose(0, 1)


class SparseDeformableDescriptorHead(nn.Module):
    """Describes each keypoint by M features, sampled at positions estimated from the patch around it.

    Args:
        dim: Channels C of the feature map and length of the descriptors.
        num_positions: Sample positions M.
        kernel_size: Side K of the patch in px.
    """

    def __init__(self, dim: int, num_positions: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.num_positions = num_positions
        self.offset_conv = nn.Sequential(
            nn.Conv2d(dim, 2 * num_positions, kernel_size),
            nn.SELU(),
            nn.Conv2d(2 * num_positions, 2 * num_positions, 1),
        )
        self.sf_conv = nn.Conv2d(dim, dim, 1, bias=False)
        self.agg_weights = nn.Parameter(torch.empty(num_positions, dim, dim))
        nn.init.xavier_uniform_(self.agg_weights)

    def forward(self, feature_map: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor:
        """Descriptors of the keypoints of one image.

        Args:
            feature_map: (C, H, W).
            keypoints: (N, 2) float32, (x, y) px inside the map.

        Returns:
            (N, C), L2-normalised, in the type of `feature_map`.
        """
        if keypoints.shape[0] == 0:
            return feature_map.new_zeros((0, feature_map.shape[0]))
        limit = max(feature_map.shape[1:]) / 4.0
        patches = gather_patches(feature_map, keypoints.detach().long(), self.kernel_size)
        # Channels of the offsets: x of all M positions, then y of all.
        offsets = at_least_float32(self.offset_conv(patches)).clamp(-limit, limit).reshape(-1, 2, self.num_positions)
        positions = keypoints.unsqueeze(1) + offsets.transpose(1, 2)
        samples = sample_bilinear(feature_map.unsqueeze(0), positions.unsqueeze(0))
        supports = functional.selu(self.sf_conv(samples))[0]
        descriptors = torch.einsum("cnm,mcd->nd", supports, self.agg_weights)
        return functional.normalize(at_least_float32(descriptors), dim=1).to(feature_map.dtype)
