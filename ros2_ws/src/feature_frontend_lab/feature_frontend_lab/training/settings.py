"""Settings of a training run that are common to all networks."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar

from feature_frontend.errors import SettingsError
from feature_frontend_lab.training.augmentation import PAPER_PROBABILITY

__all__ = ["PRECISIONS", "SCHEDULES", "CommonSettings", "is_above_zero"]

PRECISIONS = ("float32", "bfloat16", "float16")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class CommonSettings:
    """Settings common to all networks; a checkpoint can only be resumed with the same settings.

    Attributes:
        model: A key of `MODELS`.
        map_side: Height and width of the network's maps in px.
        batch_size: Pairs of views in each process and pass.
        accumulate: Number of passes whose gradients are accumulated per step.
        learning_rate: Learning rate of Adam after the warm-up.
        warmup_steps: Steps over which the learning rate rises from 0.
        schedule: "constant", or "cosine": down to 0 at the last step.
        schedule_steps: Number of steps of the cosine; 0 with "constant".
        precision: Precision of the network's passes; the loss is computed in float32.
        seed: Seed of the initial weights, the pairs, their augmentation and the validation pairs.
        average_decay: Decay of the running average of the weights, which is exported; 0 exports the last weights.
        augmentation: Probability that a view is augmented.
        frozen_statistics: Whether batch norm uses the statistics of the initial weights, as in inference, instead of
            those of each batch; for the final steps of a trained network.

    Raises:
        SettingsError: A value is out of range.
    """

    MODELS: ClassVar[tuple[str, ...]] = ()
    SMALLEST_MAP: ClassVar[int] = 1

    model: str
    map_side: int
    batch_size: int = 1
    accumulate: int = 1
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    schedule: str = "constant"
    schedule_steps: int = 0
    precision: str = "float32"
    seed: int = 0
    average_decay: float = 0.999
    augmentation: float = PAPER_PROBABILITY
    frozen_statistics: bool = False

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, choices in (("model", self.MODELS), ("precision", PRECISIONS), ("schedule", SCHEDULES)):
            self._check(name, f"one of {', '.join(choices)}", choices.__contains__)
        minima = {"map_side": self.SMALLEST_MAP, "batch_size": 1, "accumulate": 1, "warmup_steps": 0, "seed": 0}
        for name, minimum in minima.items():
            self._check(name, f"a whole number from {minimum} up", partial(operator.le, minimum))
        self._check("learning_rate", "a number above 0", is_above_zero)
        self._check("augmentation", "a probability from 0 to 1", lambda value: 0 <= value <= 1)
        self._check("average_decay", "a number from 0 to below 1", lambda value: 0 <= value < 1)
        if (self.schedule == "cosine") != (self.schedule_steps > 0):
            raise SettingsError(f"schedule {self.schedule} has {self.schedule_steps} steps; only a cosine has steps")

    def _check(self, name: str, expected: str, holds: Callable[[Any], bool]) -> None:
        value = getattr(self, name)
        if not holds(value):
            raise SettingsError(f"{name} is {value!r}; expected {expected}")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of step `step`, starting at 0."""
        rate = self.learning_rate
        if step < self.warmup_steps:
            rate *= (step + 1) / self.warmup_steps
        if self.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(step / self.schedule_steps, 1)))
        return rate

    def as_dict(self) -> dict[str, Any]:
        """The settings as a dictionary."""
        return asdict(self)

    def check_same(self, other: dict[str, Any], where: str) -> None:
        """Compares with the settings stored in a checkpoint.

        Raises:
            SettingsError: They differ; the message lists the differences.
        """
        own = self.as_dict()
        # A run older than a setting used its default.
        defaults = {name: field.default for name, field in type(self).__dataclass_fields__.items()}
        theirs = {**defaults, **other}
        different = [name for name in own if own[name] != theirs[name]]
        if different:
            listed = ", ".join(f"{name} {theirs[name]!r} (now {own[name]!r})" for name in different)
            raise SettingsError(
                f"the run in {where} has other settings: {listed}; resume it with those, or begin another --output"
            )


def is_above_zero(value: float) -> bool:
    """Whether the value is a number above 0."""
    return value > 0 and math.isfinite(value)
