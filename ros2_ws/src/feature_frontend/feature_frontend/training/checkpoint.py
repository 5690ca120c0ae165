"""Files that are whole or not there: the state of a run, and weights."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from feature_frontend.errors import WeightsError

__all__ = ["load_checkpoint", "save_checkpoint", "save_weights", "write_atomically"]

_FORMAT = 1


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file beside `path`, then gives it the name: whoever reads `path` sees the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        write(partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp's files are the owner's alone; these are meant to be handed on.
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)
        partial.replace(path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes the state of a run."""
    write_atomically(path, lambda partial: torch.save({"format": _FORMAT, **state}, partial))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote, onto the CPU. Executes nothing from the file.

    Raises:
        WeightsError: There is no such file, or it is no checkpoint of a run.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        msg = f"cannot resume from {path}: {error}"
        raise WeightsError(msg) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        msg = f"{path} is not a checkpoint of a training run (format {_FORMAT}); to begin from weights use --init"
        raise WeightsError(msg)
    return state


def save_weights(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Writes a network's tensors as safetensors.

    Raises:
        WeightsError: The Python package safetensors is missing.
    """
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        msg = f"writing {path} needs the Python package safetensors: pip install safetensors"
        raise WeightsError(msg) from error
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_atomically(path, lambda partial: save_file(tensors, partial))
