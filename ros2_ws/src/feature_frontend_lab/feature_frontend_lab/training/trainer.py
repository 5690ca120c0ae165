"""The training step, whichever network it is, and everything that decides its result."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Sampler

from feature_frontend.errors import SettingsError
from feature_frontend_lab.training.aliked.pairs import AlikedPairs
from feature_frontend_lab.training.aliked.recipe import AlikedRecipe
from feature_frontend_lab.training.aliked.settings import AlikedSettings
from feature_frontend_lab.training.distill.pairs import DistillPairs
from feature_frontend_lab.training.distill.recipe import DistillRecipe
from feature_frontend_lab.training.distill.settings import DistillSettings
from feature_frontend_lab.training.distributed import Processes
from feature_frontend_lab.training.images import Images
from feature_frontend_lab.training.recipe import PairLosses, Recipe
from feature_frontend_lab.training.residual.pairs import ResidualPairs
from feature_frontend_lab.training.residual.recipe import ResidualRecipe
from feature_frontend_lab.training.residual.settings import ResidualSettings
from feature_frontend_lab.training.settings import CommonSettings
from feature_frontend_lab.training.silk.recipe import SilkRecipe
from feature_frontend_lab.training.silk.settings import TrainingSettings

__all__ = ["StepReport", "Trainer", "TrainingData", "recipe_of"]

TrainingData = Images | AlikedPairs | DistillPairs | ResidualPairs


def recipe_of(settings: CommonSettings, data: TrainingData) -> Recipe:
    """SiLK's recipe for `TrainingSettings` and `Images`; each other recipe for its own settings and pairs.

    Raises:
        TypeError: Settings and data do not go together.
    """
    if isinstance(settings, TrainingSettings) and isinstance(data, Images):
        return SilkRecipe(settings, data)
    if isinstance(settings, DistillSettings) and isinstance(data, DistillPairs):
        return DistillRecipe(settings, data)
    if isinstance(settings, AlikedSettings) and isinstance(data, AlikedPairs):
        return AlikedRecipe(settings, data)
    if isinstance(settings, ResidualSettings) and isinstance(data, ResidualPairs):
        return ResidualRecipe(settings, data)
    raise TypeError(
        f"{type(settings).__name__} came with {type(data).__name__}; expected settings and data of one network"
    )


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# With one pair of views a batch, torch's 0.1 would leave the statistics of the last ten pairs.
_STATISTICS_MOMENTUM = 0.01


@dataclass(frozen=True)
class StepReport:
    """Means over the pairs of one step in this process.

    Attributes:
        parts: By the names of `Recipe.PARTS`.
        learning_rate: Of this step.
    """

    parts: Mapping[str, float]
    learning_rate: float

    @property
    def loss(self) -> float:
        """What was minimised."""
        return self.parts["loss"]

    @property
    def success(self) -> float:
        """Fraction of the true matches that are mutual nearest neighbours."""
        return self.parts["success"]

    def as_dict(self) -> dict[str, float]:
        """All values by name."""
        return {**self.parts, "learning_rate": self.learning_rate}


class _Numbers(Sampler[list[int]]):
    """The numbers of this process's pairs, batch after batch without end."""

    def __init__(self, first_batch: int, batch_size: int, processes: Processes) -> None:
        self._first_batch = first_batch
        self._batch_size = batch_size
        self._processes = processes

    def __iter__(self) -> Iterator[list[int]]:
        for batch in count(self._first_batch):
            start = (batch * self._processes.count + self._processes.rank) * self._batch_size
            yield list(range(start, start + self._batch_size))


class Trainer:
    """A network in training. Its state after step n is a function of the settings, the data, the first weights and n.

    All randomness of a pair comes from the seed and the pair's number, so that the step is all the state it has.

    Args:
        settings: What decides the result, and which network it is.
        data: What to train on; `recipe_of` says what goes with which settings.
        processes: This process among those of the run.
        initial: Weights to begin with; None for random ones.
        workers: Processes that prepare pairs; 0 prepares them here.

    Raises:
        SettingsError: The precision does not fit the device, or frozen statistics have no weights.
    """

    def __init__(
        self,
        settings: CommonSettings,
        data: TrainingData,
        processes: Processes,
        initial: Mapping[str, torch.Tensor] | None = None,
        workers: int = 0,
    ) -> None:
        self.settings = settings
        self.step = 0
        self._processes = processes
        self._workers = workers
        device = processes.device
        if settings.precision == "float16" and device.type != "cuda":
            raise SettingsError(f"precision float16 needs a CUDA device, this is {device}; use bfloat16 or float32")
        torch.manual_seed(settings.seed)
        self.recipe = recipe_of(settings, data)
        self.network = self.recipe.network()
        if settings.frozen_statistics and initial is None:
            raise SettingsError("frozen_statistics needs weights to begin with; expected a trained network's")
        if initial is not None:
            self.network.load_state_dict(initial, strict=True)
        self.network.to(device).train()
        self.average = copy.deepcopy(self.network).requires_grad_(requires_grad=False).eval()
        self._parallel = self.recipe.module(self.network)
        if processes.count > 1:
            devices = [device] if device.type == "cuda" else None
            self._parallel = DistributedDataParallel(self._parallel, device_ids=devices)
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.999))
        self._scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
        self._pairs = self.recipe.pairs()
        self._batches: Iterator[list[Any]] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and plain values."""
        return {
            "settings": self.settings.as_dict(),
            "processes": self._processes.count,
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], where: str) -> None:
        """Goes on where `state` was taken.

        Raises:
            SettingsError: It belongs to a run with other settings or another number of processes.
        """
        self.settings.check_same(state["settings"], where)
        if state["processes"] != self._processes.count:
            raise SettingsError(
                f"the run in {where} has {state['processes']} process(es), this one {self._processes.count}; "
                "resume it with as many"
            )
        self.step = int(state["step"])
        self.network.load_state_dict(state["network"], strict=True)
        self.average.load_state_dict(state["average"], strict=True)
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self._batches = None

    def train_step(self) -> StepReport:
        """One step of the optimizer.

        Raises:
            SettingsError: The loss is no longer a number.
        """
        if self._batches is None:
            self._batches = self._open_batches()
        rate = self.settings.learning_rate_at(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        self._prepare_batch_norm()
        losses: list[PairLosses] = []
        for part in range(self.settings.accumulate):
            is_last = part == self.settings.accumulate - 1
            with self._gradients_stay_here(unless=is_last):
                losses += self._backward(next(self._batches))
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.step += 1
        self._update_average()
        parts = {name: torch.stack([loss[name] for loss in losses]).mean().item() for name in self.recipe.PARTS}
        if not math.isfinite(parts["loss"]):
            raise SettingsError(
                f"the loss is {parts['loss']} at step {self.step}; begin again with a lower learning rate"
            )
        return StepReport(parts, rate)

    def _backward(self, pairs: list[Any]) -> list[PairLosses]:
        dtype = _DTYPES[self.settings.precision]
        losses = self.recipe.pair_losses(self._parallel, pairs, self._processes.device, dtype)
        total = torch.stack([loss["loss"] for loss in losses]).mean() / self.settings.accumulate
        self._scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        return [{name: value.detach() for name, value in loss.items()} for loss in losses]

    def _gradients_stay_here(self, unless: bool) -> AbstractContextManager[None]:
        """Only the last pass of a step exchanges gradients with the other processes."""
        if unless or not isinstance(self._parallel, DistributedDataParallel):
            return nullcontext()
        return cast(AbstractContextManager[None], self._parallel.no_sync())

    def _prepare_batch_norm(self) -> None:
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d) and self.settings.frozen_statistics:
                module.eval()
            elif isinstance(module, nn.BatchNorm2d) and module.num_batches_tracked is not None:
                # A plain mean to begin with, which forgets the values that a new network starts from.
                module.momentum = max(_STATISTICS_MOMENTUM, 1 / (int(module.num_batches_tracked) + 1))

    @torch.no_grad()
    def _update_average(self) -> None:
        # Over a tenth of the run at its beginning, so that the first, random weights are soon forgotten.
        decay = min(self.settings.average_decay, self.step / (self.step + 9))
        current = self.network.state_dict()
        for name, average in self.average.state_dict().items():
            if average.is_floating_point():
                average.lerp_(current[name], 1 - decay)
            else:
                average.copy_(current[name])

    def _open_batches(self) -> Iterator[list[Any]]:
        numbers = _Numbers(self.step * self.settings.accumulate, self.settings.batch_size, self._processes)
        return iter(DataLoader(self._pairs, batch_sampler=numbers, num_workers=self._workers, collate_fn=list))
