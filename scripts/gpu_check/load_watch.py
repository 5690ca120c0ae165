"""GPU load during a measurement, from nvidia-smi."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from typing_extensions import Self

__all__ = ["CardLoad", "CardWatch"]

_PERIOD_MS = 200
_STOP_S = 2.0


@dataclass(frozen=True)
class CardLoad:
    """Load over a period.

    Attributes:
        busy: Median utilisation, [0, 1].
        memory_mib: Maximum GPU memory used by all processes.
    """

    busy: float
    memory_mib: float

    def __str__(self) -> str:
        return f"card {self.busy:.0%} busy, {self.memory_mib:.0f} MiB"


class CardWatch:
    """Samples while the context is active; `load` is None without a GPU."""

    def __init__(self, device: str) -> None:
        self._is_on = device != "cpu"
        self._process: subprocess.Popen[bytes] | None = None
        self._open = ExitStack()
        self.load: CardLoad | None = None

    def __enter__(self) -> Self:
        if self._is_on:
            query = [
                "--query-gpu=utilization.gpu,memory.used",
                "--format=csv,noheader,nounits",
                "-lms",
                str(_PERIOD_MS),
            ]
            try:
                output = self._open.enter_context(tempfile.TemporaryFile("w+"))
                self._process = subprocess.Popen(["nvidia-smi", *query], stdout=output)
                self._output = output
            except OSError:
                self._process = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._output.seek(0)
            rows = [line.split(",") for line in self._output.read().splitlines() if line.count(",") == 1]
            samples = [(float(busy), float(used)) for busy, used in rows if busy.strip().isdecimal()]
            if samples:
                self.load = CardLoad(
                    statistics.median(busy for busy, _ in samples) / 100, max(used for _, used in samples)
                )
        self._open.close()
