"""How this process uses the C library's allocator: a choice of programs, such as the node, not of libraries."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

# glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
_KEPT_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Lets glibc keep up to 1 GiB of freed memory for the next frame; whether it does so.

    By default every block over a threshold (128 KiB at first, 32 MiB at most) comes from the kernel and goes back to
    it, for each image message, each message published and each large tensor of each frame anew. The kernel zeroes it
    page by page on first touch, which takes longer than the work on it. Every frame needs about the same memory, so
    none of it is worth giving back. To be called before other threads start and before torch allocates.

    A user's own MALLOC_* variables or GLIBC_TUNABLES stay in force. Other C libraries are left alone.
    """
    is_set = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if is_set or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    # One arena: the others are made of pieces of 64 MiB, too small for the tensors, which would be mapped after all.
    wanted = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEPT_BYTES))
    return all(library.mallopt(option, value) == 1 for option, value in wanted)
