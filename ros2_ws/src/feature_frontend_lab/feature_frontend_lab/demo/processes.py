"""Starts, monitors and reliably stops the three ROS 2 processes of the demo."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from feature_frontend.errors import DemoError
from feature_frontend.ros.distribution import dds_profile, localhost_only
from feature_frontend.system.interrupts import uninterrupted
from feature_frontend_lab.demo.own_domain import own_domain

__all__ = ["Process", "ProcessGroup", "ros_environment"]

INTERRUPT_S = 5.0
TERMINATE_S = 3.0
POLL_S = 0.05
ERROR_PREFIX = "error: "
LAST_LINES = 5


class Process:
    """A tool of this package as a separate process, with its output in a log file.

    Attributes:
        name: Name in messages.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str], has_events: bool
    ) -> None:
        self.name = name
        self._log = log
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        command = [sys.executable, "-m", "feature_frontend", *arguments]
        with log.open("w", encoding="utf-8") as file:
            # A separate session: Ctrl-C in the terminal reaches only the demo, which stops all three in order.
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if has_events else file,
                stderr=file if has_events else subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
                text=True,
            )
        self._reader: threading.Thread | None = None
        if has_events:
            self._reader = threading.Thread(target=self._read_events, name=f"{name}-events", daemon=True)
            self._reader.start()

    @property
    def exit_status(self) -> int | None:
        """Its exit status; None while it is running."""
        return self._popen.poll()

    def new_events(self) -> list[dict[str, Any]]:
        """The JSON lines printed since the last call."""
        events = []
        while not self._events.empty():
            events.append(self._events.get())
        return events

    def last_words(self) -> str:
        """Its error message without "error:"; otherwise the end of its log."""
        lines = [line.strip() for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines()]
        errors = [line.removeprefix(ERROR_PREFIX) for line in lines if line.startswith(ERROR_PREFIX)]
        return errors[-1] if errors else " | ".join(line for line in lines[-LAST_LINES:] if line) or "(it said nothing)"

    def find_in_log(self, text: str) -> str:
        """The text after `text` in its first occurrence in the log; empty if there is none."""
        for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
            _, found, rest = line.partition(text)
            if found:
                return rest.strip()
        return ""

    def interrupt(self) -> None:
        """Sends SIGINT, as Ctrl-C does."""
        self._signal(signal.SIGINT)

    def wait(self, timeout_s: float) -> bool:
        """Waits until it ends and all its output has been read; False if it is still running."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        if self._reader is not None:
            self._reader.join(timeout_s)
        return True

    def stop(self) -> None:
        """Stops it, gracefully if it responds."""
        for number, patience_s in ((signal.SIGINT, INTERRUPT_S), (signal.SIGTERM, TERMINATE_S), (signal.SIGKILL, 10.0)):
            self._signal(number)
            if self.wait(patience_s):
                return

    def _signal(self, number: int) -> None:
        # Signals only the process started here, through its handle: its id cannot have been reused.
        if self._popen.poll() is None:
            self._popen.send_signal(number)

    def _read_events(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as lines:
            for line in lines:
                if line.startswith("{"):
                    self._events.put(json.loads(line))


class ProcessGroup:
    """Processes that end together: leaving the context stops those still running, last started first."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = environment
        self._processes: list[Process] = []

    def start(self, name: str, arguments: Sequence[str], has_events: bool = False) -> Process:
        """Starts `python -m feature_frontend` with `arguments`; its output goes to the file `<name>.log`.

        With `has_events`, the JSON lines of its standard output go to `Process.new_events` instead.
        """
        # Ctrl-C between the two steps would leave a process that nobody stops.
        with uninterrupted():
            process = Process(name, arguments, self._logs / f"{name}.log", self._environment, has_events)
            self._processes.append(process)
        return process

    def check(self, may_have_ended: Process | None = None) -> None:
        """Checks that all are running; `may_have_ended` may also have ended successfully.

        Raises:
            DemoError: One has ended; the message contains its error.
        """
        for process in self._processes:
            status = process.exit_status
            if status is None or (process is may_have_ended and status == 0):
                continue
            raise DemoError(f"the {process.name} ended with exit status {status}: {process.last_words()}")

    def pause(self) -> None:
        """Waits briefly before the next check."""
        time.sleep(POLL_S)

    def __enter__(self) -> Self:
        """Does nothing: processes are started individually."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops all processes still running."""
        running = [process for process in reversed(self._processes) if process.exit_status is None]
        for process in running:
            process.interrupt()
        for process in running:
            process.stop()


def ros_environment(profile: Path) -> dict[str, str]:
    """This process's environment with a separate ROS domain, limited to this machine.

    Args:
        profile: FastDDS profile to use unless the user has set one; need not exist.
    """
    environment = dict(os.environ)
    environment["ROS_DOMAIN_ID"] = str(own_domain())
    environment.update(localhost_only())
    if profile.is_file():
        environment.update(dds_profile(profile))
    environment["PYTHONUNBUFFERED"] = "1"
    return environment
