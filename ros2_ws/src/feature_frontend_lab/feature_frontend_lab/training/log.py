"""The run's log: one JSON object a line, and TensorBoard's files where that is installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feature_frontend_lab.training.checkpoint import write_atomically, writing

__all__ = ["RunLog", "read_log"]


class RunLog:
    """Appends numbers to `log.jsonl`; in a resumed run, lines after the checkpoint's step go first.

    Args:
        folder: Of the run; exists.
        step: The step from which the run goes on.
    """

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / "log.jsonl"
        kept = [line for line in read_log(path) if line["step"] <= step] if step else []
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._path = path
        with writing(path):
            self._file = path.open("a", encoding="utf-8")
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Adds values of one step; `kind` is "training" or "validation"."""
        line = {"kind": kind, "step": step, **{name: round(value, 6) for name, value in values.items()}}
        with writing(self._path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Closes the files."""
        with writing(self._path):
            self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; those that are damaged, such as a last one that an interruption cut off, are left out."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int) and "kind" in line:
            lines.append(line)
    return lines
