"""The three ROS 2 processes of the demo: started, watched, and stopped whatever happens."""

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
    """A tool of this package in a process of its own, with its output in a log file.

    Attributes:
        name: What it is called in messages.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str], has_events: bool
    ) -> None:
        self.name = name
        self._log = log
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        command = [sys.executable, "-m", "feature_frontend", *arguments]
        with log.open("w", encoding="utf-8") as file:
            # A session of its own: Ctrl-C in the terminal reaches the demo only, which stops all three in order.
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
        """Its exit status; None while it runs."""
        return self._popen.poll()

    def new_events(self) -> list[dict[str, Any]]:
        """The JSON lines it has printed since the last call."""
        events = []
        while not self._events.empty():
            events.append(self._events.get())
        return events

    def last_words(self) -> str:
        """The error it told, without "error:"; else the end of its log."""
        lines = [line.strip() for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines()]
        errors = [line.removeprefix(ERROR_PREFIX) for line in lines if line.startswith(ERROR_PREFIX)]
        return errors[-1] if errors else " | ".join(line for line in lines[-LAST_LINES:] if line) or "(it said nothing)"

    def find_in_log(self, text: str) -> str:
        """What follows `text` in its first line in the log; empty if there is none."""
        for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
            _, found, rest = line.partition(text)
            if found:
                return rest.strip()
        return ""

    def interrupt(self) -> None:
        """Asks it to end, as Ctrl-C does."""
        self._signal(signal.SIGINT)

    def wait(self, timeout_s: float) -> bool:
        """Waits for its end, and for all it has printed; False if it still runs."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        if self._reader is not None:
            self._reader.join(timeout_s)
        return True

    def stop(self) -> None:
        """Ends it, in order if it listens."""
        for number, patience_s in ((signal.SIGINT, INTERRUPT_S), (signal.SIGTERM, TERMINATE_S), (signal.SIGKILL, 10.0)):
            self._signal(number)
            if self.wait(patience_s):
                return

    def _signal(self, number: int) -> None:
        # Only the process that was started here, found by its handle: its id cannot have passed to another.
        if self._popen.poll() is None:
            self._popen.send_signal(number)

    def _read_events(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as lines:
            for line in lines:
                if line.startswith("{"):
                    self._events.put(json.loads(line))


class ProcessGroup:
    """Processes that end together: leaving the context stops those that still run, the last started first."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = environment
        self._processes: list[Process] = []

    def start(self, name: str, arguments: Sequence[str], has_events: bool = False) -> Process:
        """Starts `python -m feature_frontend` with `arguments`, its output in the file `<name>.log`.

        With `has_events`, the JSON lines of its standard output are kept for `Process.new_events` instead.
        """
        # Ctrl-C between the two steps would leave a process that nobody stops.
        with uninterrupted():
            process = Process(name, arguments, self._logs / f"{name}.log", self._environment, has_events)
            self._processes.append(process)
        return process

    def check(self, may_have_ended: Process | None = None) -> None:
        """Checks that all of them run; `may_have_ended` may also have ended well.

        Raises:
            DemoError: One has ended; the text holds its own error.
        """
        for process in self._processes:
            status = process.exit_status
            if status is None or (process is may_have_ended and status == 0):
                continue
            msg = f"the {process.name} ended with exit status {status}: {process.last_words()}"
            raise DemoError(msg)

    def pause(self) -> None:
        """Waits a moment before the next look at them."""
        time.sleep(POLL_S)

    def __enter__(self) -> Self:
        """Nothing to do: processes are started one by one."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops all that still run."""
        running = [process for process in reversed(self._processes) if process.exit_status is None]
        for process in running:
            process.interrupt()
        for process in running:
            process.stop()


def ros_environment(profile: Path) -> dict[str, str]:
    """This process's environment, with a ROS domain of its own on this machine only.

    Args:
        profile: FastDDS profile to use where the user has not named one; it need not exist.
    """
    environment = dict(os.environ)
    environment["ROS_DOMAIN_ID"] = str(own_domain())
    environment.update(localhost_only())
    if profile.is_file():
        environment.update(dds_profile(profile))
    environment["PYTHONUNBUFFERED"] = "1"
    return environment
