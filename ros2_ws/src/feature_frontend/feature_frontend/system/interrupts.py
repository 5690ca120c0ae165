"""Ctrl-C in tools: one orderly shutdown, whatever process started them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

__all__ = ["interruptible", "uninterrupted"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """The first SIGINT or SIGTERM raises KeyboardInterrupt inside the block; later ones are ignored.

    A second signal must not break the orderly shutdown that the first has started. Outside the main thread, which
    alone can handle signals, nothing changes.
    """

    def interrupt(*_: object) -> NoReturn:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Set explicitly, as shells start background processes with SIGINT ignored.
    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """SIGINT and SIGTERM that arrive inside the block take effect at its end.

    For two steps that belong together, such as to start a process and to remember it. Only the main thread handles
    signals: in any other, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def remember(number: int, _: Any) -> None:
        arrived.append(number)

    before = {number: signal.signal(number, remember) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in dict.fromkeys(arrived):
            signal.raise_signal(late)
