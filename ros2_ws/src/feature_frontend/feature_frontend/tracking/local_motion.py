"""Predicts the motion of points from that of their neighbours: a local affine motion, fitted robustly.

With padded shapes, nothing here waits for the device, and no shape depends on values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
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
_CACHED_ELEMENTS = 256 * 1024  # 1 MiB


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
    use_numpy = not is_padded and points.device.type == "cpu"
    neighbours, is_valid = _nearest_on_cpu(points, is_matched) if use_numpy else _nearest(points, is_matched)
    # One plane for each coordinate: PyTorch is slow where it sums two numbers at a time.
    around = torch.cat([points, shifts], dim=1).T.index_select(1, neighbours.flatten())
    x, y, shift_x, shift_y = around.reshape(4, *neighbours.shape).unbind(0)
    own_x, own_y = shifts.unbind(1)
    # Vote first, because most neighbours may be wrong: wrong ones hardly ever agree with each other.
    supporters = _length(shift_x - own_x[:, None], shift_y - own_y[:, None]) <= TOLERANCE_PX
    agrees = is_matched & ((supporters & is_valid).sum(dim=1) >= FEWEST_NEIGHBOURS)
    is_valid = is_valid & _of(agrees, neighbours)
    count = is_valid.sum(dim=1)
    median_x, median_y = (_median(side, is_valid, count, use_numpy=use_numpy) for side in (shift_x, shift_y))
    residuals = _length(shift_x - median_x[:, None], shift_y - median_y[:, None])
    # If the neighbours differ, as at the edge of a near object, allow a point to differ more; if they do not agree at
    # all, reject every point.
    spread = _median(residuals, is_valid, count, use_numpy=use_numpy)
    is_known = (count >= FEWEST_NEIGHBOURS) & (spread <= WIDEST_PX)
    agrees = is_matched & is_known & (_length(own_x - median_x, own_y - median_y) <= TOLERANCE_PX + spread)
    is_valid = is_valid & _of(agrees, neighbours)
    is_known &= is_valid.sum(dim=1) >= FEWEST_NEIGHBOURS
    weights = is_valid / (1.0 + (residuals / (spread[:, None] + _NOISE_PX)).square())
    design = torch.stack([torch.ones_like(x), x - points[:, :1], y - points[:, 1:], shift_x, shift_y], dim=1)
    motion = _fit(design, weights, is_padded=is_padded)
    motion = torch.where(is_known[:, None, None], motion, 0.0)
    return LocalMotion(motion[:, 0], motion[:, 1:] / _SCALE_PX, is_known, agrees & is_known)


def _nearest(points: torch.Tensor, is_matched: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(C, k) rows of each point's nearest matched neighbours, and (C, k) bool, whether each exists."""
    witnesses = torch.where(is_matched[:, None], points, _FAR_PX)
    squares, neighbours = [], []
    for block in _squares(points, witnesses, _BLOCK_ELEMENTS):
        functional.threshold(block, 0.0, _FAR_PX**2, inplace=True)
        # Non-negative floats, never NaN here, have the order of their bits, which PyTorch compares faster.
        nearest = block.view(torch.int32).topk(min(NUM_NEIGHBOURS, len(witnesses)), dim=1, largest=False)
        squares.append(nearest.values.view(torch.float32))
        neighbours.append(nearest.indices)
    return torch.cat(neighbours), torch.cat(squares) < _FAR_PX**2 / 4.0


def _nearest_on_cpu(points: torch.Tensor, is_matched: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_nearest`, in any order; of neighbours almost equally far away any may count.

    NumPy selects numbers three times as fast as PyTorch selects numbers with their places. So the number of the place
    replaces the last bits of the squared distance. Negative ones, of too near neighbours, are the largest if read as
    unsigned integers.
    """
    candidates = is_matched.nonzero()[:, 0]
    if not len(candidates):
        candidates = torch.zeros_like(points[:1, 0], dtype=torch.int64)
    witnesses = torch.where(is_matched[candidates, None], points[candidates], _FAR_PX)
    number = min(NUM_NEIGHBOURS, len(candidates))
    of_place = np.uint32((1 << (len(candidates) - 1).bit_length()) - 1)
    places = np.arange(len(candidates), dtype=np.uint32)
    nearest = []
    for block in _squares(points, witnesses, _CACHED_ELEMENTS):
        keys = block.numpy().view(np.uint32)
        keys &= ~of_place
        keys |= places
        keys.partition(number - 1, axis=1)
        nearest.append(keys[:, :number])
    keys = np.concatenate(nearest)
    is_valid = torch.from_numpy(keys < np.float32(_FAR_PX**2 / 4.0).view(np.uint32))
    return _of(candidates, torch.from_numpy((keys & of_place).astype(np.int64))), is_valid


def _squares(points: torch.Tensor, witnesses: torch.Tensor, block_elements: int) -> Iterator[torch.Tensor]:
    """Yields (rows, W) squared distances of (C, 2) points from (W, 2) minus `CLOSEST_PX` squared, block by block.

    One matrix product of (x, y, x^2 + y^2, 1) each; the roots would double the time.
    """
    ones, ones_of_witnesses = torch.ones_like(points[:, :1]), torch.ones_like(witnesses[:, :1])
    lifted = torch.cat([points, points.square().sum(dim=1, keepdim=True), ones], dim=1)
    lengths = witnesses.square().sum(dim=1, keepdim=True) - CLOSEST_PX**2
    lifted_witnesses = torch.cat([-2.0 * witnesses, ones_of_witnesses, lengths], dim=1).T
    rows = max(1, block_elements // len(witnesses))
    for start in range(0, len(points), rows):
        yield lifted[start : start + rows] @ lifted_witnesses


def _of(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(C, k, ...) the values (C, ...) at (C, k) rows; faster than indexing on a CPU."""
    return values.index_select(0, rows.flatten()).reshape(*rows.shape, *values.shape[1:])


def _length(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Of vectors; several times as fast as `hypot`, which also knows numbers whose squares overflow."""
    return (x * x + y * y).sqrt_()


def _median(values: torch.Tensor, is_valid: torch.Tensor, count: torch.Tensor, *, use_numpy: bool) -> torch.Tensor:
    """Median over k of the `count` valid ones of (C, k) values; 0 if none is valid."""
    if not use_numpy:
        return torch.where(is_valid, values, torch.nan).nanmedian(dim=1).values.nan_to_num(0.0)
    # NumPy sorts short rows ten times as fast.
    ordered = torch.from_numpy(np.sort(torch.where(is_valid, values, torch.inf).numpy(), axis=1))
    middle = ordered.gather(1, ((count - 1) // 2).clamp(min=0)[:, None])[:, 0]
    return torch.where(count > 0, middle, 0.0)


def _fit(design: torch.Tensor, weights: torch.Tensor, *, is_padded: bool) -> torch.Tensor:
    """(C, 3, 2) affine motion that fits shifts.

    The first row is the shift at offset 0, the others its change over `_SCALE_PX` along x and along y.

    Args:
        design: (C, 5, k): 1, offset along x, along y, shift along x, along y of k neighbours, px.
        weights: (C, k).
        is_padded: Whether nothing may wait for a GPU.
    """
    scales = constants(design, 1.0, 1.0 / _SCALE_PX, 1.0 / _SCALE_PX)[:, None]
    weighted = design[:, :3] * weights[:, None] * scales
    products = torch.bmm(weighted, design.transpose(1, 2))
    moments = products[:, :, :3] * scales.T + torch.diag(constants(design, *_RIDGE))
    if is_padded:
        return solve_symmetric(moments, products[:, :, 3:])
    solution: torch.Tensor = torch.linalg.solve_ex(moments, products[:, :, 3:]).result
    return solution
