"""Parsers with faults, one of each kind, to test whether fuzzing finds them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from types import MappingProxyType

from feature_frontend.errors import SourceError
from tests.fuzz.parser import Parser

__all__ = ["FAULTS", "PARSERS"]

_MIB = 1 << 20


def _refuse(text: str) -> None:
    raise SourceError(text)


def _fail() -> None:
    raise AssertionError


def _spend() -> None:
    end_s = time.process_time() + 0.1
    while time.process_time() < end_s:
        pass


def _take_memory() -> None:
    bytearray(600 * _MIB)[::4096] = b"x" * (600 * _MIB // 4096)


def _guarded(fault: Callable[[], object]) -> Callable[[bytes], None]:
    """A parser that refuses every second input, and has a fault for those that begin with "F"."""

    def run(data: bytes) -> None:
        if data.startswith(b"F"):
            fault()
        elif len(data) % 2:
            _refuse("an odd number of bytes; expected an even one")

    return run


# By name of the parser: how the cause of its finding begins, and the fault.
FAULTS: MappingProxyType[str, tuple[str, Callable[[], object]]] = MappingProxyType(
    {
        "another-error": ("ZeroDivisionError-planted", lambda: 1 // 0),
        "assertion": ("AssertionError-planted", _fail),
        "long-text": ("text-SourceError", lambda: _refuse("x" * 801)),
        "many-lines": ("text-SourceError", lambda: _refuse("a\nb\nc\nd")),
        "logged": ("text-logged", lambda: logging.getLogger("feature_frontend.x").warning("x%s", "\x07")),
        "console": ("console", lambda: os.write(2, b"libpng warning")),
        "slow": ("slow", _spend),
        "memory": ("memory", _take_memory),
        "huge-allocation": ("MemoryError", lambda: bytearray(1 << 40)),
        "hang": ("hang", threading.Event().wait),
        "abort": ("death-sigabrt", os.abort),
        "exit": ("death", lambda: os._exit(3)),
    }
)
PARSERS = {
    name: Parser(name, _guarded(fault), (SourceError,), seconds=0.05 if name == "slow" else 60.0)
    for name, (_, fault) in FAULTS.items()
}
