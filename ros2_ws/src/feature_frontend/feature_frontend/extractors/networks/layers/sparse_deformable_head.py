"""Sparse deformable descriptor head, SDDH (ALIKED paper, Section IV-B, equations 4 and 5)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from feature_frontend.extractors.networks.layers.sampling import at_least_float32, sample_bilinear

__all__ = ["SparseDeformableDescriptorHead", "gather_patches"]


def gather_patches(feature_map: torch.Tensor, centres: torch.Tensor, size: int) -> torch.Tensor:
    """Square patches of a map, zero where they reach beyond it.

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
    """Describes keypoints by M features sampled at positions that the patch around each of them decides.

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
