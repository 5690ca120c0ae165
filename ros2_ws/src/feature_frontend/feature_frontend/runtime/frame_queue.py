"""The queue between the thread that receives images and the one that processes them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

__all__ = ["FrameQueue"]

T = TypeVar("T")


class FrameQueue(Generic[T]):
    """First in, first out, with a bound: the newest item wins a full queue.

    Args:
        capacity: Most items that wait; None for no bound.
    """

    def __init__(self, capacity: int | None) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, item: T) -> T | None:
        """Adds an item; returns the oldest one if it had to make room."""
        with self._changed:
            dropped = None
            if self._capacity is not None and len(self._items) >= self._capacity:
                dropped = self._items.popleft()
            self._items.append(item)
            self._changed.notify()
            return dropped

    def get(self) -> T | None:
        """Waits for the oldest item and takes it; None once the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_closed)
            return None if self._is_closed else self._items.popleft()

    def close(self) -> list[T]:
        """Lets every waiting and future `get` return None; returns the items that nobody has taken."""
        with self._changed:
            self._is_closed = True
            left = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return left

    def __len__(self) -> int:
        """Number of items that wait."""
        with self._changed:
            return len(self._items)
