"""Matches images with their masks by stamp."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["MaskSynchronizer", "PairedMask"]

F = TypeVar("F")
M = TypeVar("M")
_NS_PER_MS = 1e6
_MS_PER_S = 1e3


@dataclass(frozen=True)
class PairedMask(Generic[M]):
    """The mask that was available for an image when its wait ended.

    Attributes:
        mask: The image's own mask, or the latest earlier one; None if there is none up to the image's stamp.
        age_ms: Stamp of the image minus stamp of the mask; 0 for its own mask.
        cause: Why it is not the image's own mask; empty for its own.
    """

    mask: M | None
    age_ms: float
    cause: str


@dataclass(frozen=True)
class _Waiting(Generic[F]):
    image: F
    stamp_ns: int
    deadline_s: float
    too_late: str


class MaskSynchronizer(Generic[F, M]):
    """Holds images until their masks arrive, and masks until their images arrive.

    Masks are expected in the order of their stamps, from one publisher. A mask with a later stamp therefore means that
    the image's own mask will not come: a segmentation slower than the camera skips images. A stamp that goes back
    means a new time segment (a looping bag): waiting images are released, and older masks are discarded.

    Not thread-safe.

    Args:
        capacity: Maximum number of images, and of masks, that are held; the oldest are released first.
        max_bytes: Maximum size of the held masks in bytes; the newest is always held.
        size: Returns the size of a mask in bytes.
    """

    def __init__(self, capacity: int, max_bytes: float = math.inf, size: Callable[[M], int] = lambda _mask: 0) -> None:
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._size = size
        self._waiting: deque[_Waiting[F]] = deque()
        self._released: list[tuple[F, PairedMask[M]]] = []
        self._masks: dict[int, M] = {}  # by stamp in ns, in rising order
        self._refused: dict[int, M] = {}  # by stamp in ns, in order of arrival
        self._latest_ns: int | None = None
        self._masks_restarted = False

    def add_image(self, image: F, stamp_ns: int, received_s: float, timeout_ms: float) -> None:
        """Adds an image that arrived at `received_s` on the monotonic clock and waits for up to `timeout_ms`."""
        if self._latest_ns is not None and stamp_ns < self._latest_ns:
            self._release_unmatched(len(self._waiting), "time went back before its mask came")
            if not self._masks_restarted:
                self._masks.clear()
        self._latest_ns, self._masks_restarted = stamp_ns, False
        too_late = f"its mask did not come within {timeout_ms:g} ms"
        self._waiting.append(_Waiting(image, stamp_ns, received_s + timeout_ms / _MS_PER_S, too_late))
        if len(self._waiting) > self._capacity:
            self._release_unmatched(1, f"its mask had not come when {self._capacity} later images waited")

    def add_mask(self, mask: M, stamp_ns: int) -> int:
        """Adds the mask of the image with this stamp; replaces a mask with the same stamp.

        Returns:
            Number of older masks that were discarded unused to make room.
        """
        if self._masks and stamp_ns < self._newest_ns():
            self._masks.clear()
            self._masks_restarted = True
        self._masks[stamp_ns] = mask
        self._refused.pop(stamp_ns, None)
        removed = 0
        while len(self._masks) > 1 and (len(self._masks) > self._capacity or self._num_bytes() > self._max_bytes):
            del self._masks[next(iter(self._masks))]
            removed += 1
        return removed

    def refuse_mask(self, mask: M, stamp_ns: int) -> None:
        """Adds a malformed mask: it affects only the image with its stamp, unless a good mask arrived first."""
        if stamp_ns not in self._masks:
            self._refused[stamp_ns] = mask
        if len(self._refused) > self._capacity:
            del self._refused[next(iter(self._refused))]

    def release(self, now_s: float) -> list[tuple[F, PairedMask[M]]]:
        """The images whose wait is over at `now_s` on the monotonic clock, with their masks, in order of arrival."""
        while self._waiting:
            first = self._waiting[0]
            if self._newest_ns() >= first.stamp_ns or first.stamp_ns in self._refused:
                self._release_unmatched(1, "a later image's mask came instead of its own")
            elif first.deadline_s <= now_s:
                self._release_unmatched(1, first.too_late)
            else:
                break
        released, self._released = self._released, []
        return released

    def clear(self) -> list[F]:
        """Discards all masks and images; returns the images."""
        left = [image for image, _ in self._released] + [waiting.image for waiting in self._waiting]
        self._released.clear()
        self._waiting.clear()
        self._masks.clear()
        self._refused.clear()
        return left

    @property
    def next_deadline_s(self) -> float | None:
        """When to call `release` again if nothing arrives before; None if no image waits."""
        return self._waiting[0].deadline_s if self._waiting else None

    def _release_unmatched(self, count: int, cause: str) -> None:
        """Ends the wait of the first `count` images; `cause` says why an image has no mask of its own."""
        for _ in range(count):
            first = self._waiting.popleft()
            self._released.append((first.image, self._pair(first.stamp_ns, cause)))

    def _pair(self, stamp_ns: int, cause: str) -> PairedMask[M]:
        if stamp_ns in self._refused:
            return PairedMask(self._refused.pop(stamp_ns), 0.0, "")
        up_to_image = [stamp for stamp in self._masks if stamp <= stamp_ns]
        if not up_to_image:
            return PairedMask(None, 0.0, cause)
        *outdated, found_ns = up_to_image
        for stamp in outdated:
            del self._masks[stamp]
        age_ms = (stamp_ns - found_ns) / _NS_PER_MS
        return PairedMask(self._masks[found_ns], age_ms, cause if age_ms else "")

    def _num_bytes(self) -> int:
        return sum(map(self._size, self._masks.values()))

    def _newest_ns(self) -> float:
        return next(reversed(self._masks), float("-inf"))
