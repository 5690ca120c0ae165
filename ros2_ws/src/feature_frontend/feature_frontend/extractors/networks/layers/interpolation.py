"""Bilinear interpolation as sums of weighted rows: reads a map only where it is wanted, channels together in memory."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["corner_weights", "corners_of_upsampling", "rows_of_map", "weighted_row_sums"]


def rows_of_map(maps: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) maps as (B * H * W, C) rows; a view where the maps are channels-last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def corner_weights(points: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The four pixels around each point and their bilinear weights; a corner outside the map has weight zero.

    Args:
        points: (..., 2) float32, (x, y) px, centres at integers.
        height: Of the map, px.
        width: Of the map, px.

    Returns:
        (..., 4, 2) int64 pixels (x, y), all inside the map, and (..., 4) float32 weights.
    """
    x, y = points.unbind(-1)
    left, top = x.floor(), y.floor()
    right_share, bottom_share = x - left, y - top
    columns = torch.stack([left, left + 1, left, left + 1], dim=-1)
    rows = torch.stack([top, top, top + 1, top + 1], dim=-1)
    horizontal = torch.stack([1 - right_share, right_share, 1 - right_share, right_share], dim=-1)
    vertical = torch.stack([1 - bottom_share, 1 - bottom_share, bottom_share, bottom_share], dim=-1)
    is_inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    weights = torch.where(is_inside, horizontal * vertical, 0.0)
    pixels = torch.stack([columns.clamp(0, width - 1), rows.clamp(0, height - 1)], dim=-1)
    return pixels.long(), weights


def corners_of_upsampling(
    pixels: torch.Tensor, size: tuple[int, int], upsampled_size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What bilinear upsampling with aligned corners reads of a small map for single pixels of the large one.

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
    right_share, bottom_share = x - left, y - top
    left_column, top_row = left.long(), top.long()
    right_column, bottom_row = (left_column + 1).clamp(max=width - 1), (top_row + 1).clamp(max=height - 1)
    upper, lower = top_row * width, bottom_row * width
    indices = torch.stack(
        [upper + left_column, upper + right_column, lower + left_column, lower + right_column], dim=-1
    )
    left_share, top_share = 1 - right_share, 1 - bottom_share
    weights = torch.stack(
        [left_share * top_share, right_share * top_share, left_share * bottom_share, right_share * bottom_share],
        dim=-1,
    )
    return indices, weights


def weighted_row_sums(rows: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sums of few weighted rows, without a copy of the rows themselves.

    Args:
        rows: (P, C), any float type.
        indices: (Q, R) int64 into `rows`.
        weights: (Q, R) float32.

    Returns:
        (Q, C) in the type of `rows`.
    """
    return functional.embedding_bag(indices, rows, mode="sum", per_sample_weights=weights.to(rows.dtype))
