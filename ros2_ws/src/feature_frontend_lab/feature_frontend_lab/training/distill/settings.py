"""Settings of distillation."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from feature_frontend.extractors.networks.aliked import ALIKED_CONFIGS
from feature_frontend.extractors.networks.dotlet import DOTLET_CONFIGS
from feature_frontend_lab.training.aliked.settings import AlikedSettings
from feature_frontend_lab.training.settings import is_above_zero

__all__ = ["DistillSettings"]


@dataclass(frozen=True)
class DistillSettings(AlikedSettings):
    """Settings of distillation: those of ALIKED's pairs and losses, and what concerns the teacher.

    Attributes:
        teacher: The network to learn from.
        teacher_keypoints: Number of the teacher's best keypoints per view.
        random_points: Number of random points per pair whose descriptors are compared besides.
        pool: Number of different pairs, which return in turn with other photometric changes, so that the teacher sees
            each only once; 0 for a new pair each time.
        score_weight: Weight of the difference from the teacher's score map.
        contrast_weight: Weight of the contrast between descriptors of the same and of different points.
        imitation_weight: Weight of the difference from the teacher's similarities.
        contrast_temperature: Temperature of both.
        contrast_radius_px: Points closer than this are neither the same nor different.
    """

    MODELS: ClassVar[tuple[str, ...]] = tuple(DOTLET_CONFIGS)

    model: str = "dotlet"
    map_side: int = 256
    batch_size: int = 4
    accumulate: int = 1
    learning_rate: float = 2e-3
    detected_keypoints: int = 200
    random_keypoints: int = 0
    truth_radius_px: float = 3.0
    reprojection_weight: float = 1.0
    peak_weight: float = 0.1
    descriptor_weight: float = 0.5
    reliability_weight: float = 0.3
    teacher: str = "aliked-n16"
    teacher_keypoints: int = 200
    random_points: int = 100
    pool: int = 0
    score_weight: float = 30.0
    contrast_weight: float = 1.0
    imitation_weight: float = 0.5
    contrast_temperature: float = 0.06
    contrast_radius_px: float = 4.0

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        self._check("teacher", f"one of {', '.join(ALIKED_CONFIGS)}", ALIKED_CONFIGS.__contains__)
        for name, minimum in (("teacher_keypoints", 1), ("random_points", 0), ("pool", 0)):
            self._check(name, f"a whole number from {minimum} up", partial(operator.le, minimum))
        for name in ("contrast_temperature", "contrast_radius_px"):
            self._check(name, "a number above 0", is_above_zero)
        for name in ("score_weight", "contrast_weight", "imitation_weight"):
            self._check(name, "a number from 0 up", lambda value: value == 0 or is_above_zero(value))
