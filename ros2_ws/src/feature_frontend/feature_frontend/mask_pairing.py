"""Masks that arrive beside their images, joined with them by stamp."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["MaskPairing", "PairedMask"]

T = TypeVar("T")
_NS_PER_MS = 1e6


@dataclass(frozen=True)
class PairedMask(Generic[T]):
    """What there was for an image when the waiting ended.

    Attributes:
        mask: The image's own, else the latest one before it; None where there is none up to the image's stamp.
        age_ms: Stamp of the image minus that of the mask; 0 for its own.
        is_own: Whether it is the image's own.
        is_overtaken: Whether a mask of a later stamp was there instead, after which the image's own does not come.
    """

    mask: T | None
    age_ms: float
    is_own: bool
    is_overtaken: bool


class MaskPairing(Generic[T]):
    """Holds masks until their images ask. One thread puts, another one takes.

    Masks are expected in the order of their stamps, as one publisher sends them; so a mask of a later stamp says that
    those missing before it will not come, and a stamp that goes back says that time began anew (a bag that loops): what
    was held is then forgotten.

    Args:
        capacity: Most masks held; the oldest go first.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._masks: dict[int, T] = {}  # by stamp in ns, in rising order
        self._last_taken_ns: int | None = None
        self._began_anew = False
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, stamp_ns: int, mask: T) -> None:
        """Adds the mask of the image with this stamp; one of the same stamp is replaced."""
        with self._changed:
            if self._masks and stamp_ns < self._newest_ns():
                self._masks.clear()
                self._began_anew = True
            self._masks[stamp_ns] = mask
            if len(self._masks) > self._capacity:
                del self._masks[next(iter(self._masks))]
            self._changed.notify_all()

    def take(self, stamp_ns: int, deadline_s: float) -> PairedMask[T]:
        """Waits for the mask of the image with this stamp; masks before the one returned are forgotten.

        Args:
            stamp_ns: Of the image.
            deadline_s: When the waiting ends at the latest, on the monotonic clock.
        """
        with self._changed:
            if self._last_taken_ns is not None and stamp_ns < self._last_taken_ns and not self._began_anew:
                self._masks.clear()
            self._last_taken_ns, self._began_anew = stamp_ns, False
            self._changed.wait_for(
                lambda: self._is_closed or self._newest_ns() >= stamp_ns, max(deadline_s - time.monotonic(), 0.0)
            )
            is_overtaken = self._newest_ns() > stamp_ns
            up_to_image = [stamp for stamp in self._masks if stamp <= stamp_ns]
            if not up_to_image:
                return PairedMask(None, 0.0, is_own=False, is_overtaken=is_overtaken)
            *outdated, found_ns = up_to_image
            for stamp in outdated:
                del self._masks[stamp]
            is_own = found_ns == stamp_ns
            age_ms = (stamp_ns - found_ns) / _NS_PER_MS
            return PairedMask(self._masks[found_ns], age_ms, is_own, is_overtaken and not is_own)

    def close(self) -> None:
        """Ends every waiting, now and in future."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        """Number of masks held."""
        with self._changed:
            return len(self._masks)

    def _newest_ns(self) -> float:
        return next(reversed(self._masks), float("-inf"))
