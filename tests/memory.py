"""A process's memory use, for tests that measure their own."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["own_mib", "peak_mib", "resident_mib"]


def peak_mib(pid: int | None = None) -> float:
    """Most resident memory so far of a process (default: this one), MiB.

    Not `getrusage`: its peak outlives `exec`, so that a small process started by a large one reports the large one's.
    """
    return _status_mib("VmHWM", pid)


def own_mib(pid: int | None = None) -> float:
    """Resident memory of a process now without what it maps of files and of other processes, MiB.

    A subscriber's resident memory also counts the publisher's shared memory, page after page until all of it was used.
    """
    return _status_mib("RssAnon", pid)


def resident_mib(pid: int | None = None) -> float:
    """Resident memory of a process (default: this one) now, MiB."""
    return _status_mib("VmRSS", pid)


def _status_mib(entry: str, pid: int | None) -> float:
    status = Path(f"/proc/{os.getpid() if pid is None else pid}/status").read_text(encoding="ascii", errors="replace")
    return int(status.split(f"{entry}:")[1].split()[0]) / 1024
