"""Atomic files: checkpoints and weights are written completely or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from feature_frontend.errors import WeightsError

__all__ = ["load_checkpoint", "save_checkpoint", "save_weights", "write_atomically", "writing"]

_FORMAT = 1


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Converts errors of writing a run's file.

    Raises:
        WeightsError: The file cannot be written, for example because the disk is full.
    """
    try:
        yield
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}; free space or see to the disk; what was saved "
        msg += "before is whole, and train --resume goes on from there"
        raise WeightsError(msg) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a temporary file next to `path` and renames it: readers of `path` see the old or the new file.

    Raises:
        WeightsError: The file cannot be written, for example because the disk is full; the old file stays.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
            # Files of mkstemp are readable by the owner only, but these are meant to be passed on.
            umask = os.umask(0)
            os.umask(umask)
            partial.chmod(0o666 & ~umask)
            partial.replace(path)
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Saves the state of a run.

    Raises:
        WeightsError: It cannot be written; the previous checkpoint stays.
    """
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, **state}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Loads a file of `save_checkpoint` onto the CPU without executing code from it.

    Raises:
        WeightsError: The file does not exist or is not a checkpoint of a run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # torch does not verify the checksums that it writes.
            damaged = archive.testzip()
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files can raise anything
        reason = (str(error).splitlines() or [""])[0]
        raise WeightsError(f"cannot resume from {path}: {reason}") from error
    if damaged:
        raise WeightsError(
            f"cannot resume from {path}: {damaged} in it is damaged; start a new run, from weights with --init"
        )
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise WeightsError(
            f"{path} is not a checkpoint of a training run (format {_FORMAT}); to begin from weights use --init"
        )
    return state


def save_weights(path: Path, state: Mapping[str, torch.Tensor]) -> str:
    """Saves a network's tensors as safetensors; returns the SHA-256 of the data.

    Raises:
        WeightsError: The Python package safetensors is missing, or the file cannot be written.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise WeightsError(f"writing {path} needs the Python package safetensors: pip install safetensors") from error
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    write_atomically(path, data)
    return hashlib.sha256(data).hexdigest()
