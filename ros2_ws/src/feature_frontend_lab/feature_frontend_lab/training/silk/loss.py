"""The loss of SiLK (Appendix A.4 to A.6), in memory that does not grow with the square of the number of pixels.

The similarity matrix of two 146x146 maps has 454 million entries. It is computed in blocks of rows; only sums and
maxima along rows and columns are kept. The backward pass recomputes the blocks (3.4.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from feature_frontend_lab.training.silk.pairs import Correspondences

__all__ = ["PAPER_TEMPERATURE", "SilkLoss", "matching_loss", "silk_loss"]

PAPER_TEMPERATURE = 1 / 20
# Below this, exp(s - 1 / temperature) of the least similar pair would underflow in float32.
_MINIMUM_TEMPERATURE = 1 / 40
_BLOCK_BYTES = {"cpu": 2**21, "cuda": 2**27}  # a block fits into a CPU's cache between the passes over it


@dataclass(frozen=True)
class SilkLoss:
    """The loss of one pair of views.

    Attributes:
        total: (), the sum of the other two, to be minimised.
        descriptors: (), negative log-likelihood of the round trips, A.4.
        keypoints: (), binary cross-entropy of the matching success in both views, A.5.
        success: (), fraction in [0, 1] of correspondences that are mutual nearest neighbours, A.6.
    """

    total: torch.Tensor
    descriptors: torch.Tensor
    keypoints: torch.Tensor
    success: torch.Tensor

    def detach(self) -> SilkLoss:
        """The values detached from the graph."""
        return SilkLoss(self.total.detach(), self.descriptors.detach(), self.keypoints.detach(), self.success.detach())


def silk_loss(
    logits: tuple[torch.Tensor, torch.Tensor],
    descriptors: tuple[torch.Tensor, torch.Tensor],
    correspondences: Correspondences,
    temperature: float = PAPER_TEMPERATURE,
    block_rows: int | None = None,
) -> SilkLoss:
    """The loss of one pair of views.

    Args:
        logits: (1, h, w) keypoint logits of view 0 and of view 1.
        descriptors: (D, h, w) descriptors of each, of any length.
        correspondences: Which pixels show the same point; at least one.
        temperature: Divides the cosine similarities; at least 1/40.
        block_rows: Rows of the similarity matrix in memory at once; None chooses. Does not affect the result.
    """
    unit0, unit1 = (functional.normalize(d.flatten(1).t().to(_at_least_float32(d)), dim=1) for d in descriptors)
    descriptor_loss, success = matching_loss(unit0, unit1, correspondences, temperature, block_rows)
    target = success.to(descriptor_loss.dtype)
    keypoint_loss = descriptor_loss.new_zeros(())
    for view, indices in zip(logits, (correspondences.indices0, correspondences.indices1), strict=True):
        chosen = view.flatten()[indices].to(target.dtype)
        keypoint_loss = keypoint_loss + functional.binary_cross_entropy_with_logits(chosen, target)
    return SilkLoss(descriptor_loss + keypoint_loss, descriptor_loss, keypoint_loss, target.mean())


def matching_loss(
    descriptors0: torch.Tensor,
    descriptors1: torch.Tensor,
    correspondences: Correspondences,
    temperature: float = PAPER_TEMPERATURE,
    block_rows: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of the correspondences' round trips (A.4), and which of them match (A.6).

    Args:
        descriptors0: (M, D) L2-normalised rows, float32 or float64.
        descriptors1: (M', D) L2-normalised rows.
        correspondences: At least one pair of rows of both.
        temperature: At least 1/40.
        block_rows: Rows of the similarity matrix in memory at once; None chooses.

    Returns:
        The loss () and the success (N,) bool of each correspondence.

    Raises:
        ValueError: There are no correspondences, or the temperature is too low.
    """
    if len(correspondences) == 0:
        raise ValueError("a pair of views has no correspondences; expected at least one: draw another homography")
    if not temperature >= _MINIMUM_TEMPERATURE:
        raise ValueError(f"temperature is {temperature}; expected at least {_MINIMUM_TEMPERATURE}")
    order0 = _first(correspondences.indices0, descriptors0.shape[0])
    order1 = _first(correspondences.indices1, descriptors1.shape[0])
    ordered0, ordered1 = descriptors0[order0], descriptors1[order1]
    count = len(correspondences)
    if block_rows is None:
        budget = _BLOCK_BYTES.get(descriptors0.device.type, _BLOCK_BYTES["cuda"])
        block_rows = max(16, budget // (ordered1.shape[0] * ordered1.element_size()))
    with torch.autocast(descriptors0.device.type, enabled=False):
        row_log, column_log, success = _BlockwiseLogSums.apply(  # type: ignore[no-untyped-call]
            ordered0, ordered1, count, 1 / temperature, block_rows
        )
        matching = (ordered0[:count] * ordered1[:count]).sum(dim=1) / temperature
        loss = (row_log + column_log - 2 * matching).mean()
    return loss, success


def _at_least_float32(tensor: torch.Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _first(indices: torch.Tensor, size: int) -> torch.Tensor:
    """A permutation of range(size) that starts with `indices`."""
    rest = torch.ones(size, dtype=torch.bool, device=indices.device)
    rest[indices] = False
    return torch.cat([indices, rest.nonzero()[:, 0]])


def _blocks(rows: int, columns: int, count: int, block_rows: int) -> list[tuple[int, int, int]]:
    """(first row, end row, end column) of each block of the matrix.

    Correspondence i is at entry (i, i). Rows without a correspondence only affect columns that have one.
    """
    spans = [(start, min(start + block_rows, count), columns) for start in range(0, count, block_rows)]
    return spans + [(start, min(start + block_rows, rows), count) for start in range(count, rows, block_rows)]


class _BlockwiseLogSums(torch.autograd.Function):
    """log sum exp(s / temperature) along the first `count` rows and columns, and which entries (i, i) are maxima.

    Rows have length 1, so s / temperature never exceeds the inverse temperature. Subtracting that instead of the
    maximum lets rows and columns share one exponential.
    """

    @staticmethod
    def forward(
        ctx: Any, descriptors0: torch.Tensor, descriptors1: torch.Tensor, count: int, scale: float, block_rows: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        columns = descriptors1.shape[0]
        row_sum = descriptors0.new_zeros(count)
        column_sum = descriptors0.new_zeros(columns)
        row_maximum = descriptors0.new_full((count,), -torch.inf)
        column_maximum = descriptors0.new_full((columns,), -torch.inf)
        matching = descriptors0.new_empty(count)
        for start, end, width in _blocks(descriptors0.shape[0], columns, count, block_rows):
            block = descriptors0[start:end] @ descriptors1[:width].t()
            seen = column_maximum[:width]
            torch.maximum(seen, block.amax(dim=0), out=seen)
            if start < count:
                row_maximum[start:end] = block.amax(dim=1)
                matching[start:end] = block.diagonal(offset=start)
            block.sub_(1).mul_(scale).exp_()
            column_sum[:width] += block.sum(dim=0)
            if start < count:
                row_sum[start:end] = block.sum(dim=1)
        success = (matching >= row_maximum) & (matching >= column_maximum[:count])
        ctx.save_for_backward(descriptors0, descriptors1, row_sum, column_sum[:count])
        ctx.scale, ctx.block_rows = scale, block_rows
        ctx.mark_non_differentiable(success)
        return row_sum.log() + scale, column_sum[:count].log() + scale, success

    @staticmethod
    def backward(
        ctx: Any, row_gradient: torch.Tensor, column_gradient: torch.Tensor, _success: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None, None, None]:
        descriptors0, descriptors1, row_sum, column_sum = ctx.saved_tensors
        count = row_sum.shape[0]
        # A row or column without a correspondence has no sum and does not contribute to the gradient.
        row_weight = descriptors0.new_zeros(descriptors0.shape[0])
        row_weight[:count] = row_gradient / row_sum
        column_weight = descriptors1.new_zeros(descriptors1.shape[0])
        column_weight[:count] = column_gradient / column_sum
        gradient0 = torch.zeros_like(descriptors0)
        gradient1 = torch.zeros_like(descriptors1)
        for start, end, width in _blocks(descriptors0.shape[0], descriptors1.shape[0], count, ctx.block_rows):
            block = descriptors0[start:end] @ descriptors1[:width].t()
            block.sub_(1).mul_(ctx.scale).exp_()
            block.mul_(row_weight[start:end, None] + column_weight[None, :width])
            gradient0[start:end] = block @ descriptors1[:width]
            gradient1[:width] += block.t() @ descriptors0[start:end]
        return gradient0 * ctx.scale, gradient1 * ctx.scale, None, None, None
