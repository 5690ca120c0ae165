"""The triplet loss of residual descriptors (equation 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from feature_frontend.extractors.layers.sampling import at_least_float32

__all__ = ["TripletLoss", "triplet_loss"]

_EPSILON = 1e-6  # the distance of equal descriptors has no gradient


@dataclass(frozen=True)
class TripletLoss:
    """Means over the positive pairs of two views.

    Attributes:
        loss: Of equation 1.
        positive_distance: y(a, p), in [0, 2].
        negative_distance: y(a, n), in [0, 2].
        success: Share of the positive pairs that are mutual nearest neighbours among all descriptors.
    """

    loss: torch.Tensor
    positive_distance: torch.Tensor
    negative_distance: torch.Tensor
    success: torch.Tensor


def triplet_loss(
    descriptors0: torch.Tensor,
    descriptors1: torch.Tensor,
    positives: torch.Tensor,
    is_negative: torch.Tensor,
    margin: float,
) -> TripletLoss:
    """The loss of two views, each descriptor of a positive pair once the anchor.

        L = mean_i max(0, y(a, p) - y(a, n) + m)                                                     (1)

    y is the Euclidean distance. The paper has the sum, which differs by a factor that Adam does not see, and does not
    say which negative: here it is the hardest, the nearest descriptor of the other view that is a negative. An anchor
    without a negative does not count. With m = 2, the largest distance of unit vectors, the maximum is never 0: all
    pairs teach until the end.

    Args:
        descriptors0: (N0, D) of view 0, L2-normalised.
        descriptors1: (N1, D) of view 1, L2-normalised.
        positives: (M, 2) int64, rows of both views that are the same point.
        is_negative: (N0, N1) bool, which rows are different points.
        margin: m.
    """
    similarity = at_least_float32(descriptors0) @ at_least_float32(descriptors1).T
    distances = (2 - 2 * similarity).clamp(min=_EPSILON).sqrt()
    rows0, rows1 = positives.unbind(1)
    positive = distances[rows0, rows1].repeat(2)
    masked = distances.masked_fill(~is_negative, torch.inf)
    negative = torch.cat([masked.amin(dim=1)[rows0], masked.amin(dim=0)[rows1]])
    counts = negative.isfinite()
    positive, negative = positive[counts], negative[counts]
    number = counts.sum().clamp(min=1)
    is_mutual = (similarity.argmax(dim=1)[rows0] == rows1) & (similarity.argmax(dim=0)[rows1] == rows0)
    return TripletLoss(
        (positive - negative + margin).clamp(min=0).sum() / number,
        positive.sum().detach() / number,
        negative.sum().detach() / number,
        is_mutual.float().sum() / max(len(rows0), 1),
    )
