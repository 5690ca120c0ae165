"""Parallel tests by pytest-xdist: how many run at a time, and how a test gets the machine to itself."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["Turns", "is_alone", "pytest_runtest_protocol", "pytest_xdist_auto_num_workers", "spread_threads"]

_TURNS = pytest.StashKey["Turns"]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What `-n auto` means: one more than cores, for tests often wait; none (all in this process) for a few tests."""
    options = config.option
    is_part = options.keyword or options.markexpr not in {"", "campaign"}
    if is_part or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return 0
    return len(os.sched_getaffinity(0)) + 1


def spread_threads(config: pytest.Config) -> None:
    """Gives each worker, and the processes that its tests start, one core."""
    if getattr(config.option, "numprocesses", None):
        for library in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
            os.environ.setdefault(library, "1")


class Turns:
    """Lets the workers' tests run beside each other, but for those marked `alone`.

    Args:
        folder: That the workers of this run share.
    """

    def __init__(self, folder: Path) -> None:
        self._gate, self._machine = ((folder / name).open("w", encoding="ascii") for name in ("gate", "machine"))
        self._is_alone = False

    def begin(self, alone: bool) -> None:
        """Returns when the test may run."""
        if self._is_alone and alone:
            return
        # Whoever waits for the machine holds the gate: no other test begins before it.
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        fcntl.flock(self._machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._gate, fcntl.LOCK_UN)
        self._is_alone = alone

    def end(self) -> None:
        """Lets others have the machine."""
        fcntl.flock(self._machine, fcntl.LOCK_UN)
        self._is_alone = False


def is_alone(item: pytest.Item | None) -> bool:
    """Whether the test is marked so."""
    return item is not None and item.get_closest_marker("alone") is not None


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    stash, alone = item.config.stash, is_alone(item)
    if _TURNS not in stash:
        stash[_TURNS] = Turns(Path(item.config.option.basetemp).parent)
    turns = stash[_TURNS]
    turns.begin(alone)
    yield
    if not (alone and is_alone(nextitem)):
        turns.end()
