"""Pairs of views for distillation: ALIKED's pairs as the teacher sees them, and changed for the student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from feature_frontend_lab.training.aliked.pairs import AlikedPairs
from feature_frontend_lab.training.aliked.warps import Warp
from feature_frontend_lab.training.augmentation import augment
from feature_frontend_lab.training.distill.settings import DistillSettings

__all__ = ["DistillPair", "DistillPairs"]

_CHANGES_STREAM = 2


@dataclass(frozen=True)
class DistillPair:
    """Two views with their ground truth.

    Attributes:
        originals: (2, 3, S, S) uint8 RGB, for the teacher.
        views: (2, 1, S, S) float32 grey in [0, 1], with photometric changes, blur and noise, for the student.
        warps: From view 0 to view 1, and back.
        number: The pair's number in the run.
        drawn: Number that determines originals and warps: that of the pair in the pool, if there is one.
    """

    originals: torch.Tensor
    views: torch.Tensor
    warps: tuple[Warp, Warp]
    number: int
    drawn: int


class DistillPairs(Dataset[DistillPair]):
    """Pair `number` depends only on the data, the settings and `number`, in any process.

    Args:
        pairs: Draws views and warps.
        settings: How often pairs return, and how views are changed.
        targets: Folder in which the teacher's targets of a pool are kept; None: nowhere.
    """

    def __init__(self, pairs: AlikedPairs, settings: DistillSettings, targets: Path | None = None) -> None:
        self.description = pairs.description
        self.targets = targets
        self._pairs = pairs
        self._settings = settings

    def __getitem__(self, number: int) -> DistillPair:
        """Pair `number`.

        Raises:
            SourceError: No file can be read, or no two views overlap.
        """
        settings = self._settings
        drawn = number % settings.pool if settings.pool else number
        images, warps = self._pairs.draw(drawn)
        grey = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images])
        views = torch.from_numpy(grey)[:, None].float() / 255
        changes = np.random.default_rng([settings.seed, number, _CHANGES_STREAM])
        return DistillPair(
            torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()),
            augment(views, changes, settings.augmentation),
            warps,
            number,
            drawn,
        )
