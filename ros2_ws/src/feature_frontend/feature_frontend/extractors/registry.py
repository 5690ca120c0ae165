"""The extractors by name: one row a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from feature_frontend.extractors.aliked import ALIKED_CONFIGS, Aliked
from feature_frontend.extractors.classical import CLASSICAL_CONFIGS, OPENCV, Classical
from feature_frontend.extractors.fast_aliked import FastAliked
from feature_frontend.extractors.fast_silk import FusedSilk
from feature_frontend.extractors.residual import RESIDUAL_CONFIGS, Residual, fold_batch_norm
from feature_frontend.extractors.silk import SILK_CONFIGS, Silk, from_published_names
from feature_frontend.extractors.weights import WEIGHTS, WeightsRecord

__all__ = ["EXTRACTORS", "ExtractorRecord"]


def _as_it_is(network: nn.Module) -> nn.Module:
    return network


@dataclass(frozen=True)
class ExtractorRecord:
    """How to make an extractor's network and which weights belong into it.

    Attributes:
        build: Makes the network, with random weights.
        weights: The published weights; None where this project may not fetch any, and `weights_path` must name a file.
        rename: Brings the names in a checkpoint to those of the network.
        inference: Makes the network that does the same work faster from one with its final weights.
        library: Of an extractor that has no weights: who computes it, with the version; empty for a network.
        has_maps: Whether its points can be found again anywhere: its network is a `FastNetwork`.
    """

    build: Callable[[], nn.Module]
    weights: WeightsRecord | None
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
    inference: Callable[[Any], nn.Module] = _as_it_is
    library: str = ""
    has_maps: bool = False


EXTRACTORS = {
    **{
        name: ExtractorRecord(partial(Aliked, row), WEIGHTS[name], inference=FastAliked, has_maps=True)
        for name, row in ALIKED_CONFIGS.items()
    },
    **{
        name: ExtractorRecord(
            partial(Silk, row), WEIGHTS.get(name), from_published_names, FusedSilk.from_reference, has_maps=True
        )
        for name, row in SILK_CONFIGS.items()
    },
    **{name: ExtractorRecord(partial(Classical, row), None, library=OPENCV) for name, row in CLASSICAL_CONFIGS.items()},
    **{
        name: ExtractorRecord(partial(Residual, row), WEIGHTS.get(name), inference=fold_batch_norm)
        for name, row in RESIDUAL_CONFIGS.items()
    },
}
