"""The extractors by name: one row a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from feature_frontend.extractors.aliked import ALIKED_CONFIGS, Aliked
from feature_frontend.extractors.weights import WEIGHTS, WeightsRecord

__all__ = ["EXTRACTORS", "ExtractorRecord"]


@dataclass(frozen=True)
class ExtractorRecord:
    """How to make an extractor's network and which weights belong into it."""

    build: Callable[[], nn.Module]
    weights: WeightsRecord


EXTRACTORS = {name: ExtractorRecord(partial(Aliked, config), WEIGHTS[name]) for name, config in ALIKED_CONFIGS.items()}
