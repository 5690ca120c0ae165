"""The interface of what differs between trainable networks; `Trainer` does the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import nn
from torch.utils.data import Dataset

__all__ = ["PairLosses", "Recipe"]

# Losses of one pair, by the names of `Recipe.PARTS`; "loss" is minimised.
PairLosses = Mapping[str, torch.Tensor]


class Recipe(Protocol):
    """A network, its pairs and its loss.

    Attributes:
        ARCHITECTURE: Description for the model card: name, paper, input colours.
        PARTS: Values logged for each step: "loss" first, "success" (the fraction of true matches that are mutual
            nearest neighbours) last.
        CRITERION: Attribute of `ValidationScore` that selects the best checkpoint.
    """

    ARCHITECTURE: ClassVar[str]
    PARTS: ClassVar[tuple[str, ...]]
    CRITERION: ClassVar[str]

    def network(self) -> nn.Module:
        """Creates a network with random weights, as used for inference."""

    def module(self, network: nn.Module) -> nn.Module:
        """The module called by `pair_losses`: the network or a wrapper. All its parameters belong to the network."""

    def pairs(self) -> Dataset[Any]:
        """The training pairs; a pair depends only on its number, the settings and the data."""

    def pair_losses(
        self, module: nn.Module, pairs: Sequence[Any], device: torch.device, precision: torch.dtype
    ) -> list[PairLosses]:
        """The losses of a batch of pairs.

        Args:
            module: Result of `module`, or a wrapper that synchronises gradients between processes.
            pairs: Pairs from `pairs`.
            device: Device of the network.
            precision: Precision of the network's passes.
        """
