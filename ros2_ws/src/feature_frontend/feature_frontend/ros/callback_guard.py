"""Guards callbacks: exceptions are counted, logged and answered, and the node keeps running.

rclpy propagates a callback's exception to `spin`, which ends the node: one bad message would blind the robot.
"""

from __future__ import annotations

import functools
import inspect
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from feature_frontend.ros.rclpy_private import guard_takes
from feature_frontend.runtime.health import WINDOW_S
from feature_frontend.system.text import short_text

__all__ = ["CallbackGuard", "GuardedExecutor"]

_LOG_PERIOD_S = 10.0
_PAUSE_S = 0.01
Answer = Callable[..., Any]


class CallbackGuard:
    """Wraps the callbacks of a node. Thread-safe.

    The node survives every exception, including out-of-memory and endless recursion, except `KeyboardInterrupt`,
    `SystemExit` and exceptions raised while ROS shuts down.

    Args:
        node: Owner of the callbacks; may not have a logger yet.

    Attributes:
        failures: Number of callbacks that raised.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._logged_s: dict[str, float] = {}
        self._last = ""
        self._last_s = -WINDOW_S
        self.failures = 0

    def around(self, name: str, callback: Callable[..., Any], answer: Answer | None = None) -> Callable[..., Any]:
        """Wraps `callback`, a function or coroutine, so that it never raises.

        Args:
            name: Its name in the log and on /diagnostics.
            callback: The callback for rclpy.
            answer: Called after a failure with the reason and the same arguments, to give the caller a result.
        """
        if inspect.iscoroutinefunction(callback):

            @functools.wraps(callback)
            async def guarded_coroutine(*arguments: Any) -> Any:
                try:
                    return await callback(*arguments)
                except Exception as error:
                    return self._answer(name, error, answer, arguments)

            return guarded_coroutine

        @functools.wraps(callback)
        def guarded(*arguments: Any) -> Any:
            try:
                return callback(*arguments)
            except Exception as error:
                return self._answer(name, error, answer, arguments)

        return guarded

    def note(self, name: str, error: Exception) -> None:
        """Counts an exception raised at the place `name`, and logs it, throttled."""
        now_s = time.monotonic()
        with self._lock:
            self.failures += 1
            self._last, self._last_s = f"{name}: {_described(error)}", now_s
            is_due = now_s - self._logged_s.get(name, -_LOG_PERIOD_S) >= _LOG_PERIOD_S
            if is_due:
                self._logged_s[name] = now_s
        if is_due:
            logger = self._node.get_logger()
            logger.error(f"{name} failed{_place(error)}, the node goes on: {_described(error)}")
            logger.debug("".join(traceback.format_exception(type(error), error, error.__traceback__)))

    @property
    def warning(self) -> str:
        """Text for a WARN on /diagnostics: a failure in the last seconds; empty for none."""
        with self._lock:
            is_news = time.monotonic() - self._last_s < WINDOW_S
            return f"{self.failures} callbacks have failed, last {self._last}" if is_news else ""

    @property
    def values(self) -> list[tuple[str, str]]:
        """Keys and values of /diagnostics."""
        with self._lock:
            return [("Failed callbacks since start", str(self.failures)), ("Last failed callback", self._last)]

    def _answer(self, name: str, error: Exception, answer: Answer | None, arguments: tuple[Any, ...]) -> Any:
        try:
            # Ctrl-C may shut down the context at any moment; then nothing needs to be published.
            if self._node.context.ok():
                self.note(name, error)
            return None if answer is None else answer(_described(error), *arguments)
        except Exception:
            # No memory for a log line, or the caller is gone.
            return None


class GuardedExecutor(SingleThreadedExecutor):
    """Also survives exceptions from taking a message or sending a response, such as a lack of memory.

    Args:
        guard: Of the only node in this executor.
        options: As in rclpy.
    """

    def __init__(self, guard: CallbackGuard, **options: Any) -> None:
        super().__init__(**options)
        self._guard_of_node = guard
        # rclpy would leave the callback group of a failed take blocked for ever.
        guard_takes(self, self._take_guarded)

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Waits for one callback and runs it."""
        try:
            super().spin_once(timeout_sec)
        except Exception as error:
            if not self.context.ok():
                # When Ctrl-C arrives during a callback, rclpy mostly raises another exception.
                raise ExternalShutdownException from error
            self._guard_of_node.note("the executor", error)
            time.sleep(_PAUSE_S)

    def _take_guarded(self, take: Callable[[Any], Any], entity: Any) -> Any:
        try:
            return take(entity)
        except Exception as error:
            if self.context.ok():
                self._guard_of_node.note(f"taking what came for {_name_of(entity)}", error)
            return None


def _name_of(entity: Any) -> str:
    return str(getattr(entity, "topic_name", getattr(entity, "srv_name", type(entity).__name__)))


def _described(error: Exception) -> str:
    text = short_text(error)
    kind = type(error).__name__
    return text if text == kind else f"{kind}: {text}"


def _place(error: Exception) -> str:
    """Where it was raised."""
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    return "".join(f" in {Path(frame.filename).name}:{frame.lineno}" for frame in frames)
