"""Progress display: a bar on a terminal, else an occasional line."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import AbstractContextManager

from tqdm import tqdm

__all__ = ["Progress"]

_LINE_PERIOD_S = 10.0


class Progress(AbstractContextManager["Progress"]):
    """A `Reporter` for all inputs together, on stderr. Thread-safe.

    Args:
        total: Number of images of all inputs; None if it is not known, as for a video or a remote bag.
        inputs: Number of inputs.
    """

    def __init__(self, total: int | None, inputs: int = 1) -> None:
        self._total = total
        self._inputs = inputs
        self._ended = 0
        self._lock = threading.Lock()
        self._here = 0
        self._earlier = 0
        self._first_s = self._printed_s = time.monotonic()
        is_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, unit=" images", leave=False, file=sys.stderr) if is_terminal else None

    def done(self, images: int, *, earlier: bool = False) -> None:
        """See `Reporter`."""
        with self._lock:
            if earlier:
                self._earlier += images
            elif self._here == 0:
                # Work before the first image, such as compiling, must not affect the estimated rate.
                self._first_s = time.monotonic()
                self._here = images
            else:
                self._here += images
            if self._bar is None:
                self._print_line()
            elif earlier:
                # Must not count towards this run's rate.
                self._bar.initial += images
                self._bar.n += images
                self._bar.refresh()
            else:
                self._bar.update(images)

    def ended(self, inputs: int) -> None:
        """See `Watcher`."""
        with self._lock:
            self._ended += inputs
            if self._bar is not None and self._inputs > 1:
                self._bar.set_postfix_str(f"{self._ended} of {self._inputs} inputs")

    def say(self, text: str) -> None:
        """See `Reporter`."""
        with self._lock:
            tqdm.write(text, file=sys.stderr)

    def _print_line(self) -> None:
        now_s = time.monotonic()
        if now_s - self._printed_s < _LINE_PERIOD_S or self._here < 2:
            return
        self._printed_s = now_s
        done = self._earlier + self._here
        rate_hz = (self._here - 1) / (now_s - self._first_s)
        rest = "" if self._total is None else f" of {self._total}"
        inputs = f", {self._ended} of {self._inputs} inputs" if self._inputs > 1 else ""
        left_s = self._left_s(done, rate_hz, now_s)
        left = "" if left_s is None else f", {left_s:.0f} s left"
        print(f"{done}{rest} images, {rate_hz:.1f} a second{inputs}{left}", file=sys.stderr, flush=True)

    def _left_s(self, done: int, rate_hz: float, now_s: float) -> float | None:
        if self._total is not None:
            return max(self._total - done, 0) / rate_hz
        if not self._ended:
            return None
        return (self._inputs - self._ended) / self._ended * (now_s - self._first_s)

    def __exit__(self, *_error: object) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
