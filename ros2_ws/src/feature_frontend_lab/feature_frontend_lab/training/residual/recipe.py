"""How residual descriptors are trained: the descriptors of two views' keypoints against the triplet loss (3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from feature_frontend.extractors.networks.residual_sift import RESIDUAL_CONFIGS, Residual
from feature_frontend_lab.training.recipe import PairLosses
from feature_frontend_lab.training.residual.loss import triplet_loss
from feature_frontend_lab.training.residual.pairs import ResidualPair, ResidualPairs
from feature_frontend_lab.training.residual.settings import ResidualSettings

__all__ = ["ResidualRecipe"]


class ResidualRecipe:
    """See `Recipe`.

    Args:
        settings: What decides the result.
        pairs: What to train on.
    """

    ARCHITECTURE: ClassVar[str] = "Residual descriptors (Shrestha et al., 2023), RGB input"
    PARTS: ClassVar[tuple[str, ...]] = ("loss", "positive_distance", "negative_distance", "success")
    # The points are those of SIFT, whatever is learned: what counts is how many of them are matched rightly.
    CRITERION: ClassVar[str] = "matching_score_3"

    def __init__(self, settings: ResidualSettings, pairs: ResidualPairs) -> None:
        self._settings = settings
        self._pairs = pairs

    def network(self) -> Residual:
        """A new network with random weights."""
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
