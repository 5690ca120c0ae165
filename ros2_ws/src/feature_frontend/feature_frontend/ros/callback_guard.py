"""What a callback raises: counted, told and answered, and the node goes on.

rclpy passes what a callback raises on to whoever spins, which ends a node: one bad message would end the robot's eyes.
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
    """Goes around the callbacks of a node. Any thread may use it.

    `KeyboardInterrupt`, `SystemExit` and what is raised while ROS shuts down are nothing to survive; all the rest is, a
    lack of memory and an endless recursion included.

    Args:
        node: Whose callbacks they are; it may be still without a logger.

    Attributes:
        failures: How many callbacks have raised.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._told_s: dict[str, float] = {}
        self._last = ""
        self._last_s = -WINDOW_S
        self.failures = 0

    def around(self, name: str, callback: Callable[..., Any], answer: Answer | None = None) -> Callable[..., Any]:
        """`callback`, or a coroutine, as one that raises nothing.

        Args:
            name: What to call it in the log and on /diagnostics.
            callback: What rclpy shall call.
            answer: Called in its place with the reason and the same arguments, where somebody waits for a result.
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
        """Counts and logs, once in a while, what was raised where the name says."""
        now_s = time.monotonic()
        with self._lock:
            self.failures += 1
            self._last, self._last_s = f"{name}: {_described(error)}", now_s
            is_due = now_s - self._told_s.get(name, -_LOG_PERIOD_S) >= _LOG_PERIOD_S
            if is_due:
                self._told_s[name] = now_s
        if is_due:
            logger = self._node.get_logger()
            logger.error(f"{name} failed{_place(error)}, the node goes on: {_described(error)}")
            logger.debug("".join(traceback.format_exception(type(error), error, error.__traceback__)))

    @property
    def warning(self) -> str:
        """What deserves a WARN on /diagnostics: a failure of the last seconds; empty for none."""
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
            # Ctrl-C may end the context at any moment; nothing can be published any more, or needs to be.
            if self._node.context.ok():
                self.note(name, error)
            return None if answer is None else answer(_described(error), *arguments)
        except Exception:
            # No memory for a line of the log, or nobody left to answer.
            return None


class GuardedExecutor(SingleThreadedExecutor):
    """Also survives what taking a message or sending an answer raises, such as a lack of memory for a message.

    Args:
        guard: That of the node; the executor has no other.
        options: As rclpy's.
    """

    def __init__(self, guard: CallbackGuard, **options: Any) -> None:
        super().__init__(**options)
        self._guard_of_node = guard
        # rclpy would leave the callback group of what cannot be taken occupied for ever, deaf for all the rest.
        guard_takes(self, self._take_or_nothing)

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Waits for one callback and runs it."""
        try:
            super().spin_once(timeout_sec)
        except Exception as error:
            if not self.context.ok():
                # What rclpy raises when Ctrl-C comes in the middle of a callback is mostly another one.
                raise ExternalShutdownException from error
            self._guard_of_node.note("the executor", error)
            time.sleep(_PAUSE_S)

    def _take_or_nothing(self, take: Callable[[Any], Any], entity: Any) -> Any:
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
