"""A worker's progress, stored where its supervisor can read it even after the worker has died."""

from __future__ import annotations

import mmap
import struct
from dataclasses import astuple, dataclass
from pathlib import Path

__all__ = ["MAX_INPUT_BYTES", "Count", "State"]

MAX_INPUT_BYTES = 1 << 18
_HEAD = struct.Struct("<II?")
_COUNT = struct.Struct("<QQQd")


@dataclass
class Count:
    """What became of one parser's inputs.

    Attributes:
        executions: All of them.
        taken: Those that led to a result.
        refused: Those that led to a documented error.
        seconds: Since the first one.
    """

    executions: int = 0
    taken: int = 0
    refused: int = 0
    seconds: float = 0.0


class State:
    """A file in shared memory: a count for each parser, and the input that is being executed.

    Args:
        path: The file; made where it is not there.
        parsers: How many there are.
    """

    def __init__(self, path: Path, parsers: int) -> None:
        self._parsers = parsers
        self._data = _HEAD.size + parsers * _COUNT.size
        if not path.exists():
            path.write_bytes(bytes(self._data + MAX_INPUT_BYTES))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def begin(self, parser: int, data: bytes) -> None:
        """An input of the parser of this number is about to be executed."""
        kept = data[:MAX_INPUT_BYTES]
        self._memory[self._data : self._data + len(kept)] = kept
        _HEAD.pack_into(self._memory, 0, parser, len(kept), True)

    def end(self, parser: int, count: Count) -> None:
        """It has been."""
        _COUNT.pack_into(self._memory, _HEAD.size + parser * _COUNT.size, *astuple(count))
        _HEAD.pack_into(self._memory, 0, parser, 0, False)

    def count(self, parser: int) -> Count:
        """What became of the inputs of the parser of this number."""
        return Count(*_COUNT.unpack_from(self._memory, _HEAD.size + parser * _COUNT.size))

    @property
    def executions(self) -> int:
        """Of all parsers."""
        return sum(self.count(number).executions for number in range(self._parsers))

    @property
    def running(self) -> tuple[int, bytes] | None:
        """Number of the parser and the input that is being executed; None between two."""
        parser, length, is_running = _HEAD.unpack_from(self._memory)
        return (parser, bytes(self._memory[self._data : self._data + length])) if is_running else None
