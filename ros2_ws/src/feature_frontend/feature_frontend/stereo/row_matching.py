"""Mutual nearest neighbours among the candidates that a rectified pair allows: on one row, at a possible disparity.

Both sides are sorted by row. The candidates of a block of left keypoints then lie next to each other on the right, and
only the similarities of that band are computed: a hundredth of all pairs for a tolerance of 2 px in 480 rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from feature_frontend.matchers.base import check_comparable
from feature_frontend.types import Features, Matches

__all__ = ["ROW_MATCHER", "RowOptions", "match_rows"]

ROW_MATCHER = "mnn-rows"
_BLOCK_ROWS = 256
# 64 MiB of float32 similarities, for images whose keypoints all lie on a few rows.
_BLOCK_ELEMENTS = 16 * 1024 * 1024
_NO_SIMILARITY = -1.0


@dataclass(frozen=True)
class RowOptions:
    """Who is a candidate, and the matcher's gates; the meaning of each is that of the parameter of the same name."""

    row_tolerance_px: float
    min_disparity_px: float
    max_disparity_px: float
    min_similarity: float
    ratio_threshold: float


@torch.no_grad()
def match_rows(
    features0: Features,
    features1: Features,
    points0: torch.Tensor,
    points1: torch.Tensor,
    options: RowOptions,
    block_elements: int = _BLOCK_ELEMENTS,
) -> Matches:
    """Pairs of keypoints that are each other's most similar candidates and pass the gates, in the order of `indices0`.

    Two keypoints are candidates if their rows differ by at most the tolerance and their disparity, x0 - x1, lies in the
    range. The ratio test and the margin compare with the second best candidate. Of equals the upper one counts, on one
    row the first.

    Args:
        features0: Of the left image.
        features1: Of the right image, by the same extractor, on the same device.
        points0: (N0, 2) float64, (x, y) px of the left keypoints in the rectified image; NaN for one to leave out.
        points1: (N1, 2) float64, of the right ones.
        options: Who is a candidate, and the gates.
        block_elements: Most similarities held at once; the result does not depend on it.

    Raises:
        MatchingError: The features come from different extractors.
    """
    check_comparable(features0, features1)
    order0, order1 = _by_row(points0), _by_row(points1)
    if len(order0) == 0 or len(order1) == 0:
        return Matches.empty(ROW_MATCHER, features1.device)
    sorted0, sorted1 = points0[order0], points1[order1]
    descriptors0, descriptors1 = features0.descriptors[order0].float(), features1.descriptors[order1].float()
    rows1 = sorted1[:, 1].contiguous()
    # The band of each left keypoint, as positions among the sorted right ones.
    begin = torch.searchsorted(rows1, sorted0[:, 1] - options.row_tolerance_px)
    end = torch.searchsorted(rows1, sorted0[:, 1] + options.row_tolerance_px, right=True)
    begins, ends = begin.tolist(), end.tolist()
    position1 = torch.arange(len(order1), device=order1.device)
    index = torch.zeros_like(order0)
    best = descriptors0.new_full((len(order0),), -torch.inf)
    second = torch.full_like(best, -torch.inf)
    best_of_column = descriptors0.new_full((len(order1),), -torch.inf)
    row_of_column = torch.full_like(order1, -1)
    step = max(1, min(_BLOCK_ROWS, block_elements // len(order1)))
    for start in range(0, len(order0), step):
        rows = slice(start, min(start + step, len(order0)))
        band = slice(begins[rows.start], ends[rows.stop - 1])
        if band.start >= band.stop:
            continue
        similarity = descriptors0[rows] @ descriptors1[band].T
        disparity = sorted0[rows, None, 0] - sorted1[None, band, 0]
        is_candidate = (position1[band] >= begin[rows, None]) & (position1[band] < end[rows, None])
        is_candidate &= (disparity >= options.min_disparity_px) & (disparity <= options.max_disparity_px)
        similarity.masked_fill_(~is_candidate, -torch.inf)
        value, row = similarity.max(dim=0)
        is_better = value > best_of_column[band]
        best_of_column[band] = torch.where(is_better, value, best_of_column[band])
        row_of_column[band] = torch.where(is_better, row + start, row_of_column[band])
        best[rows], column = similarity.max(dim=1)
        index[rows] = column + band.start
        second[rows] = similarity.scatter_(1, column[:, None], -torch.inf).amax(dim=1)
    second.clamp_(min=_NO_SIMILARITY)
    keep = (row_of_column[index] == torch.arange(len(order0), device=index.device)) & (best >= options.min_similarity)
    if options.ratio_threshold < 1.0:
        keep &= 1.0 - best < options.ratio_threshold * (1.0 - second)
    indices0 = order0[keep]
    by_index = indices0.argsort()
    similarity, margin = best[keep][by_index], (best - second)[keep][by_index]
    return Matches(indices0[by_index], order1[index[keep]][by_index], similarity, margin, ROW_MATCHER)


def _by_row(points: torch.Tensor) -> torch.Tensor:
    """Indices of the finite points, from the top down, of one row in their order."""
    finite = points.isfinite().all(dim=1).nonzero()[:, 0]
    return finite[points[finite, 1].argsort(stable=True)]
