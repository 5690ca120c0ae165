"""Distillation: a small network learns scores and descriptors from ALIKED, and from the geometry of the pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from feature_frontend.extractors.networks.dotlet import DOTLET_CONFIGS, Dotlet
from feature_frontend_lab.training.aliked.recipe import AlikedView, aliked_loss, find_training_keypoints
from feature_frontend_lab.training.distill.losses import contrast_losses, score_loss
from feature_frontend_lab.training.distill.pairs import DistillPair, DistillPairs
from feature_frontend_lab.training.distill.settings import DistillSettings
from feature_frontend_lab.training.distill.teacher import Teacher, TeacherTargets
from feature_frontend_lab.training.recipe import PairLosses

__all__ = ["DistillRecipe"]

_RANDOM_POINTS_STREAM = 1


@dataclass(frozen=True)
class _StudentView:
    """The student's output for one view.

    Attributes:
        logits: (S, S).
        descriptors: (N, D) of the points given, L2-normalised.
        own: Its own keypoints.
    """

    logits: torch.Tensor
    descriptors: torch.Tensor
    own: AlikedView


class _TrainingModule(nn.Module):
    """The network with detection and description as one call, so that DDP can synchronise the gradients."""

    def __init__(self, network: nn.Module, detected_keypoints: int) -> None:
        super().__init__()
        assert isinstance(network, Dotlet)
        self.network = network
        self._detected_keypoints = detected_keypoints

    def forward(self, views: torch.Tensor, points: Sequence[torch.Tensor]) -> list[_StudentView]:
        """What the network finds in (B, 1, S, S) views, and its descriptors of (N, 2) points in each."""
        logits, *levels = self.network(views)
        found = []
        # In half precision, positions would be off by hundredths of a pixel.
        with torch.autocast(views.device.type, enabled=False):
            scores = torch.sigmoid(logits.float())
            nothing = points[0].new_zeros((0, 2))
            for row, asked in enumerate(points):
                radius = self.network.default_nms_radius
                own = find_training_keypoints(scores[row, 0], nothing, self._detected_keypoints, radius)
                maps = tuple(level[row : row + 1].float() for level in (scores, *levels))
                keypoints = torch.cat([asked, own.keypoints.detach()])
                descriptors = self.network.describe(maps, keypoints[None])[0]
                of_own = AlikedView(own, descriptors[len(asked) :])
                found.append(_StudentView(logits[row, 0].float(), descriptors[: len(asked)], of_own))
        return found


class DistillRecipe:
    """See `Recipe`.

    Args:
        settings: Settings of the training.
        pairs: Training pairs.
    """

    ARCHITECTURE: ClassVar[str] = "Dotlet, this project's, grey input"
    CRITERION: ClassVar[str] = "overall"
    PARTS: ClassVar[tuple[str, ...]] = (
        "loss",
        "score_loss",
        "contrast_loss",
        "imitation_loss",
        "reprojection_loss",
        "peak_loss",
        "descriptor_loss",
        "reliability_loss",
        "success",
    )

    def __init__(self, settings: DistillSettings, pairs: DistillPairs) -> None:
        self._settings = settings
        self._pairs = pairs
        self._teacher = Teacher(settings, pairs.description, pairs.targets)

    def network(self) -> Dotlet:
        """Creates a network with random weights."""
        return Dotlet(DOTLET_CONFIGS[self._settings.model])

    def module(self, network: nn.Module) -> nn.Module:
        """The network with its detection."""
        return _TrainingModule(network, self._settings.detected_keypoints)

    def pairs(self) -> DistillPairs:
        """Pairs of views, for the teacher and for the student."""
        return self._pairs

    def pair_losses(
        self, module: nn.Module, pairs: Sequence[DistillPair], device: torch.device, precision: torch.dtype
    ) -> list[PairLosses]:
        """The losses of each pair."""
        targets = self._teacher.targets(pairs, device)
        points = [self._points(pair, of_pair, device) for pair, of_pair in zip(pairs, targets, strict=True)]
        views = torch.cat([pair.views for pair in pairs]).to(device)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            found: list[_StudentView] = module(views, [of_view for of_pair in points for of_view in of_pair])
        return [
            self._losses((found[2 * number], found[2 * number + 1]), pair, targets[number], points[number], device)
            for number, pair in enumerate(pairs)
        ]

    def _losses(
        self,
        views: tuple[_StudentView, _StudentView],
        pair: DistillPair,
        targets: TeacherTargets,
        points: tuple[torch.Tensor, torch.Tensor],
        device: torch.device,
    ) -> dict[str, torch.Tensor]:
        settings = self._settings
        scores = score_loss(torch.stack([view.logits for view in views]), targets.scores)
        contrast, imitation = contrast_losses(
            (views[0].descriptors, views[1].descriptors),
            points,
            (targets.descriptors[0], targets.descriptors[1]),
            settings.contrast_temperature,
            settings.contrast_radius_px,
        )
        warps = (pair.warps[0].to(device), pair.warps[1].to(device))
        own = aliked_loss((views[0].own, views[1].own), warps, settings)
        total = (
            own["loss"]
            + settings.score_weight * scores
            + settings.contrast_weight * contrast
            + settings.imitation_weight * imitation
        )
        taught = {"loss": total, "score_loss": scores, "contrast_loss": contrast, "imitation_loss": imitation}
        return {name: (own | taught)[name] for name in self.PARTS}

    def _points(
        self, pair: DistillPair, targets: TeacherTargets, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 2) px in each view: the teacher's points, then random ones that both views show."""
        settings = self._settings
        rng = np.random.default_rng([settings.seed, pair.number, _RANDOM_POINTS_STREAM])
        places = rng.random((settings.random_points, 2), dtype=np.float32) * (settings.map_side - 1)
        drawn = torch.from_numpy(places).to(device)
        there, visible = pair.warps[0].to(device).warp(drawn)
        return torch.cat([targets.points[0], drawn[visible]]), torch.cat([targets.points[1], there[visible]])
