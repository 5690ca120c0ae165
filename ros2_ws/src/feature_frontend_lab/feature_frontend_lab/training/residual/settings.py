"""Settings for training residual descriptors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from feature_frontend.errors import SettingsError
from feature_frontend.extractors.networks.residual_sift import RESIDUAL_CONFIGS
from feature_frontend_lab.training.settings import CommonSettings, is_above_zero

__all__ = ["PAPER_MARGIN", "ResidualSettings"]

PAPER_MARGIN = 2.0


@dataclass(frozen=True)
class ResidualSettings(CommonSettings):
    """Settings of residual descriptors. The defaults are the paper's (3.3, 4.1) if it names any.

    `map_side` is the side of a view, px.

    Attributes:
        keypoints: Number of best hand-crafted keypoints per view.
        margin: m of equation 1.
        mean_negative_share: Weight of the triplets with the mean distance of all negatives; the other triplets use the
            hardest negative.
        positive_radius_px: Distance within which a keypoint of the other view counts as the same point.
        negative_radius_px: Distance beyond which it counts as a different point.
    """

    MODELS: ClassVar[tuple[str, ...]] = tuple(RESIDUAL_CONFIGS)
    SMALLEST_MAP: ClassVar[int] = 64

    model: str = "residual-sift"
    map_side: int = 240
    batch_size: int = 4
    learning_rate: float = 1e-3
    keypoints: int = 500
    margin: float = PAPER_MARGIN
    mean_negative_share: float = 0.2
    positive_radius_px: float = 3.0
    negative_radius_px: float = 8.0

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        self._check("keypoints", "at least 1", lambda value: value >= 1)
        self._check("margin", "a number above 0", is_above_zero)
        self._check("mean_negative_share", "a fraction from 0 to 1", lambda value: 0 <= value <= 1)
        if not 0 < self.positive_radius_px <= self.negative_radius_px:
            raise SettingsError(
                f"positive_radius_px is {self.positive_radius_px} and negative_radius_px {self.negative_radius_px}; "
                "expected two numbers above 0, the first not above the second"
            )
