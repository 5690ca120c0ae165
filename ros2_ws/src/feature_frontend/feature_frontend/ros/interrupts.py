"""SIGINT and SIGTERM in a program with a ROS node: a quiet, timely exit, whatever the program is doing."""

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
# An orderly exit takes less. FastDDS frees its shared memory in a few ms, later on an overloaded machine.
_GRACE_S, _GIVE_BACK_S = 1.5, 3.0
_CLOSED = 0


def end_at_once() -> None:
    """Makes SIGINT and SIGTERM end the process silently; use while it holds nothing that outlives it.

    Python's default SIGINT handler raises KeyboardInterrupt, even during imports, and a process started in the
    background ignores SIGINT. Main thread only.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def interrupt_waits() -> Iterator[None]:
    """Blocks SIGINT until the end of the block, also across an `exec`.

    For restarting Python, which handles SIGINT before it runs our code.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


class OrderlyEnd:
    """Within this context, SIGINT and SIGTERM end the process with status 0 and free the node's shared memory.

    rclpy's handlers would invalidate the context at once, so that whatever is being created with it fails; an exception
    would leave rclpy objects half constructed. Instead, a thread waits for the signal: `spin` returns, and the caller
    has 1.5 s for an orderly exit. If the caller is in `outside_ros` or needs longer, the thread destroys the node and
    ends the process.

    Enter it in the main thread, after `rclpy.init` without signal handlers and before creating the node.
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
        # Python's handlers run in the main thread, after a blocking call returns; the wakeup fd is written at once.
        self._wakeup_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _note) for number in SIGNALS}
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The thread never releases this lock once it ends the process, which hides the errors that follow from that.
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
        """Whether a signal has arrived."""
        return self._requested.is_set()

    def owns(self, node: Node) -> None:
        """Sets the node to destroy; it need not be initialised yet."""
        self._node = node

    @contextmanager
    def outside_ros(self) -> Iterator[None]:
        """A block of long work that creates no rclpy objects: a signal ends the process immediately.

        Only in the main thread; no effect in others.
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
        """Spins until a signal arrives, or returns at once if one already has. Shuts the executor down.

        Raises:
            ExternalShutdownException: Something else has shut rclpy down.
        """
        from rclpy.executors import ExternalShutdownException

        executor.add_node(node)
        # On Humble, `executor.wake` does not interrupt a wait.
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
            # It may be gone already.
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
    """Ends the process immediately.

    Tearing down an interpreter with torch can take seconds, and a thread may be running a network, which cannot be
    interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # The reader of a pipe may be gone.
        with suppress(Exception):
            stream.flush()
    os._exit(status)


def _give_back(node: Node | None) -> None:
    # A partly constructed node may have nothing to destroy.
    with suppress(Exception):
        if node is not None:
            node.destroy_node()


def _nothing() -> None:
    """Empty callback that only wakes the executor."""


def _note(number: int, frame: FrameType | None) -> None:
    """Empty Python signal handler: the thread does the work."""
