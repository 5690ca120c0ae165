"""The queue between the thread that receives images and the one that processes them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

__all__ = ["FrameQueue"]

T = TypeVar("T")


class FrameQueue(Generic[T]):
    """A bounded FIFO queue: if it is full, a new item replaces the oldest.

    Args:
        capacity: Maximum number of items that wait; None for no limit.
    """

    def __init__(self, capacity: int | None) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, item: T) -> T | None:
        """Adds an item; returns the oldest item if the queue was full."""
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
        """Makes every waiting and future `get` return None; returns the items that were still waiting."""
        with self._changed:
            self._is_closed = True
            left = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return left

    def __len__(self) -> int:
        """Number of waiting items."""
        with self._changed:
            return len(self._items)
