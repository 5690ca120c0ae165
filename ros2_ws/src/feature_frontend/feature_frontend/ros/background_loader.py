"""Loads one thing after another in a thread beside the executor; only the latest wish counts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["BackgroundLoader"]

WishT = TypeVar("WishT")
LoadedT = TypeVar("LoadedT")


# Told apart by identity: what was wished for, given up and wished for again is loaded again.
@dataclass(frozen=True, eq=False)
class _Request(Generic[WishT]):
    wish: WishT


class BackgroundLoader(Generic[WishT, LoadedT]):
    """Its methods are called by one thread.

    Args:
        name: Of the thread.
        load: What a wish leads to, called in the thread; must not raise.
        on_done: Called in the thread when there is something to `take`.
        close: Gets what was loaded and nobody wants any more.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[WishT], LoadedT],
        on_done: Callable[[], object],
        close: Callable[[LoadedT], object] = lambda _loaded: None,
    ) -> None:
        self._name = name
        self._load = load
        self._on_done = on_done
        self._close = close
        self._lock = threading.Lock()
        self._request: _Request[WishT] | None = None
        self._loaded: list[LoadedT] = []
        self._thread: threading.Thread | None = None

    @property
    def wish(self) -> WishT | None:
        """What is being loaded or waits to be taken; None for nothing."""
        with self._lock:
            return self._request.wish if self._request is not None else None

    def request(self, wish: WishT) -> None:
        """Begins to load instead of any earlier wish."""
        with self._lock:
            self._forget()
            self._request = _Request(wish)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()

    def cancel(self) -> None:
        """Wishes for nothing; a load under way goes on and is thrown away."""
        with self._lock:
            self._forget()

    def take(self) -> LoadedT | None:
        """What came of the latest wish; None while there is nothing to take."""
        with self._lock:
            if not self._loaded:
                return None
            self._request = None
            return self._loaded.pop()

    def _forget(self) -> None:
        while self._loaded:
            self._close(self._loaded.pop())
        self._request = None

    def _work(self) -> None:
        while True:
            with self._lock:
                request = self._request
                if request is None or self._loaded:
                    self._thread = None
                    return
            loaded = self._load(request.wish)
            with self._lock:
                is_wanted = self._request is request
                if is_wanted:
                    self._loaded.append(loaded)
            if is_wanted:
                self._on_done()
            else:
                self._close(loaded)
