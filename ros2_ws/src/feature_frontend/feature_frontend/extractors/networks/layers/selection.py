"""Selects keypoints from candidates, pixels of a score map or points of a list: mask, grid quotas, budget.

The rule of the grid. A candidate is a pixel, or a point, whose score is above `detection_threshold`. The map is divided
from its upper left corner into cells of ceil(H / rows) x ceil(W / columns) px; the last cells are smaller or empty if
the sides are not multiples. The quota of a cell is ceil(slack * budget / (rows * columns)) candidates, where the budget
is `max_num_keypoints`, at most H * W.

1. The best candidates of each cell, up to its quota, are preferred.
2. If more are preferred than the budget allows, the best of these are selected.
3. If fewer are, the rest of the budget goes to the best of the other candidates, whatever their cells.

So no cell exceeds its quota unless others leave theirs unused, and the budget is used up as long as there are
candidates. A slack of 1 distributes most evenly; with a slack of rows * columns the best scores win as without a grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from feature_frontend.extractors.base import DetectionOptions, GridOptions

__all__ = ["lie_on_allowed", "select_candidates", "select_padded_points", "select_points", "top_k"]

# Larger groups give fewer maxima but more candidates; 16 was fastest for 1,000 to 5,000 points of 640x480 pixels.
_GROUP_SIZE = 16


def top_k(maps: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` highest values of each row, best first: `torch.topk` up to the order of ties, faster on the CPU.

    The elements are divided into groups. Each of the k groups with the highest maxima contains an element at least as
    high as any element of any other group, so the k best elements are in these k groups: only they are searched. Shapes
    do not depend on values, and nothing waits for the device.

    Args:
        maps: (B, P).
        k: At most P.

    Returns:
        (B, k) values, and (B, k) int64 positions in the rows.
    """
    batch, size = maps.shape
    num_groups = size // _GROUP_SIZE
    # A GPU's top-k does not sort the row either; if most groups would be searched, grouping gains nothing.
    if maps.is_cuda or 2 * k > num_groups:
        values, positions = maps.topk(k, dim=1)
        return values, positions
    grouped = num_groups * _GROUP_SIZE
    # Group g holds the positions g, g + num_groups, ..., so that maxima are taken over whole vectors.
    maxima = maps[:, :grouped].reshape(batch, _GROUP_SIZE, num_groups).amax(dim=1)
    groups = maxima.topk(k, dim=1, sorted=False).indices
    firsts = torch.arange(0, grouped, num_groups, device=maps.device)
    candidates = (groups[:, None] + firsts[:, None]).flatten(1)
    if grouped < size:
        rest = torch.arange(grouped, size, device=maps.device).expand(batch, -1)
        candidates = torch.cat([candidates, rest], dim=1)
    values, order = maps.gather(1, candidates).topk(k, dim=1)
    return values, candidates.gather(1, order)


_NO_CANDIDATE = -1.0  # below every score
_MARGIN_PX = 1 / 256  # more than float32's rounding of coordinates on the way to the image as published


def select_candidates(
    candidates: torch.Tensor, options: DetectionOptions, allowed: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Selects the budget's best candidates, best first. Nothing here waits for the device.

    The order of equal scores is undefined.

    Args:
        candidates: (B, H, W) scores in [0, 1], zero where there is none.
        options: Budget, threshold and grid.
        allowed: (B, H, W) bool, pixels that may be used; None for all.

    Returns:
        (B, K) scores and (B, K) int64 positions y * W + x, K = min(budget, H * W). Those with scores above
        `detection_threshold` come first; the others are padding, but their positions lie in the map.
    """
    if allowed is not None:
        candidates = candidates.masked_fill(~allowed, 0.0)
    height, width = candidates.shape[1:]
    budget = min(options.max_num_keypoints, height * width)
    if options.grid is None:
        return top_k(candidates.flatten(1), budget)
    return _spread(candidates, budget, options.detection_threshold, options.grid)


def select_points(
    points: torch.Tensor,
    scores: torch.Tensor,
    size: Sequence[int],
    options: DetectionOptions,
    allowed: torch.Tensor | None = None,
) -> torch.Tensor:
    """Selects the budget's best points, best first; several may lie on one pixel.

    Of equal scores, the earlier point comes first.

    Args:
        points: (N, 2) float32, (x, y) px; a point lies on the pixel floor(x + 0.5), floor(y + 0.5).
        scores: (N,) in [0, 1].
        size: (height, width) px of the image.
        options: Budget, threshold, border and grid.
        allowed: (H, W) bool, pixels that may be used; None for all.

    Returns:
        (K,) int64 rows, K at most the budget.
    """
    height, width = size
    columns, rows = _pixels(points, size)
    to_edge = torch.stack([columns, rows, width - 1 - columns, height - 1 - rows]).amin(dim=0)
    is_candidate = (scores > options.detection_threshold) & (to_edge >= options.border)
    if allowed is not None:
        is_candidate &= lie_on_allowed(allowed[None], points[None])[0]
    selected, counts = select_padded_points(points[None], scores[None], is_candidate[None], size, options)
    return selected[0, : int(counts)]


def select_padded_points(
    points: torch.Tensor,
    scores: torch.Tensor,
    is_candidate: torch.Tensor,
    size: Sequence[int],
    options: DetectionOptions,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for a batch, with shapes that do not depend on the images' content. Nothing waits for the device.

    Args:
        points: (B, N, 2) float32, (x, y) px.
        scores: (B, N) in [0, 1].
        is_candidate: (B, N) bool, rows that may be selected; threshold, border and masks have already been applied.
        size: (height, width) px of the images.
        options: Budget and grid.

    Returns:
        (B, K) int64 rows, K = min(budget, N), best first, and (B,) int64, number of valid rows; the others are padding
        at the end.
    """
    height, width = size
    budget, grid = min(options.max_num_keypoints, height * width), options.grid
    order = scores.masked_fill(~is_candidate, _NO_CANDIDATE).argsort(dim=1, descending=True, stable=True)
    counts = is_candidate.sum(dim=1)
    if grid is not None:
        columns, rows = _pixels(points, size)
        cell_height, cell_width = -(-height // grid.rows), -(-width // grid.columns)
        cells = (rows // cell_height * grid.columns + columns // cell_width).gather(1, order)
        quota = math.ceil(grid.slack * budget / (grid.rows * grid.columns))
        is_other = _ranks_within(cells) >= quota
        is_none = torch.arange(order.shape[1], device=order.device) >= counts[:, None]
        places = (is_other.long() + 2 * is_none).argsort(dim=1, stable=True)[:, :budget]
        order = order.gather(1, places.sort(dim=1).values)
    return order[:, :budget], counts.clamp(max=budget)


def _pixels(points: torch.Tensor, size: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns and rows (...) int64 of the pixels on which (..., 2) points lie."""
    height, width = size
    columns, rows = (points + 0.5).floor().long().unbind(-1)
    return columns.clamp(0, width - 1), rows.clamp(0, height - 1)


def _ranks_within(groups: torch.Tensor) -> torch.Tensor:
    """(B, N) number of elements of the same group before each element, for (B, N) groups."""
    by_group = groups.argsort(dim=1, stable=True)
    in_order = groups.gather(1, by_group)
    ranks = torch.arange(groups.shape[1], device=groups.device) - torch.searchsorted(in_order, in_order)
    return torch.empty_like(groups).scatter_(1, by_group, ranks)


def lie_on_allowed(allowed: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Whether points lie on allowed pixels, even after rounding of their coordinates.

    Args:
        allowed: (B, H, W) bool.
        points: (B, K, 2) float32, (x, y) px; a point lies on the pixel floor(x + 0.5), floor(y + 0.5).

    Returns:
        (B, K) bool.
    """
    height, width = allowed.shape[1:]
    reach = torch.arange(-1, 2, 2, device=points.device) * _MARGIN_PX
    pixels = (points[..., None] + reach + 0.5).floor().long()
    columns, rows = pixels[:, :, 0].clamp(0, width - 1), pixels[:, :, 1].clamp(0, height - 1)
    positions = rows[:, :, :, None] * width + columns[:, :, None, :]
    return allowed.flatten(1).gather(1, positions.flatten(1)).reshape(*points.shape[:2], 4).all(dim=2)


def _spread(
    candidates: torch.Tensor, budget: int, threshold: float, grid: GridOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """`select_candidates` by the rule of the grid."""
    batch, height, width = candidates.shape
    num_cells = grid.rows * grid.columns
    cell_height, cell_width = -(-height // grid.rows), -(-width // grid.columns)
    area = cell_height * cell_width
    margins = [0, grid.columns * cell_width - width, 0, grid.rows * cell_height - height]
    padded = functional.pad(candidates, margins, value=_NO_CANDIDATE)
    # In the order of cells; all positions below refer to this order.
    cells = padded.reshape(batch, grid.rows, cell_height, grid.columns, cell_width).transpose(2, 3).flatten(1)

    quota = min(math.ceil(grid.slack * budget / num_cells), area)
    of_cells, offsets = top_k(cells.reshape(batch * num_cells, area), quota)
    starts = torch.arange(num_cells, device=cells.device)[:, None] * area
    positions = (offsets.reshape(batch, num_cells, quota) + starts).flatten(1)
    preferred, order = of_cells.reshape(batch, -1).topk(min(budget, num_cells * quota), dim=1)
    positions = positions.gather(1, order)
    others, other_positions = top_k(cells.scatter(1, positions, _NO_CANDIDATE), budget)

    # First the preferred candidates, then others up to the budget.
    place = torch.arange(budget, device=cells.device)
    num_preferred = (preferred > threshold).sum(dim=1, keepdim=True)
    source = torch.where(place < num_preferred, place, preferred.shape[1] + place - num_preferred)
    scores, order = torch.cat([preferred, others], dim=1).gather(1, source).sort(dim=1, descending=True)
    positions = torch.cat([positions, other_positions], dim=1).gather(1, source).gather(1, order)

    cell, offset = torch.div(positions, area, rounding_mode="floor"), positions % area
    rows = torch.div(cell, grid.columns, rounding_mode="floor") * cell_height
    rows = rows + torch.div(offset, cell_width, rounding_mode="floor")
    columns = cell % grid.columns * cell_width + offset % cell_width
    # Padding may come from the margins.
    return scores, rows.clamp(max=height - 1) * width + columns.clamp(max=width - 1)
