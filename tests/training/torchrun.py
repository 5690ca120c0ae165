"""A training script in two processes of torchrun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

__all__ = ["check_equal_weights_in_two_processes"]


def check_equal_weights_in_two_processes(script: str, images: Path, folder: Path) -> None:
    """Runs `script IMAGES FOLDER`, saving "losses" and "weights" to FOLDER/RANK.pt: the weights must be equal."""
    file = folder / "two.py"
    file.write_text(script, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(file), str(images), str(folder)], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    first, second = (_saved(folder / f"{rank}.pt") for rank in (0, 1))
    assert first["losses"] != second["losses"]
    assert first["weights"].keys() == second["weights"].keys()
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])


def _saved(path: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(path, weights_only=True)
    return saved
