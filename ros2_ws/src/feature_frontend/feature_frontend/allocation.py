"""How this process uses the C library's allocator: a choice of programs, such as the node, not of libraries."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["give_back_freed_memory", "keep_freed_memory"]

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
    library = _glibc()
    if is_set or library is None:
        return False
    # One arena: the others are made of pieces of 64 MiB, too small for the tensors, which would be mapped after all.
    wanted = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEPT_BYTES))
    return all(library.mallopt(option, value) == 1 for option, value in wanted)


def give_back_freed_memory() -> bool:
    """Gives freed memory back to the kernel once, such as that of a model that is gone; whether there was any."""
    library = _glibc()
    return library is not None and library.malloc_trim(0) == 1


def _glibc() -> ctypes.CDLL | None:
    """The GNU C library of this process; None where another one is used."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
