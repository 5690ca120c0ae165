"""The extractors by name: one row per model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from feature_frontend.extractors.networks.aliked import ALIKED_CONFIGS, Aliked
from feature_frontend.extractors.networks.aliked_inference import FastAliked
from feature_frontend.extractors.networks.dotlet import DOTLET_CONFIGS, Dotlet
from feature_frontend.extractors.networks.dotlet import fold_batch_norm as fold_dotlet
from feature_frontend.extractors.networks.opencv_sift import CLASSICAL_CONFIGS, OPENCV, Classical
from feature_frontend.extractors.networks.residual_sift import RESIDUAL_CONFIGS, Residual, fold_batch_norm
from feature_frontend.extractors.networks.silk import SILK_CONFIGS, Silk, from_published_names
from feature_frontend.extractors.networks.silk_inference import FusedSilk
from feature_frontend.models.catalog import EXTRACTOR_MODELS, WeightsRecord

__all__ = ["EXTRACTORS", "ExtractorRecord"]


def _unchanged(network: nn.Module) -> nn.Module:
    return network


@dataclass(frozen=True)
class ExtractorRecord:
    """How to build an extractor's network, and its weights.

    Attributes:
        build: Builds the network, with random weights.
        weights: As in `ExtractorModel`.
        rename: Renames a checkpoint's tensors to the network's names.
        inference: Builds the faster inference network from one with its final weights.
        library: For an extractor without weights: its library and version; empty for a network.
        has_maps: As in `ExtractorModel`.
    """

    build: Callable[[], nn.Module]
    weights: WeightsRecord | None
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
    inference: Callable[[Any], nn.Module] = _unchanged
    library: str = ""
    has_maps: bool = False


def _record(name: str, build: Callable[[], nn.Module], **further: Any) -> ExtractorRecord:
    model = EXTRACTOR_MODELS[name]
    return ExtractorRecord(build, model.weights, has_maps=model.has_maps, **further)


EXTRACTORS = {
    **{name: _record(name, partial(Aliked, row), inference=FastAliked) for name, row in ALIKED_CONFIGS.items()},
    **{
        name: _record(name, partial(Silk, row), rename=from_published_names, inference=FusedSilk.from_reference)
        for name, row in SILK_CONFIGS.items()
    },
    **{name: _record(name, partial(Dotlet, row), inference=fold_dotlet) for name, row in DOTLET_CONFIGS.items()},
    **{name: _record(name, partial(Classical, row), library=OPENCV) for name, row in CLASSICAL_CONFIGS.items()},
    **{
        name: _record(name, partial(Residual, row), inference=fold_batch_norm) for name, row in RESIDUAL_CONFIGS.items()
    },
}
