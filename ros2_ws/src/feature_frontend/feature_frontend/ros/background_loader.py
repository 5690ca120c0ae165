"""Loads objects in a background thread; only the latest request counts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["BackgroundLoader"]

WishT = TypeVar("WishT")
LoadedT = TypeVar("LoadedT")


# Compared by identity: a request that was cancelled and repeated is loaded again.
@dataclass(frozen=True, eq=False)
class _Request(Generic[WishT]):
    wish: WishT


class BackgroundLoader(Generic[WishT, LoadedT]):
    """Loads one object at a time. Call its methods from one thread only.

    Args:
        name: Of the thread.
        load: Loads a request, called in the background thread; must not raise.
        on_done: Called in the background thread when a result is ready for `take`.
        close: Receives loaded objects that are no longer wanted.
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
        """The request being loaded or ready to take; None if there is none."""
        with self._lock:
            return self._request.wish if self._request is not None else None

    def request(self, wish: WishT) -> None:
        """Starts loading; replaces any earlier request."""
        with self._lock:
            self._forget()
            self._request = _Request(wish)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()

    def cancel(self) -> None:
        """Cancels the request; a running load finishes and its result is discarded."""
        with self._lock:
            self._forget()

    def take(self) -> LoadedT | None:
        """Returns the result of the latest request; None while it is not ready."""
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
