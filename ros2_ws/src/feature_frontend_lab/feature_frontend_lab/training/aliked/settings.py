"""Settings of ALIKED's training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from feature_frontend.extractors.networks.aliked import ALIKED_CONFIGS
from feature_frontend_lab.training.aliked.losses import (
    PAPER_DESCRIPTOR_TEMPERATURE,
    PAPER_RELIABILITY_TEMPERATURE,
    PAPER_TRUTH_RADIUS_PX,
)
from feature_frontend_lab.training.settings import CommonSettings, is_above_zero

__all__ = ["AlikedSettings"]


@dataclass(frozen=True)
class AlikedSettings(CommonSettings):
    """Settings of ALIKED. The defaults are the paper's (V-E, VI-A), which names no learning rate and no augmentation.

    Attributes:
        detected_keypoints: Number of best keypoints per view.
        random_keypoints: Number of random points per view.
        truth_radius_px: th_gt, within which a keypoint of the other view counts as the same point.
        descriptor_temperature: t_des.
        reliability_temperature: t_rel.
        reprojection_weight: Weight of the loss of equation 7.
        peak_weight: Weight of the loss of equation 8.
        descriptor_weight: Weight of the loss of equation 11.
        reliability_weight: Weight of the loss of equation 13.
        rotation_deg: Largest rotation between warped views in either direction; the paper rotates for N16rot only.
        perspective_share: Fraction of pairs with depth and pose, if there are also images without these.
        occlusion_tolerance: Relative depth difference above which a point counts as hidden.
    """

    MODELS: ClassVar[tuple[str, ...]] = tuple(ALIKED_CONFIGS)
    SMALLEST_MAP: ClassVar[int] = 64

    model: str = "aliked-t16"
    map_side: int = 800
    batch_size: int = 2
    accumulate: int = 6
    learning_rate: float = 1e-3
    augmentation: float = 0.5
    detected_keypoints: int = 400
    random_keypoints: int = 400
    truth_radius_px: float = PAPER_TRUTH_RADIUS_PX
    descriptor_temperature: float = PAPER_DESCRIPTOR_TEMPERATURE
    reliability_temperature: float = PAPER_RELIABILITY_TEMPERATURE
    reprojection_weight: float = 1.0
    peak_weight: float = 0.5
    descriptor_weight: float = 5.0
    reliability_weight: float = 1.0
    rotation_deg: float = 30.0
    perspective_share: float = 0.5
    occlusion_tolerance: float = 0.05

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        self._check("detected_keypoints", "at least 1", lambda value: value >= 1)
        self._check("random_keypoints", "at least 0", lambda value: value >= 0)
        for name in ("truth_radius_px", "descriptor_temperature", "reliability_temperature", "occlusion_tolerance"):
            self._check(name, "a number above 0", is_above_zero)
        for name in ("reprojection_weight", "peak_weight", "descriptor_weight", "reliability_weight"):
            self._check(name, "a number from 0 up", lambda value: value == 0 or is_above_zero(value))
        self._check("rotation_deg", "0 to 180", lambda value: 0 <= value <= 180)
        self._check("perspective_share", "a fraction from 0 to 1", lambda value: 0 <= value <= 1)
