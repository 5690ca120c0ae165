"""FastDDS's segments of shared memory that processes have left which were killed."""

from __future__ import annotations

import fcntl
import re
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["FOLDER", "remove_abandoned"]

FOLDER = Path("/dev/shm")
# Version 2 (Humble, Jazzy) and 3 (Kilted and later). The owner of a segment holds this file's lock as long as it lives.
_LOCK = re.compile(r"fast(?:rtps|dds)_[0-9a-f]{16}_el")
# A process makes the file first and locks it then.
_LEAST_AGE_S = 10.0


def remove_abandoned(folder: Path = FOLDER) -> str:
    """Removes the segments that no process owns; what was removed, in words, empty for nothing.

    As `fastdds shm clean` does: what SIGKILL has left, 70 MB for each process with this package's profile, FastDDS
    removes only where another process has received from it and lives on. Whoever still reads such a segment keeps its
    memory. Files of other users are left alone.
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
    """Bytes of a segment that is removed; raises OSError where it is not abandoned."""
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
