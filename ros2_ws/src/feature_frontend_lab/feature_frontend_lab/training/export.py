"""Exports a run: weights as safetensors, and a model card with their provenance."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from feature_frontend_lab.evaluation.reports.writing import markdown_code, markdown_text
from feature_frontend_lab.training.checkpoint import save_weights, write_atomically

__all__ = ["ModelCard", "git_commit", "write_model"]


@dataclass(frozen=True)
class ModelCard:
    """Provenance of a model.

    Attributes:
        model: Name of the model.
        architecture: Name, paper and input colours.
        parameters: Number of trained parameters.
        data: Training data.
        data_licence: Licence of those images, as stated by the user.
        initial: Initial weights; empty for random ones.
        step: Optimizer steps of the exported weights.
        hours: Training time including validation, over all resumed parts.
        processes: Number of training processes.
        device: Training device.
        settings: Settings of the run.
        validation_data: Images used for the metrics.
        before: Metrics before the first step.
        after: Metrics of the exported weights.
        command: Command line of the run.
        commit: Commit of this repository; with "+" if files were changed, empty if unknown.
        torch_version: Version of torch.
    """

    model: str
    architecture: str
    parameters: int
    data: str
    data_licence: str
    initial: str
    step: int
    hours: float
    processes: int
    device: str
    settings: Mapping[str, Any]
    validation_data: str
    before: Mapping[str, float]
    after: Mapping[str, float]
    command: str
    commit: str
    torch_version: str


def git_commit() -> str:
    """Commit of the checkout of this code, with a "+" if it was changed; empty outside a checkout."""
    folder = Path(__file__).parent
    try:
        # `git status` locks its index to refresh it; training that is killed then would leave the lock behind.
        commit, changes = (
            subprocess.run(
                ["git", "--no-optional-locks", *arguments], cwd=folder, capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changes else "")


def write_model(folder: Path, card: ModelCard, state: Mapping[str, torch.Tensor]) -> Path:
    """Writes NAME.safetensors, and the card as NAME.md and NAME.json; returns the path of the first."""
    weights = folder / f"{card.model}.safetensors"
    sha256 = save_weights(weights, state)
    facts = {
        **asdict(card),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "sha256": sha256,
    }
    write_atomically(folder / f"{card.model}.json", (json.dumps(facts, indent=2) + "\n").encode())
    write_atomically(folder / f"{card.model}.md", _markdown(card, facts).encode())
    return weights


def _markdown(card: ModelCard, facts: Mapping[str, Any]) -> str:
    pairs = card.settings["batch_size"] * card.settings["accumulate"] * card.processes
    rows = {
        "architecture": f"{card.architecture}, {card.parameters:,} parameters",
        "training data": markdown_text(card.data),
        "licence of the data": markdown_text(card.data_licence),
        "began with": markdown_text(card.initial or "random weights"),
        "steps": f"{card.step:,} of {pairs} pair(s)",
        "time": f"{card.hours:.2f} h on {card.processes} process(es), {card.device}",
        "date": facts["date"],
        "code": f"{card.commit or 'unknown commit'}, torch {card.torch_version}",
        "command": markdown_code(card.command),
        "SHA-256": f"`{facts['sha256']}`",
    }
    lines = [
        f"# {card.model}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
    ]
    if card.after:
        lines += [
            f"Validation on {markdown_text(card.validation_data)}:",
            "",
            "| metric | before | after |",
            "|---|---|---|",
        ]
        lines += [
            f"| {name} | {card.before.get(name, float('nan')):.3f} | {value:.3f} |"
            for name, value in card.after.items()
        ]
        lines.append("")
    lines += ["Settings:", "", "```json", json.dumps(card.settings, indent=2), "```", ""]
    return "\n".join(lines)
