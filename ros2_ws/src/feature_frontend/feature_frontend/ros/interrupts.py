"""Ctrl-C while a node runs, without exceptions in the middle of rclpy."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["quiet_interrupts"]


@contextmanager
def quiet_interrupts() -> Iterator[Callable[[], None]]:
    """SIGINT raises KeyboardInterrupt until the function that this yields is called, and nothing from then on.

    Enter it before `rclpy.init`, whose own handler runs first, shuts the context down and so ends `rclpy.spin`. Raised
    while rclpy makes an object, an exception would leave half of one, whose end prints a traceback; and raised by a
    second SIGINT, as launch files send one beside the terminal's, it would end a node's cleaning up. The handler that
    was there is put back on the way out. In the main thread only.
    """
    is_handed_over = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not is_handed_over:
            signal.default_int_handler(number, frame)

    def hand_over() -> None:
        nonlocal is_handed_over
        is_handed_over = True

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield hand_over
    finally:
        signal.signal(signal.SIGINT, before)
