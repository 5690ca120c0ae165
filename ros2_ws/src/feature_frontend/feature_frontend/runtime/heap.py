"""How this process uses the C library's allocator: a choice of programs, such as the node, not of libraries."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Hashable

__all__ = [
    "HeapReserve",
    "give_back_freed_memory",
    "keep_freed_memory",
    "reserve_slack",
    "restart_without_thread_caches",
]

# glibc's <malloc.h>.
_M_MXFAST = 1
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
_KEPT_BYTES = 2**30
_MOST_SLACK_BYTES = 2**28
# In a row, of one model and size: until all that a frame needs has been asked for; until another size is here to stay.
_SETTLED_FRAMES, _RESIZED_FRAMES = 3, 30
_WITHOUT_THREAD_CACHES = "glibc.malloc.tcache_count=0"


class _MallocInfo(ctypes.Structure):
    """glibc's struct mallinfo2, since 2.33."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


class _Heap:
    """What this process has asked of its heap.

    Attributes:
        is_kept: Whether freed memory stays.
        slack: Bytes of free memory beyond what a frame needs.
    """

    is_kept = False
    slack = 0


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
    _Heap.is_kept = all(library.mallopt(option, value) == 1 for option, value in wanted)
    return _Heap.is_kept


def reserve_slack() -> int:
    """Has the heap hold once more what is free in it now, 256 MiB at most; by how many bytes it has grown.

    Between two frames that is what a frame needs, and what loading has left. Where a frame's blocks come to lie depends
    on messages that come and go meanwhile, and an unlucky one in the place of an activation map costs the memory of a
    map: with the slack it does not, and memory is after seconds what it would be after hours. Does nothing where freed
    memory is not kept.
    """
    library = _glibc()
    if not _Heap.is_kept or library is None or not hasattr(library, "mallinfo2"):
        return 0
    library.mallinfo2.restype = _MallocInfo
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    before = library.mallinfo2()
    slack = min(before.fordblks - _Heap.slack, _MOST_SLACK_BYTES)
    size = before.fordblks + slack - _Heap.slack
    block = library.malloc(size) if slack > _Heap.slack else None
    if block is None:
        return 0
    # Free memory that nobody has touched yet is not resident, and would come later, frame by frame.
    ctypes.memset(block, 0, size)
    library.free(block)
    _Heap.slack = slack
    return int(library.mallinfo2().arena - before.arena)


class HeapReserve:
    """Reserves slack once all that a frame needs has been asked for, and again where that changes.

    A few images of another size, from a second camera or an attacker, are no change: what they leave is not what a
    frame needs. Not thread-safe.

    Args:
        reserve: Called where slack is due.
    """

    def __init__(self, reserve: Callable[[], object] = reserve_slack) -> None:
        self._reserve = reserve
        self._latest: tuple[Hashable, Hashable] | None = None
        self._reserved_for: tuple[Hashable, Hashable] | None = None
        self._count = 0

    def note(self, model: Hashable, size: Hashable) -> None:
        """Takes note of a frame processed by `model`, of an image of `size`."""
        kind = model, size
        self._count = self._count + 1 if kind == self._latest else 1
        self._latest = kind
        is_other_size = self._reserved_for is not None and self._reserved_for[0] == model
        if kind != self._reserved_for and self._count == (_RESIZED_FRAMES if is_other_size else _SETTLED_FRAMES):
            self._reserve()
            self._reserved_for = kind


def give_back_freed_memory() -> bool:
    """Gives freed memory back to the kernel once, such as that of a model that is gone; whether there was any."""
    library = _glibc()
    _Heap.slack = 0
    return library is not None and library.malloc_trim(0) == 1


def _is_set_by_user() -> bool:
    return any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")


def _glibc() -> ctypes.CDLL | None:
    """The GNU C library of this process; None where another one is used."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
