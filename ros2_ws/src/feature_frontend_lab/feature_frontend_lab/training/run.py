"""A training run from its first step to the exported model: validation, checkpoints, log, curves."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from feature_frontend.errors import SettingsError
from feature_frontend_lab.evaluation.homography.pairs import HomographyPair
from feature_frontend_lab.training.checkpoint import load_checkpoint, save_checkpoint, writing
from feature_frontend_lab.training.distributed import Processes
from feature_frontend_lab.training.export import ModelCard, git_commit, write_model
from feature_frontend_lab.training.log import RunLog, read_log, save_curves
from feature_frontend_lab.training.trainer import StepReport, Trainer
from feature_frontend_lab.training.validation import ValidationScore, validate

__all__ = ["CHECKPOINT_NAME", "Provenance", "RunOptions", "RunResult", "TrainingRun"]

CHECKPOINT_NAME = "checkpoint.pt"
_LOG_EVERY = 10
_DRY_RUN_STEPS = 2


@dataclass(frozen=True)
class RunOptions:
    """When a run validates and ends, and where it writes.

    Attributes:
        output: Output folder; None writes nothing.
        steps: Last step; None for no limit.
        minutes: Training time from now on; None for no limit.
        validate_every: Steps between validations, each of which also saves a checkpoint.
        save_every_s: Seconds between additional checkpoints.
        keypoints: Maximum number of keypoints per validation image.
        resume: Whether to continue from the checkpoint in `output`.
    """

    output: Path | None
    steps: int | None
    minutes: float | None = None
    validate_every: int = 1000
    save_every_s: float = 300.0
    keypoints: int = 1000
    resume: bool = False


@dataclass(frozen=True)
class Provenance:
    """Details for the model card that the run does not know itself; see `ModelCard`."""

    data: str
    data_licence: str
    initial: str
    validation_data: str
    command: str


@dataclass
class RunResult:
    """Result of a run.

    Attributes:
        step: The last step.
        interrupted: Whether the user interrupted it.
        before: Score before the first step.
        after: Score of the exported weights.
        best_step: Step of the exported weights; 0 if no later weights were better than the first.
        weights: The exported file.
    """

    step: int
    interrupted: bool
    before: ValidationScore | None
    after: ValidationScore | None
    best_step: int
    weights: Path | None = None


@dataclass
class _Progress:
    """Contents of a checkpoint apart from the trainer's state."""

    seconds: float = 0.0
    best_step: int = 0
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)


class TrainingRun:
    """A training run.

    Args:
        trainer: At step 0; `options.resume` restores its state.
        processes: This process and its place in the run.
        pairs: Validation pairs, required in the first process. If empty, nothing is validated: the last weights are
            exported.
        options: When to end and where to write.
        provenance: Details for the model card.
    """

    def __init__(
        self,
        trainer: Trainer,
        processes: Processes,
        pairs: Sequence[HomographyPair],
        options: RunOptions,
        provenance: Provenance,
    ) -> None:
        self._trainer = trainer
        self._processes = processes
        self._pairs = pairs
        self._options = options
        self._provenance = provenance
        self._progress = _Progress()
        self._log: RunLog | None = None
        self._started = 0.0

    def run(self, interrupted: Callable[[], bool] = lambda: False) -> RunResult:
        """Trains until a limit is reached or `interrupted` returns true.

        Raises:
            FeatureFrontendError: The checkpoint does not fit, images cannot be read, or the loss is not finite.
        """
        trainer, options = self._trainer, self._options
        if options.resume:
            self._resume()
        self._started = time.monotonic()
        deadline = None if options.minutes is None else self._started + 60 * options.minutes
        if self._processes.is_first and options.output is not None:
            with writing(options.output):
                options.output.mkdir(parents=True, exist_ok=True)
            self._log = RunLog(options.output, trainer.step)
        if trainer.step == 0:
            self._validate()
        stopped = False
        last_validated = last_saved = trainer.step
        last_saved_s = self._started
        with tqdm(
            total=options.steps,
            initial=trainer.step,
            unit="step",
            disable=None if self._processes.is_first else True,
            smoothing=0.05,
        ) as bar:
            reports: list[StepReport] = []
            while options.steps is None or trainer.step < options.steps:
                stopped = self._processes.any(interrupted())
                if stopped or self._processes.any(deadline is not None and time.monotonic() >= deadline):
                    break
                reports.append(trainer.train_step())
                bar.update()
                if trainer.step % _LOG_EVERY == 0:
                    bar.set_postfix(loss=f"{reports[-1].loss:.3f}", success=f"{reports[-1].success:.3f}")
                    self._log_training(reports)
                    reports = []
                if trainer.step % options.validate_every == 0:
                    self._validate()
                    last_validated = trainer.step
                if trainer.step == last_validated or time.monotonic() - last_saved_s >= options.save_every_s:
                    self._save()
                    last_saved, last_saved_s = trainer.step, time.monotonic()
        is_to_validate = not stopped and trainer.step != last_validated
        if is_to_validate:
            self._validate()
        if is_to_validate or trainer.step != last_saved:
            self._save()
        if self._log is not None:
            self._log.close()
        return self._finish(stopped)

    def dry_run(self) -> StepReport:
        """Runs two steps and a validation on at most two pairs; writes nothing."""
        for _ in range(_DRY_RUN_STEPS):
            report = self._trainer.train_step()
        if self._pairs:
            self._score(self._pairs[:2])
        return report

    def _score(self, pairs: Sequence[HomographyPair]) -> ValidationScore:
        return validate(self._trainer.average, pairs, self._processes.device, self._options.keypoints)

    def _validate(self) -> None:
        """Scores the averaged weights in the first process and keeps them if they are the best."""
        if not self._processes.is_first:
            return
        step, progress = self._trainer.step, self._progress
        overall = float("nan")
        values: dict[str, float] = {}
        if self._pairs:
            score = self._score(self._pairs)
            overall, values = self._worth(score), score.as_dict()
            if step == 0:
                progress.before = values
            if self._log is not None:
                self._log.add("validation", step, {**values, "overall": overall})
            shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
            tqdm.write(f"step {step}: {shown}")
            sys.stdout.flush()
        best = self._worth(ValidationScore(**progress.best)) if progress.best else -1.0
        if not self._pairs or overall > best:
            progress.best, progress.best_step = values, step
            weights = self._trainer.average.state_dict()
            progress.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}

    def _worth(self, score: ValidationScore) -> float:
        return float(getattr(score, self._trainer.recipe.CRITERION))

    def _log_training(self, reports: Sequence[StepReport]) -> None:
        if self._log is None:
            return
        values = [report.as_dict() for report in reports]
        means = {name: sum(value[name] for value in values) / len(values) for name in values[0]}
        self._log.add("training", self._trainer.step, {**means, "seconds": self._seconds()})

    def _seconds(self) -> float:
        return self._progress.seconds + time.monotonic() - self._started

    def _save(self) -> None:
        if not self._processes.is_first or self._options.output is None:
            return
        progress = {**vars(self._progress), "seconds": self._seconds()}
        state: dict[str, Any] = {"trainer": self._trainer.state_dict(), "progress": progress}
        save_checkpoint(self._options.output / CHECKPOINT_NAME, state)
        save_curves(self._options.output / "curves.png", read_log(self._options.output / "log.jsonl"))

    def _resume(self) -> None:
        if self._options.output is None:
            raise SettingsError("a run that writes nothing cannot be resumed; expected an output folder")
        path = self._options.output / CHECKPOINT_NAME
        # The file needs to exist only on the first process's machine.
        state = self._processes.from_first(load_checkpoint(path) if self._processes.is_first else {})
        self._trainer.load_state_dict(state["trainer"], str(path))
        self._progress = _Progress(**state["progress"])

    def _finish(self, stopped: bool) -> RunResult:
        progress, trainer, output = self._progress, self._trainer, self._options.output
        before, after = (ValidationScore(**values) if values else None for values in (progress.before, progress.best))
        result = RunResult(trainer.step, stopped, before, after, progress.best_step)
        if stopped or output is None or not self._processes.is_first:
            return result
        device = torch.cuda.get_device_name() if self._processes.device.type == "cuda" else "CPU"
        card = ModelCard(
            model=trainer.settings.model,
            architecture=trainer.recipe.ARCHITECTURE,
            parameters=sum(parameter.numel() for parameter in trainer.network.parameters()),
            step=progress.best_step,
            hours=self._seconds() / 3600,
            processes=self._processes.count,
            device=device,
            settings=trainer.settings.as_dict(),
            before=progress.before,
            after=progress.best,
            commit=git_commit(),
            torch_version=torch.__version__,
            **vars(self._provenance),
        )
        result.weights = write_model(output, card, progress.best_weights)
        return result
