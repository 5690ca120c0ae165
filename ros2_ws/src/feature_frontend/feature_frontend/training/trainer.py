"""The training step of SiLK and everything that decides its result."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Sampler

from feature_frontend.errors import SettingsError
from feature_frontend.extractors.silk import SILK_CONFIGS, Silk, SilkMaps
from feature_frontend.training.augmentation import augment
from feature_frontend.training.distributed import Processes
from feature_frontend.training.images import GreyImages
from feature_frontend.training.loss import SilkLoss, silk_loss
from feature_frontend.training.pairs import PairDataset, ViewPair, ViewSettings
from feature_frontend.training.settings import TrainingSettings

__all__ = ["StepReport", "Trainer"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# With one pair of views a batch, torch's 0.1 would leave the statistics of the last ten pairs.
_STATISTICS_MOMENTUM = 0.01
_AUGMENTATION_STREAM = 1


@dataclass(frozen=True)
class StepReport:
    """Means over the pairs of one step in this process.

    Attributes:
        loss: What was minimised: the next two together.
        descriptor_loss: Of A.4.
        keypoint_loss: Of A.5.
        success: Share of correspondences that are mutual nearest neighbours.
        learning_rate: Of this step.
    """

    loss: float
    descriptor_loss: float
    keypoint_loss: float
    success: float
    learning_rate: float


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
    """A network in training. Its state after step n is a function of the settings, the images, the first weights and n.

    All randomness of a pair comes from the seed and the pair's number, so that the step is all the state it has.

    Args:
        settings: What decides the result.
        images: What to train on.
        processes: This process among those of the run.
        initial: Weights to begin with; None for random ones.
        workers: Processes that prepare pairs; 0 prepares them here.

    Raises:
        SettingsError: The precision does not fit the device, or frozen statistics have no weights.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        images: GreyImages,
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
            msg = f"precision float16 needs a CUDA device, this is {device}; use bfloat16 or float32"
            raise SettingsError(msg)
        torch.manual_seed(settings.seed)
        self.network = Silk(SILK_CONFIGS[settings.model])
        if settings.frozen_statistics and initial is None:
            msg = "frozen_statistics needs weights to begin with; expected a trained network's"
            raise SettingsError(msg)
        if initial is not None:
            self.network.load_state_dict(initial, strict=True)
        self.network.to(device).train()
        self.average = copy.deepcopy(self.network).requires_grad_(requires_grad=False).eval()
        self._parallel: nn.Module = self.network
        if processes.count > 1:
            devices = [device] if device.type == "cuda" else None
            self._parallel = DistributedDataParallel(self.network, device_ids=devices)
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.999))
        self._scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
        view = ViewSettings(settings.map_side, self.network.config.border_px)
        self._dataset = PairDataset(images, view, settings.seed)
        self._batches: Iterator[list[ViewPair]] | None = None

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
            msg = (
                f"the run in {where} has {state['processes']} process(es), this one {self._processes.count}; "
                "resume it with as many"
            )
            raise SettingsError(msg)
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
        losses = []
        for part in range(self.settings.accumulate):
            is_last = part == self.settings.accumulate - 1
            with self._gradients_stay_here(unless=is_last):
                losses += self._backward(next(self._batches))
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.step += 1
        self._update_average()
        total, descriptors, keypoints, success = (
            torch.stack([getattr(loss, name) for loss in losses]).mean().item() for name in _PARTS
        )
        if not math.isfinite(total):
            msg = f"the loss is {total} at step {self.step}; begin again with a lower learning rate"
            raise SettingsError(msg)
        return StepReport(total, descriptors, keypoints, success, rate)

    def _backward(self, pairs: list[ViewPair]) -> list[SilkLoss]:
        device = self._processes.device
        views = [self._augmented(pair) for pair in pairs]
        dtype = _DTYPES[self.settings.precision]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            maps: SilkMaps = self._parallel(torch.cat(views))
        losses = []
        for number, pair in enumerate(pairs):
            first, second = 2 * number, 2 * number + 1
            loss = silk_loss(
                (maps.logits[first], maps.logits[second]),
                (maps.descriptors[first], maps.descriptors[second]),
                pair.correspondences.to(device),
                self.settings.temperature,
            )
            losses.append(loss)
        total = torch.stack([loss.total for loss in losses]).mean() / self.settings.accumulate
        self._scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        return [loss.detach() for loss in losses]

    def _augmented(self, pair: ViewPair) -> torch.Tensor:
        """(2, 1, S, S) views in [0, 1]."""
        rng = np.random.default_rng([self.settings.seed, pair.number, _AUGMENTATION_STREAM])
        return augment(pair.views.to(self._processes.device).float() / 255, rng, self.settings.augmentation)

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

    def _open_batches(self) -> Iterator[list[ViewPair]]:
        numbers = _Numbers(self.step * self.settings.accumulate, self.settings.batch_size, self._processes)
        return iter(DataLoader(self._dataset, batch_sampler=numbers, num_workers=self._workers, collate_fn=list))


_PARTS = ("total", "descriptors", "keypoints", "success")
