"""Training of residual descriptors: the triplet loss on the descriptors of two views' keypoints (3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from feature_frontend.extractors.networks.layers.sampling import at_least_float32
from feature_frontend.extractors.networks.residual_sift import RESIDUAL_CONFIGS, Residual
from feature_frontend_lab.training.recipe import PairLosses
from feature_frontend_lab.training.residual.pairs import ResidualPair, ResidualPairs
from feature_frontend_lab.training.residual.settings import ResidualSettings

__all__ = ["ResidualRecipe", "TripletLoss", "triplet_loss"]

_EPSILON = 1e-6  # avoids the undefined gradient of the distance at 0


@dataclass(frozen=True)
class TripletLoss:
    """Means over the positive pairs of two views.

    Attributes:
        loss: Loss of equation 1.
        positive_distance: y(a, p), in [0, 2].
        negative_distance: y(a, n) for the hardest negative, in [0, 2].
        success: Fraction of the positive pairs that are mutual nearest neighbours among all descriptors.
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
    mean_fraction: float,
) -> TripletLoss:
    """The loss of two views; each descriptor of a positive pair is the anchor once.

        L = mean_i max(0, y(a, p) - y(a, n) + m)                                                     (1)

    y is the Euclidean distance. The paper uses the sum, which differs by a factor that does not affect Adam, and does
    not specify the negative. Here, each anchor has two triplets: with the hardest negative, the nearest negative
    descriptor of the other view, and with the mean distance of all negatives. The hardest negative matters most, but
    alone it makes a new network, whose descriptors are nearly equal, collapse further. An anchor without a negative is
    ignored. With m = 2, the largest distance of unit vectors, the maximum is never 0: all pairs contribute to the end.

    Args:
        descriptors0: (N0, D) of view 0, L2-normalised.
        descriptors1: (N1, D) of view 1, L2-normalised.
        positives: (M, 2) int64, rows of corresponding keypoints of both views.
        is_negative: (N0, N1) bool, which rows are different points.
        margin: m.
        mean_fraction: Weight in [0, 1] of the triplets with the mean distance of all negatives.
    """
    similarity = at_least_float32(descriptors0) @ at_least_float32(descriptors1).T
    distances = (2 - 2 * similarity).clamp(min=_EPSILON).sqrt()
    rows0, rows1 = positives.unbind(1)
    positive = distances[rows0, rows1].repeat(2)
    masked = distances.masked_fill(~is_negative, torch.inf)
    hardest = torch.cat([masked.amin(dim=1)[rows0], masked.amin(dim=0)[rows1]])
    total, number_of = distances.masked_fill(~is_negative, 0.0), is_negative.sum
    mean = torch.cat([(total.sum(dim) / number_of(dim).clamp(min=1))[rows] for dim, rows in ((1, rows0), (0, rows1))])
    counts = hardest.isfinite()
    positive, hardest, mean = positive[counts], hardest[counts], mean[counts]
    number = counts.sum().clamp(min=1)
    hinges = [(positive - negative + margin).clamp(min=0) for negative in (hardest, mean)]
    is_mutual = (similarity.argmax(dim=1)[rows0] == rows1) & (similarity.argmax(dim=0)[rows1] == rows0)
    return TripletLoss(
        ((1 - mean_fraction) * hinges[0] + mean_fraction * hinges[1]).sum() / number,
        positive.sum().detach() / number,
        hardest.sum().detach() / number,
        is_mutual.float().sum() / max(len(rows0), 1),
    )


class ResidualRecipe:
    """See `Recipe`.

    Args:
        settings: Settings of the training.
        pairs: Training pairs.
    """

    ARCHITECTURE: ClassVar[str] = "Residual descriptors (Shrestha et al., 2023), RGB input"
    PARTS: ClassVar[tuple[str, ...]] = ("loss", "positive_distance", "negative_distance", "success")
    # The keypoints are always SIFT's; the metric is therefore how many are matched correctly.
    CRITERION: ClassVar[str] = "matching_score_3"

    def __init__(self, settings: ResidualSettings, pairs: ResidualPairs) -> None:
        self._settings = settings
        self._pairs = pairs

    def network(self) -> Residual:
        """Creates a network with random weights."""
        return Residual(RESIDUAL_CONFIGS[self._settings.model])

    def module(self, network: nn.Module) -> nn.Module:
        """The network itself."""
        return network

    def pairs(self) -> ResidualPairs:
        """Pairs of views with their keypoints."""
        return self._pairs

    def pair_losses(
        self, module: nn.Module, pairs: Sequence[ResidualPair], device: torch.device, precision: torch.dtype
    ) -> list[PairLosses]:
        """The loss of equation 1 of each pair."""
        views = torch.cat([pair.views for pair in pairs]).to(device).float() / 255
        points = [one.to(device) for pair in pairs for one in pair.points]
        described = [one.to(device) for pair in pairs for one in pair.described]
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            descriptors: list[torch.Tensor] = module(views, points, described)
        losses: list[PairLosses] = []
        for number, pair in enumerate(pairs):
            loss = triplet_loss(
                descriptors[2 * number],
                descriptors[2 * number + 1],
                pair.positives.to(device),
                pair.is_negative.to(device),
                self._settings.margin,
                self._settings.mean_negative_share,
            )
            values = (loss.loss, loss.positive_distance, loss.negative_distance, loss.success)
            losses.append(dict(zip(self.PARTS, values, strict=True)))
        return losses
