"""Settings for training SiLK."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from feature_frontend.extractors.networks.silk import SILK_CONFIGS
from feature_frontend_lab.training.settings import CommonSettings
from feature_frontend_lab.training.silk.loss import PAPER_TEMPERATURE

__all__ = ["TrainingSettings"]


@dataclass(frozen=True)
class TrainingSettings(CommonSettings):
    """Settings of SiLK. The defaults are the paper's (4.1).

    Attributes:
        temperature: Temperature of the matching probabilities.
    """

    MODELS: ClassVar[tuple[str, ...]] = tuple(SILK_CONFIGS)
    SMALLEST_MAP: ClassVar[int] = 16

    model: str = "silk-vggnp-mu"
    map_side: int = 146
    temperature: float = PAPER_TEMPERATURE
