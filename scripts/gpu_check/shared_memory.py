"""Free shared memory, which ROS messages and prepared training pairs use."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["shared_memory_bytes"]

_FOLDER = Path("/dev/shm")


def shared_memory_bytes() -> int:
    """Free bytes; 0 if there is no shared memory."""
    return shutil.disk_usage(_FOLDER).free if _FOLDER.is_dir() else 0
