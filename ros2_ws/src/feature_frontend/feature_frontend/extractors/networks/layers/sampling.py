"""Reading feature maps between pixels."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["at_least_float32", "sample_bilinear"]


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision becomes float32; float32 stays, and so does float64, in which gradients are checked."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def sample_bilinear(maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bilinear values of `maps` at `points`; what lies outside the map counts as zero, corner by corner.

    Args:
        maps: (B, C, H, W), any float type. Interpolation itself is float32: in half precision a coordinate of a map
            640 px wide is only good to half a pixel (float64 stays what it is).
        points: (B, P, Q, 2) float32, (x, y) px of the map, centres at integers.

    Returns:
        (B, C, P, Q) in the type of `maps`.
    """
    height, width = maps.shape[-2:]
    if min(height, width) == 1:
        # A side of one pixel leaves grid_sample no scale: give it a second one, of zeros like all outside.
        maps = functional.pad(maps, [0, int(width == 1), 0, int(height == 1)])
        height, width = maps.shape[-2:]
    # grid_sample's coordinates run from -1 at the first pixel's centre to 1 at the last one's (align_corners).
    x, y = points.unbind(-1)
    grid = torch.stack([x * (2.0 / (width - 1)) - 1.0, y * (2.0 / (height - 1)) - 1.0], dim=-1)
    exact = at_least_float32(maps)
    grid = grid.to(exact.dtype)
    values = functional.grid_sample(exact, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return values.to(maps.dtype)
