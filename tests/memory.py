"""How much memory a process has needed, for tests that measure one of their own."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["peak_mib"]


def peak_mib(pid: int | None = None) -> float:
    """Most resident memory so far of a process (default: this one), MiB.

    Not `getrusage`: its peak outlives `exec`, so that a small process started by a large one reports the large one's.
    """
    status = Path(f"/proc/{os.getpid() if pid is None else pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
