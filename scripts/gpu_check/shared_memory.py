"""How much memory processes can share here: ROS's messages and prepared training pairs pass through it."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["shared_memory_bytes"]

_FOLDER = Path("/dev/shm")


def shared_memory_bytes() -> int:
    """What is free of it; 0 where there is none."""
    return shutil.disk_usage(_FOLDER).free if _FOLDER.is_dir() else 0
