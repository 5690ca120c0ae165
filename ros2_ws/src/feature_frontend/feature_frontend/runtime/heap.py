"""Tunes the C library's allocator for this process. Only programs such as the node should do so, never libraries."""

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
# Consecutive frames of one model and size: until all memory a frame needs is allocated; until a new size is permanent.
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
    """How this process has configured its heap.

    Attributes:
        is_kept: Whether the process keeps freed memory.
        slack: Bytes of free memory beyond what a frame needs.
    """

    is_kept = False
    slack = 0


def restart_without_thread_caches() -> None:
    """Restarts this process's program, with the same pid, without glibc's thread caches of small blocks; then returns.

    A block in a thread cache counts as used and keeps the free memory on both sides of it apart. torch allocates
    aligned memory, which leaves such a small block beside each activation map; if one lies in the gap left by a map,
    the next map needs new memory, so that a process that runs for days keeps growing by a map now and then. Only the
    environment at program start can switch these caches off. Call this first, in a program, never in a library.

    The user's MALLOC_* variables or GLIBC_TUNABLES take precedence. Other C libraries are not affected.
    """
    if os.environ.get("GLIBC_TUNABLES") == _WITHOUT_THREAD_CACHES:
        # Child processes such as a compiler must not inherit it.
        del os.environ["GLIBC_TUNABLES"]
    elif not _is_set_by_user() and _glibc() is not None:
        os.environ["GLIBC_TUNABLES"] = _WITHOUT_THREAD_CACHES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def keep_freed_memory() -> bool:
    """Makes glibc keep up to 1 GiB of freed memory for the next frame. Returns whether it does.

    By default every block over a threshold (128 KiB at first, 32 MiB at most) is taken from the kernel and returned to
    it, for each image message, published message and large tensor of every frame. The kernel zeroes it page by page on
    first touch, which takes longer than the work on it. Every frame needs about the same memory, so returning it does
    not pay. Call this before other threads start and before torch allocates.

    The user's MALLOC_* variables or GLIBC_TUNABLES take precedence. Other C libraries are not affected.
    """
    library = _glibc()
    if _is_set_by_user() or library is None:
        return False
    # One arena: further arenas consist of 64 MiB pieces, too small for the tensors, which would then be mapped anyway.
    # No fast bins: a small block in them is not merged with the free memory around it.
    wanted = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_MXFAST, 0))
    _Heap.is_kept = all(library.mallopt(option, value) == 1 for option, value in wanted)
    return _Heap.is_kept


def reserve_slack() -> int:
    """Grows the heap by as much as is free in it now, at most 256 MiB. Returns by how many bytes it has grown.

    Between two frames the free memory is what a frame needs, plus what loading has left. The placement of a frame's
    blocks depends on messages that come and go meanwhile; a message in the place of an activation map costs the memory
    of a map. With the slack it does not, and memory reaches its final size after seconds instead of hours. Does nothing
    if freed memory is not kept.
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
    # Frames of one kind never leave exactly the same memory free: a little more is no reason to grow again.
    block = library.malloc(size) if slack > _Heap.slack * 1.25 else None
    if block is None:
        return 0
    # Free memory that has never been touched is not resident; memory use would grow later, frame by frame.
    ctypes.memset(block, 0, size)
    library.free(block)
    _Heap.slack = slack
    return int(library.mallinfo2().arena - before.arena)


class HeapReserve:
    """Reserves slack once all memory that a frame needs has been allocated, and again if that changes.

    A few images of another size, from a second camera or an attacker, do not count as a change: the memory they leave
    is not what a frame needs. Not thread-safe.

    Args:
        reserve: Called to reserve slack.
    """

    def __init__(self, reserve: Callable[[], object] = reserve_slack) -> None:
        self._reserve = reserve
        self._latest: tuple[Hashable, Hashable] | None = None
        self._reserved_for: tuple[Hashable, Hashable] | None = None
        self._count = 0

    def note(self, model: Hashable, size: Hashable) -> None:
        """Records a frame: an image of `size`, processed by `model`."""
        kind = model, size
        self._count = self._count + 1 if kind == self._latest else 1
        self._latest = kind
        is_other_size = self._reserved_for is not None and self._reserved_for[0] == model
        if kind != self._reserved_for and self._count == (_RESIZED_FRAMES if is_other_size else _SETTLED_FRAMES):
            self._reserve()
            self._reserved_for = kind


def give_back_freed_memory() -> bool:
    """Returns freed memory to the kernel once, for example after a model is unloaded. Returns whether there was any."""
    library = _glibc()
    _Heap.slack = 0
    return library is not None and library.malloc_trim(0) == 1


def _is_set_by_user() -> bool:
    return any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")


def _glibc() -> ctypes.CDLL | None:
    """The GNU C library of this process; None if it uses another C library."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
