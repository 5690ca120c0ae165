"""What differs between the networks that can be trained; the rest is `Trainer`'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import nn
from torch.utils.data import Dataset

__all__ = ["PairLosses", "Recipe"]

# What there is to say of one pair, by the names of `Recipe.PARTS`; "loss" is what is minimised.
PairLosses = Mapping[str, torch.Tensor]


class Recipe(Protocol):
    """A network, its pairs and its loss.

    Attributes:
        ARCHITECTURE: Of the network, for the model card: name, paper, colours of the input.
        PARTS: What the log says of each step: "loss" first, "success" (the share of the true matches that are mutual
            nearest neighbours) last.
        CRITERION: What the best checkpoint is best in, an attribute of `ValidationScore`.
    """

    ARCHITECTURE: ClassVar[str]
    PARTS: ClassVar[tuple[str, ...]]
    CRITERION: ClassVar[str]

    def network(self) -> nn.Module:
        """A new network with random weights, as inference uses it."""

    def module(self, network: nn.Module) -> nn.Module:
        """What `pair_losses` calls: the network, or a module around it. All its parameters are the network's."""

    def pairs(self) -> Dataset[Any]:
        """The pairs by number; a pair is a function of its number, the settings and the data alone."""

    def pair_losses(
        self, module: nn.Module, pairs: Sequence[Any], device: torch.device, precision: torch.dtype
    ) -> list[PairLosses]:
        """The losses of a batch of pairs.

        Args:
            module: What `module` returned, or a wrapper of it that exchanges gradients between processes.
            pairs: Of `pairs`.
            device: Where the network is.
            precision: Of the network's passes.
        """
