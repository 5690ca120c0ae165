"""Predicts the motion of points from that of their neighbours: a local affine motion, fitted robustly.

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
WIDEST_PX = 8.0  # half of a point's neighbours must be within this of their median
# Closer points see the same pixels and share the same wrong matches: they are not independent.
CLOSEST_PX = 8.0
FEWEST_NEIGHBOURS = 3  # that must agree, for a motion to be known
# A correct match is within this of its neighbours' median in 98 % of the cases, at 10 Hz from a car and hand-held.
TOLERANCE_PX = 4.0
_SCALE_PX = 50.0  # of the slopes: a ridge of one observation assumes that motion varies little over this distance
_RIDGE = (1e-3, 0.3, 0.3)
_NOISE_PX = 0.3
_BLOCK_ELEMENTS = 4 * 1024 * 1024
_FAR_PX = 1e5  # larger than any image; position given to points that are no valid neighbours
# PyTorch finds the k smallest of n numbers five times as fast where n is at least 64 k.
_FEWEST_SORTED = 64


@dataclass(frozen=True)
class LocalMotion:
    """The motion of each of C points as predicted by its neighbours.

    Attributes:
        flow: (C, 2) px, expected displacement; 0 if unknown.
        slopes: (C, 2, 2), its gradient, px per px: at (C, 2) offsets o the displacement is flow + o @ slopes.
        is_known: (C,) bool, whether enough neighbours agree.
        agrees: (C,) bool, whether the point's own match moves like its neighbours; False for points without a match.
    """

    flow: torch.Tensor
    slopes: torch.Tensor
    is_known: torch.Tensor
    agrees: torch.Tensor


def local_motion(
    points: torch.Tensor, shifts: torch.Tensor, is_matched: torch.Tensor, *, is_padded: bool = False
) -> LocalMotion:
    """Estimates the motion around each point from the matches of its nearest neighbours.

    Args:
        points: (C, 2) px, previous positions.
        shifts: (C, 2) px, displacements of their matches.
        is_matched: (C,) bool; the shifts of the others are ignored.
        is_padded: Whether shapes must not depend on the number of matches, and nothing may wait for a GPU.
    """
    candidates = torch.arange(len(points), device=points.device)
    if not is_padded:
        number = max(int(is_matched.sum()), _FEWEST_SORTED * NUM_NEIGHBOURS)
        candidates = (~is_matched).to(torch.uint8).argsort(stable=True)[:number]
    neighbours, is_valid = _nearest(points, is_matched, candidates)
    of_neighbours = _of(shifts, neighbours)
    # Vote first, because most neighbours may be wrong: wrong ones hardly ever agree with each other.
    supporters = (of_neighbours - shifts[:, None]).norm(dim=2) <= TOLERANCE_PX
    agrees = is_matched & ((supporters & is_valid).sum(dim=1) >= FEWEST_NEIGHBOURS)
    is_valid = is_valid & _of(agrees, neighbours)
    median = _median(of_neighbours, is_valid[:, :, None])
    residuals = (of_neighbours - median[:, None]).norm(dim=2)
    # If the neighbours differ, as at the edge of a near object, allow a point to differ more; if they do not agree at
    # all, reject every point.
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
    """(C, k) rows of each point's nearest valid neighbours among the candidates, and whether each exists."""
    number = min(NUM_NEIGHBOURS, len(candidates))
    rows = max(1, _BLOCK_ELEMENTS // len(candidates))
    witnesses = torch.where(is_matched[candidates, None], points[candidates], _FAR_PX)
    # Squared distances as one matrix product of (x, y, x^2 + y^2, 1); the roots would double the time.
    ones, ones_of_witnesses = torch.ones_like(points[:, :1]), torch.ones_like(witnesses[:, :1])
    lifted = torch.cat([points, points.square().sum(dim=1, keepdim=True), ones], dim=1)
    lengths = witnesses.square().sum(dim=1, keepdim=True)
    lifted_witnesses = torch.cat([-2.0 * witnesses, ones_of_witnesses, lengths], dim=1).T
    squares, neighbours = [], []
    for start in range(0, len(points), rows):
        block = lifted[start : start + rows] @ lifted_witnesses
        block = functional.threshold(block, CLOSEST_PX**2, _FAR_PX**2, inplace=True)
        # Non-negative floats, never NaN here, have the order of their bits, which PyTorch compares faster.
        nearest = block.view(torch.int32).topk(number, dim=1, largest=False)
        squares.append(nearest.values.view(torch.float32))
        neighbours.append(candidates[nearest.indices])
    return torch.cat(neighbours), torch.cat(squares) < _FAR_PX**2 / 4.0


def _of(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(C, k, ...) the values (C, ...) at (C, k) rows; faster than indexing on a CPU."""
    return values.index_select(0, rows.flatten()).reshape(*rows.shape, *values.shape[1:])


def _median(values: torch.Tensor, is_valid: torch.Tensor) -> torch.Tensor:
    """Median over k of the valid ones of (C, k[, 2]) values; 0 if none is valid."""
    return torch.where(is_valid, values, torch.nan).nanmedian(dim=1).values.nan_to_num(0.0)


def _fit(offsets: torch.Tensor, shifts: torch.Tensor, weights: torch.Tensor, *, is_padded: bool) -> torch.Tensor:
    """(C, 3, 2) affine motion that fits (C, k, 2) shifts at (C, k, 2) px offsets with (C, k) weights.

    The first row is the shift at offset 0, the others its change over `_SCALE_PX` along x and along y.
    """
    design = torch.cat([torch.ones_like(offsets[:, :, :1]), offsets / _SCALE_PX], dim=2)
    weighted = (design * weights[:, :, None]).transpose(1, 2)
    moments, values = weighted @ design + torch.diag(constants(design, *_RIDGE)), weighted @ shifts
    if is_padded:
        return solve_symmetric(moments, values)
    solution: torch.Tensor = torch.linalg.solve_ex(moments, values).result
    return solution
