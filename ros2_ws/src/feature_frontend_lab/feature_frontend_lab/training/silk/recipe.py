"""SiLK's training: matches one view of a pair against the other, with every pixel of the maps (3.4, A.4 to A.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from feature_frontend.extractors.networks.silk import SILK_CONFIGS, Silk, SilkMaps
from feature_frontend_lab.training.augmentation import augment
from feature_frontend_lab.training.images import Images
from feature_frontend_lab.training.recipe import PairLosses
from feature_frontend_lab.training.silk.loss import silk_loss
from feature_frontend_lab.training.silk.pairs import PairDataset, ViewPair, ViewSettings
from feature_frontend_lab.training.silk.settings import TrainingSettings

__all__ = ["SilkRecipe"]

_AUGMENTATION_STREAM = 1


class SilkRecipe:
    """See `Recipe`.

    Args:
        settings: Settings of the training.
        images: Source images of the views; grey.
    """

    ARCHITECTURE: ClassVar[str] = "SiLK (Gleize et al., ICCV 2023), grey input"
    PARTS: ClassVar[tuple[str, ...]] = ("loss", "descriptor_loss", "keypoint_loss", "success")
    CRITERION: ClassVar[str] = "overall"

    def __init__(self, settings: TrainingSettings, images: Images) -> None:
        self._settings = settings
        self._images = images

    def network(self) -> Silk:
        """Creates a network with random weights."""
        return Silk(SILK_CONFIGS[self._settings.model])

    def module(self, network: nn.Module) -> nn.Module:
        """The network itself."""
        return network

    def pairs(self) -> PairDataset:
        """Pairs of views with their correspondences."""
        border = SILK_CONFIGS[self._settings.model].border_px
        return PairDataset(self._images, ViewSettings(self._settings.map_side, border), self._settings.seed)

    def pair_losses(
        self, module: nn.Module, pairs: Sequence[ViewPair], device: torch.device, precision: torch.dtype
    ) -> list[PairLosses]:
        """The losses of Appendix A of each pair."""
        views = [self._augmented(pair, device) for pair in pairs]
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            maps: SilkMaps = module(torch.cat(views))
        losses: list[PairLosses] = []
        for number, pair in enumerate(pairs):
            first, second = 2 * number, 2 * number + 1
            loss = silk_loss(
                (maps.logits[first], maps.logits[second]),
                (maps.descriptors[first], maps.descriptors[second]),
                pair.correspondences.to(device),
                self._settings.temperature,
            )
            values = (loss.total, loss.descriptors, loss.keypoints, loss.success)
            losses.append(dict(zip(self.PARTS, values, strict=True)))
        return losses

    def _augmented(self, pair: ViewPair, device: torch.device) -> torch.Tensor:
        """(2, 1, S, S) views in [0, 1]."""
        rng = np.random.default_rng([self._settings.seed, pair.number, _AUGMENTATION_STREAM])
        return augment(pair.views.to(device).float() / 255, rng, self._settings.augmentation)
