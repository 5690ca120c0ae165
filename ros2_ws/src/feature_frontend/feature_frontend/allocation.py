"""How this process uses the C library's allocator: a choice of programs, such as the node, not of libraries."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["give_back_freed_memory", "keep_freed_memory", "restart_without_thread_caches"]

# glibc's <malloc.h>.
_M_MXFAST = 1
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
_KEPT_BYTES = 2**30
_WITHOUT_THREAD_CACHES = "glibc.malloc.tcache_count=0"


def restart_without_thread_caches() -> None:
    """Starts this process's program anew, under the same number, without glibc's caches of small blocks; then returns.

    A block that a thread keeps for itself counts as used and holds the free memory on both sides of it apart. torch
    asks for aligned memory, which leaves such a small block beside each activation map; one of them in the gap of a map
    and the next map needs new memory, so that a process of days grows by a map now and then. Only the environment
    that a program starts with can switch these caches off. To be called first, by a program, never by a library.

    A user's own MALLOC_* variables or GLIBC_TUNABLES stay in force. Other C libraries are left alone.
    """
    if os.environ.get("GLIBC_TUNABLES") == _WITHOUT_THREAD_CACHES:
        # Not for the programs that this one starts, such as a compiler.
        del os.environ["GLIBC_TUNABLES"]
    elif not _is_set_by_user() and _glibc() is not None:
        os.environ["GLIBC_TUNABLES"] = _WITHOUT_THREAD_CACHES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def keep_freed_memory() -> bool:
    """Lets glibc keep up to 1 GiB of freed memory for the next frame; whether it does so.

    By default every block over a threshold (128 KiB at first, 32 MiB at most) comes from the kernel and goes back to
    it, for each image message, each message published and each large tensor of each frame anew. The kernel zeroes it
    page by page on first touch, which takes longer than the work on it. Every frame needs about the same memory, so
    none of it is worth giving back. To be called before other threads start and before torch allocates.

    A user's own MALLOC_* variables or GLIBC_TUNABLES stay in force. Other C libraries are left alone.
    """
    library = _glibc()
    if _is_set_by_user() or library is None:
        return False
    # One arena: the others are made of pieces of 64 MiB, too small for the tensors, which would be mapped after all.
    # No fast bins: a small block in them is not joined with the free memory around it.
    wanted = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_MXFAST, 0))
    return all(library.mallopt(option, value) == 1 for option, value in wanted)


def give_back_freed_memory() -> bool:
    """Gives freed memory back to the kernel once, such as that of a model that is gone; whether there was any."""
    library = _glibc()
    return library is not None and library.malloc_trim(0) == 1


def _is_set_by_user() -> bool:
    return any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")


def _glibc() -> ctypes.CDLL | None:
    """The GNU C library of this process; None where another one is used."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
