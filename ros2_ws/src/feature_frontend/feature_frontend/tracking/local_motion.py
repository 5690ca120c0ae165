"""Where points go, from how the points around them went: affine motion of a neighbourhood, fitted robustly.

Nothing here waits for the device, and no shape depends on values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from feature_frontend.geometry.small_matrices import solve_symmetric
from feature_frontend.runtime.cuda_graphs import constants

__all__ = ["LocalMotion", "local_motion"]

NUM_NEIGHBOURS = 16
WIDEST_PX = 8.0  # half of a point's neighbours within this of their median
# Points closer together see the same pixels: they are matched to the same wrong place and are no witnesses.
CLOSEST_PX = 8.0
FEWEST_NEIGHBOURS = 3  # of one mind, for a motion to be known
# A true pair is within this of its neighbours' median in 98 % of the cases, at 10 Hz from a car and by hand.
TOLERANCE_PX = 4.0
_SCALE_PX = 50.0  # of the slopes: a ridge of one observation says that motion changes little over this distance
_RIDGE = (1e-3, 0.3, 0.3)
_NOISE_PX = 0.3
_BLOCK_ELEMENTS = 4 * 1024 * 1024
_FAR_PX = 1e5  # larger than any image; where those are put that are no witnesses
# PyTorch finds the k smallest of n numbers five times as fast where n is at least 64 k.
_FEWEST_SORTED = 64


@dataclass(frozen=True)
class LocalMotion:
    """What the neighbours say of each of C points.

    Attributes:
        flow: (C, 2) px, how far the point should have moved; 0 where it is not known.
        slopes: (C, 2, 2), how it changes with the place, px a px: at (C, 2) offsets o it is flow + o @ slopes.
        is_known: (C,) bool, whether enough neighbours agree.
        agrees: (C,) bool, whether the point's own match moves as its neighbours do; False for points without a match.
    """

    flow: torch.Tensor
    slopes: torch.Tensor
    is_known: torch.Tensor
    agrees: torch.Tensor


def local_motion(
    points: torch.Tensor, shifts: torch.Tensor, is_matched: torch.Tensor, *, is_padded: bool = False
) -> LocalMotion:
    """The motion around each point, by the matches of its nearest neighbours.

    Args:
        points: (C, 2) px, where the points were.
        shifts: (C, 2) px, how far their matches are from there.
        is_matched: (C,) bool; the shifts of the others mean nothing.
        is_padded: Whether no shape may depend on how many are matched, and a GPU must not be waited for.
    """
    candidates = torch.arange(len(points), device=points.device)
    if not is_padded:
        number = max(int(is_matched.sum()), _FEWEST_SORTED * NUM_NEIGHBOURS)
        candidates = (~is_matched).to(torch.uint8).argsort(stable=True)[:number]
    neighbours, is_valid = _nearest(points, is_matched, candidates)
    of_neighbours = _of(shifts, neighbours)
    # A vote first, because most of the neighbours may be wrong: wrong ones hardly ever agree with each other.
    supporters = (of_neighbours - shifts[:, None]).norm(dim=2) <= TOLERANCE_PX
    agrees = is_matched & ((supporters & is_valid).sum(dim=1) >= FEWEST_NEIGHBOURS)
    is_valid = is_valid & _of(agrees, neighbours)
    median = _median(of_neighbours, is_valid[:, :, None])
    residuals = (of_neighbours - median[:, None]).norm(dim=2)
    # Where the neighbours move differently, as at the edge of something near, a point may be more different, too; where
    # they are of no mind at all, nothing agrees with them.
    spread = _median(residuals, is_valid)
    is_known = (is_valid.sum(dim=1) >= FEWEST_NEIGHBOURS) & (spread <= WIDEST_PX)
    agrees = is_matched & is_known & ((shifts - median).norm(dim=1) <= TOLERANCE_PX + spread)
    is_valid = is_valid & _of(agrees, neighbours)
    is_known &= is_valid.sum(dim=1) >= FEWEST_NEIGHBOURS
    weights = is_valid / (1.0 + (residuals / (spread[:, None] + _NOISE_PX)).square())
    motion = _fit(_of(points, neighbours) - points[:, None], of_neighbours, weights, is_padded=is_padded)
    motion = torch.where(is_known[:, None, None], motion, 0.0)
    return LocalMotion(motion[:, 0], motion[:, 1:] / _SCALE_PX, is_known, agrees & is_known)


def _nearest(
    points: torch.Tensor, is_matched: torch.Tensor, candidates: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(C, k) rows of each point's nearest witnesses among the candidates, and whether there are so many."""
    number = min(NUM_NEIGHBOURS, len(candidates))
    rows = max(1, _BLOCK_ELEMENTS // len(candidates))
    witnesses = torch.where(is_matched[candidates, None], points[candidates], _FAR_PX)
    # Squares, as products of (x, y, x^2 + y^2, 1): their roots have the same order and take as long again.
    ones, ones_of_witnesses = torch.ones_like(points[:, :1]), torch.ones_like(witnesses[:, :1])
    lifted = torch.cat([points, points.square().sum(dim=1, keepdim=True), ones], dim=1)
    lengths = witnesses.square().sum(dim=1, keepdim=True)
    lifted_witnesses = torch.cat([-2.0 * witnesses, ones_of_witnesses, lengths], dim=1).T
    squares, neighbours = [], []
    for start in range(0, len(points), rows):
        block = lifted[start : start + rows] @ lifted_witnesses
        block = functional.threshold(block, CLOSEST_PX**2, _FAR_PX**2, inplace=True)
        # Floats that are not negative are ordered as their bits are, which PyTorch compares faster: they are never NaN.
        nearest = block.view(torch.int32).topk(number, dim=1, largest=False)
        squares.append(nearest.values.view(torch.float32))
        neighbours.append(candidates[nearest.indices])
    return torch.cat(neighbours), torch.cat(squares) < _FAR_PX**2 / 4.0


def _of(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(C, k, ...) the values (C, ...) of (C, k) rows; faster than indexing on a CPU."""
    return values.index_select(0, rows.flatten()).reshape(*rows.shape, *values.shape[1:])


def _median(values: torch.Tensor, is_valid: torch.Tensor) -> torch.Tensor:
    """Of the valid ones of (C, k[, 2]) values, over k; 0 where there is none."""
    return torch.where(is_valid, values, torch.nan).nanmedian(dim=1).values.nan_to_num(0.0)


def _fit(offsets: torch.Tensor, shifts: torch.Tensor, weights: torch.Tensor, *, is_padded: bool) -> torch.Tensor:
    """(C, 3, 2) affine motion that fits (C, k, 2) shifts at (C, k, 2) px offsets with (C, k) weights.

    Its first row is the shift at offset 0, the others are how it changes over `_SCALE_PX` along x and along y.
    """
    design = torch.cat([torch.ones_like(offsets[:, :, :1]), offsets / _SCALE_PX], dim=2)
    weighted = (design * weights[:, :, None]).transpose(1, 2)
    moments, values = weighted @ design + torch.diag(constants(design, *_RIDGE)), weighted @ shifts
    if is_padded:
        return solve_symmetric(moments, values)
    solution: torch.Tensor = torch.linalg.solve_ex(moments, values).result
    return solution
