"""SIGINT and SIGTERM in a program with a ROS node: a quiet end in time, whatever the program does just then."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.executors import Executor
    from rclpy.guard_condition import GuardCondition
    from rclpy.node import Node

__all__ = ["OrderlyEnd", "end_at_once", "end_process", "interrupt_waits"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# An orderly end takes less. FastDDS gives its shared memory back in a few ms; on a machine with too much to do, later.
_GRACE_S, _GIVE_BACK_S = 1.5, 3.0
_CLOSED = 0


def end_at_once() -> None:
    """Lets SIGINT and SIGTERM end the process silently, as long as it holds nothing that outlives it.

    Python's own handler for SIGINT raises KeyboardInterrupt, in the middle of an import for one, and a process that was
    started in the background has SIGINT ignored. In the main thread only.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def interrupt_waits() -> Iterator[None]:
    """Holds SIGINT back until the end of the block, also if another program takes this one's place in it.

    For Python itself starting anew, which handles SIGINT before it runs a line of ours.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


class OrderlyEnd:
    """While it is entered, SIGINT and SIGTERM end the process with status 0 and without the node's shared memory.

    Not by rclpy's handlers, which make the context invalid at once, so that whatever is being made with it fails; and
    not by an exception, which leaves half an object in the middle of rclpy. A thread waits for the signal instead:
    `spin` returns, and the caller has 1.5 s to end in an orderly way. If it is in `outside_ros`, or not done in time,
    the thread destroys the node and ends the process.

    To be entered by the main thread, after `rclpy.init` without handlers of its own and before the node is made.
    """

    def __init__(self) -> None:
        self._in_ros = threading.Lock()
        self._ending = threading.Lock()
        self._is_over = False
        self._requested = threading.Event()
        self._wakes: GuardCondition | None = None
        self._node: Node | None = None

    def __enter__(self) -> OrderlyEnd:
        self._in_ros.acquire()
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        # Python's handlers run in the main thread, when it is back from whatever it is in; this is written at once.
        self._wakeup_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _note) for number in SIGNALS}
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Held for good by the thread once it ends the process: an error that follows from that is not to be seen.
        with self._ending:
            self._is_over = True
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.write(self._write, bytes([_CLOSED]))
        os.close(self._write)
        self._in_ros.release()

    @property
    def is_requested(self) -> bool:
        """Whether a signal has come."""
        return self._requested.is_set()

    def owns(self, node: Node) -> None:
        """Names the node that is to be destroyed; it need not have been initialised yet."""
        self._node = node

    @contextmanager
    def outside_ros(self) -> Iterator[None]:
        """A block of the main thread that may take long and makes nothing of rclpy's: a signal ends the process there.

        In other threads it is without effect.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._in_ros.release()
        try:
            yield
        finally:
            self._in_ros.acquire()

    def spin(self, node: Node, executor: Executor) -> None:
        """`rclpy.spin`, until a signal comes; it returns at once if one has come before. Shuts the executor down.

        Raises:
            ExternalShutdownException: Something else has shut rclpy down.
        """
        from rclpy.executors import ExternalShutdownException

        executor.add_node(node)
        # `executor.wake` does not end a wait of Humble's.
        self._wakes = node.create_guard_condition(_nothing)
        try:
            while not self.is_requested:
                if not node.context.ok():
                    raise ExternalShutdownException
                executor.spin_once()
        finally:
            self._wakes = None
            executor.remove_node(node)
            executor.shutdown()

    def _watch(self) -> None:
        """The thread that waits for signals."""
        numbers = b""
        while not any(number in SIGNALS for number in numbers):
            numbers = os.read(self._read, 64)
            if _CLOSED in numbers or not numbers:
                os.close(self._read)
                return
        self._requested.set()
        guard_condition = self._wakes
        if guard_condition is not None:
            # As it may be gone by now.
            with suppress(Exception):
                guard_condition.trigger()
        self._in_ros.acquire(timeout=_GRACE_S)
        with self._ending:
            if self._is_over:
                os.close(self._read)
                return
            giver = threading.Thread(target=_give_back, args=(self._node,), daemon=True)
            giver.start()
            giver.join(_GIVE_BACK_S)
            end_process(0)


def end_process(status: int) -> None:
    """Ends the process here and now.

    Tearing down an interpreter with torch in it takes up to seconds, and a thread may be inside a network's run, which
    cannot be interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # The other end of a pipe may be gone.
        with suppress(Exception):
            stream.flush()
    os._exit(status)


def _give_back(node: Node | None) -> None:
    # Of a node that is only half made, there may be nothing yet.
    with suppress(Exception):
        if node is not None:
            node.destroy_node()


def _nothing() -> None:
    """The callback of what is only to end the executor's wait."""


def _note(number: int, frame: FrameType | None) -> None:
    """Python's part of the handler: what is to be done is done by the thread."""
