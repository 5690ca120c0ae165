"""Removes FastDDS shared-memory segments left by killed processes."""

from __future__ import annotations

import fcntl
import re
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["FOLDER", "remove_abandoned"]

FOLDER = Path("/dev/shm")
# FastDDS 2 (Humble, Jazzy) and 3 (Kilted and later). The owner of a segment holds this file's lock while it lives.
_LOCK = re.compile(r"fast(?:rtps|dds)_[0-9a-f]{16}_el")
# A process creates the file before it locks it.
_LEAST_AGE_S = 10.0


def remove_abandoned(folder: Path = FOLDER) -> str:
    """Removes the segments that no process owns; returns a text that says what was removed, empty for nothing.

    Works like `fastdds shm clean`. A process killed by SIGKILL leaves 70 MB with this package's profile; FastDDS itself
    removes them only if a process that has received from it is still alive. Processes that still read such a segment
    keep its memory. Files of other users are not touched.
    """
    removed, size = 0, 0
    with suppress(OSError):
        for lock in folder.iterdir():
            if _LOCK.fullmatch(lock.name):
                with suppress(OSError):
                    size += _remove(lock)
                    removed += 1
    if not removed:
        return ""
    return f"removed {size / 1e6:.0f} MB of shared memory of {removed} process(es) that were killed"


def _remove(lock: Path) -> int:
    """Removes a segment and returns its bytes; raises OSError if it is in use."""
    segment = lock.with_name(lock.name.removesuffix("_el"))
    with lock.open("rb") as file:
        if time.time() - lock.stat().st_mtime < _LEAST_AGE_S:
            raise BlockingIOError
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = 0
        with suppress(FileNotFoundError):
            size = segment.stat().st_size
            segment.unlink()
        lock.unlink()
    return size
