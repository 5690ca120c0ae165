"""Bilinear sampling of feature maps: of whole maps, or of single rows with their channels contiguous in memory."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = [
    "at_least_float32",
    "corner_weights",
    "corners_of_upsampling",
    "rows_of_map",
    "sample_bilinear",
    "weighted_row_sums",
]


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Converts half precision to float32; keeps float32, and float64 for gradient checks."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def sample_bilinear(maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bilinear values of `maps` at `points`; each corner outside the map counts as zero.

    Args:
        maps: (B, C, H, W), any float type. Interpolates in float32, as a half-precision coordinate in a map 640 px wide
            is only accurate to half a pixel (float64 stays float64).
        points: (B, P, Q, 2) float32, (x, y) px of the map, centres at integers.

    Returns:
        (B, C, P, Q) in the type of `maps`.
    """
    height, width = maps.shape[-2:]
    if min(height, width) == 1:
        # grid_sample has no scale for a side of one pixel: add a second one, zero like everything outside.
        maps = functional.pad(maps, [0, int(width == 1), 0, int(height == 1)])
        height, width = maps.shape[-2:]
    # grid_sample's coordinates run from -1 at the first pixel's centre to 1 at the last pixel's (align_corners).
    x, y = points.unbind(-1)
    grid = torch.stack([x * (2.0 / (width - 1)) - 1.0, y * (2.0 / (height - 1)) - 1.0], dim=-1)
    exact = at_least_float32(maps)
    grid = grid.to(exact.dtype)
    values = functional.grid_sample(exact, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return values.to(maps.dtype)


def rows_of_map(maps: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) maps as (B * H * W, C) rows; a view if the maps are channels-last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def corner_weights(points: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The four pixels around each point and their bilinear weights; a corner outside the map has weight zero.

    Args:
        points: (..., 2) float32, (x, y) px, centres at integers.
        height: Height of the map, px.
        width: Width of the map, px.

    Returns:
        (..., 4, 2) int64 pixels (x, y), all inside the map, and (..., 4) float32 weights.
    """
    x, y = points.unbind(-1)
    left, top = x.floor(), y.floor()
    right_fraction, bottom_fraction = x - left, y - top
    columns = torch.stack([left, left + 1, left, left + 1], dim=-1)
    rows = torch.stack([top, top, top + 1, top + 1], dim=-1)
    horizontal = torch.stack([1 - right_fraction, right_fraction, 1 - right_fraction, right_fraction], dim=-1)
    vertical = torch.stack([1 - bottom_fraction, 1 - bottom_fraction, bottom_fraction, bottom_fraction], dim=-1)
    is_inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    weights = torch.where(is_inside, horizontal * vertical, 0.0)
    pixels = torch.stack([columns.clamp(0, width - 1), rows.clamp(0, height - 1)], dim=-1)
    return pixels.long(), weights


def corners_of_upsampling(
    pixels: torch.Tensor, size: tuple[int, int], upsampled_size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixels of a small map, and their weights, for single pixels of its bilinear upsampling with aligned corners.

    Args:
        pixels: (..., 2) int64, (x, y) px of the large map, inside it.
        size: (height, width) of the small map, px.
        upsampled_size: (height, width) of the large map, px; both at least 2.

    Returns:
        (..., 4) int64 indices into the small map's rows (y * width + x) and (..., 4) float32 weights.
    """
    (height, width), (upsampled_height, upsampled_width) = size, upsampled_size
    x = pixels[..., 0].to(torch.float32) * ((width - 1) / (upsampled_width - 1))
    y = pixels[..., 1].to(torch.float32) * ((height - 1) / (upsampled_height - 1))
    left, top = x.floor(), y.floor()
    right_fraction, bottom_fraction = x - left, y - top
    left_column, top_row = left.long(), top.long()
    right_column, bottom_row = (left_column + 1).clamp(max=width - 1), (top_row + 1).clamp(max=height - 1)
    upper, lower = top_row * width, bottom_row * width
    indices = torch.stack(
        [upper + left_column, upper + right_column, lower + left_column, lower + right_column], dim=-1
    )
    left_fraction, top_fraction = 1 - right_fraction, 1 - bottom_fraction
    weights = torch.stack(
        [
            left_fraction * top_fraction,
            right_fraction * top_fraction,
            left_fraction * bottom_fraction,
            right_fraction * bottom_fraction,
        ],
        dim=-1,
    )
    return indices, weights


def weighted_row_sums(rows: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sums of a few weighted rows, without copying the rows.

    Args:
        rows: (P, C), any float type.
        indices: (Q, R) int64 into `rows`.
        weights: (Q, R) float32.

    Returns:
        (Q, C) in the type of `rows`.
    """
    return functional.embedding_bag(indices, rows, mode="sum", per_sample_weights=weights.to(rows.dtype))
