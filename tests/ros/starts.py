"""Starts of the node that are interrupted by a signal, and what each leaves behind.

As a program, it imports torch and rclpy once and forks a process for each start: one JSON line in, one JSON line out. A
fork excludes the interpreter's start and the imports; `Start.of_program` includes them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["READY", "SIGNALS", "Ended", "Forks", "end_program"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)
READY = "waiting for images"
_ARGUMENTS = ["--ros-args", "-p", "extractor:=silk-vggnp-mu", "-p", "compile:=false"]
_TIMEOUT_S = 60.0
_POLL_S = 0.005
# Of the multicast ports, which processes of all domains of a machine share: the last of them removes the file.
_SHARED = re.compile(r"_port7\d\d\d(_el|_mutex)?$")
_LOG_LINE = re.compile(r"\[(INFO|WARN)\] \[[\d.]+\] \[frontend\]: ")


@dataclass(frozen=True)
class Ended:
    """How a start ended.

    Attributes:
        status: Exit status; negative for a signal.
        used_s: Processor time before the signal.
        seconds: From the signal to the end.
        unexpected: Lines that it printed, but for those of its log.
        left: Files of shared memory, of the temporary folder and the cache, and processes that it left.
        segments: How many files of shared memory it had open.
    """

    status: int
    used_s: float
    seconds: float
    unexpected: list[str]
    left: list[str]
    segments: int


class Forks:
    """A process that makes starts by fork, until the end of the block."""

    def __enter__(self) -> Forks:
        command = [sys.executable, "-m", "tests.ros.starts"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=_TIMEOUT_S)

    def end(self, kind: str, number: int, moment: float | str, times: int = 1) -> Ended:
        """One start.

        Args:
            kind: One of `_KINDS`.
            number: The signal.
            moment: Seconds of processor time that the process has used by then, unless it is ready before; or what it
                prints then.
            times: How many signals there are, one right after the other.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([kind, number, moment, times]), file=self._process.stdin, flush=True)
        return Ended(**json.loads(self._process.stdout.readline()))


def end_program(number: int, moment: float, parameters: Sequence[str] = ()) -> Ended:
    """The program `frontend`, as a shell starts it, ended when it has used `moment` s of processor time, or is ready.

    SIGINT comes only when the program has seen to it itself: Python's own start handles it before that.
    """
    with _private_folders() as folders:
        before = _shared_memory()
        command = [sys.executable, "-m", "feature_frontend", "frontend", *_ARGUMENTS]
        for parameter in parameters:
            command += ["-p", parameter]
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, **folders}, start_new_session=True
            )
            if number == signal.SIGINT:
                _wait_until(lambda: not _catches_interrupt(process.pid), process.pid)
            return _end(process.pid, number, moment, 1, output, folders, before)


def _catches_interrupt(pid: int) -> bool:
    """Whether a handler is there for SIGINT, or Python has not come so far."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    caught, blocked = (int(status.partition(f"{name}:")[2].split()[0], 16) for name in ("SigCgt", "SigBlk"))
    bit = 1 << (signal.SIGINT - 1)
    # Before it restarts, the program holds the signal back; SIGPIPE is what Python ignores when it has begun.
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    has_begun = bool(ignored & 1 << (signal.SIGPIPE - 1))
    return not has_begun or bool(caught & bit and not blocked & bit)


def _wait_until(condition: Callable[[], bool], pid: int) -> None:
    deadline_s = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s, f"process {pid} has not come so far"
        time.sleep(_POLL_S)


@contextmanager
def _private_folders() -> Iterator[dict[str, str]]:
    """Variables that name folders of one start's own."""
    with tempfile.TemporaryDirectory() as folder:
        names = {"TMPDIR": "temporary", "XDG_CACHE_HOME": "cache", "ROS_LOG_DIR": "log"}
        for name in names.values():
            (Path(folder) / name).mkdir()
        yield {variable: str(Path(folder) / name) for variable, name in names.items()}


def _shared_memory() -> set[str]:
    return {entry.path for entry in os.scandir("/dev/shm")}


def _segments(pid: int) -> set[str]:
    """Files of FastDDS that a process has open."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    names = {line.split()[5] for line in lines if "/dev/shm/" in line}
    return {name for name in names if ("fastrtps_" in name or "fastdds_" in name) and not _SHARED.search(name)}


def _end(
    pid: int, number: int, moment: float | str, times: int, output: Any, folders: dict[str, str], before: set[str]
) -> Ended:
    """Sends the signal at the moment and waits for the end of a process, a leader of its session.

    What of shared memory was there `before` is another's, as of a process that was killed: this one opens it too.
    """
    begun_s = time.monotonic()
    status: int | None = None

    def has_come() -> bool:
        if isinstance(moment, str):
            return moment in _printed(output)
        return _used_s(pid) >= moment or READY in _printed(output)

    while not has_come() and status is None:
        assert time.monotonic() - begun_s < _TIMEOUT_S, f"it has not come to {moment!r}: {_printed(output)}"
        time.sleep(_POLL_S)
        status = _status(pid)
    seen = _segments(pid)
    used_s = _used_s(pid)
    signal_s = time.monotonic()
    for _ in range(times if status is None else 0):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    while status is None:
        assert time.monotonic() - signal_s < _TIMEOUT_S, f"signal {number} does not end it: {_printed(output)}"
        seen |= _segments(pid)
        time.sleep(_POLL_S)
        status = _status(pid)
    seconds = time.monotonic() - signal_s
    seen -= before
    left = [name for name in seen if os.path.exists(name)]
    if left:
        # With Fast DDS 3 a node also makes the files of ports that it sends to; those that live on are their owners'.
        used = set().union(*(_segments(int(name)) for name in os.listdir("/proc") if name.isdigit()))
        left = [name for name in left if name not in used]
    for variable in ("TMPDIR", "XDG_CACHE_HOME"):
        left += [str(path) for path in Path(folders[variable]).rglob("*") if not path.is_dir()]
    with suppress(ProcessLookupError):
        os.killpg(pid, 0)
        left.append(f"a process of {pid}'s session")
    unexpected = [line for line in _printed(output).splitlines() if line and not _LOG_LINE.match(line)]
    return Ended(status, used_s, seconds, unexpected, left, len(seen))


def _status(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _used_s(pid: int) -> float:
    """Processor time of a process: how far it has come does not depend on what else the machine does."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _printed(output: Any) -> str:
    # The writer shares the position.
    size = os.fstat(output.fileno()).st_size
    return os.pread(output.fileno(), size, 0).decode("utf-8", errors="replace")


def _start() -> None:
    from feature_frontend.ros.main import main

    os._exit(main(_ARGUMENTS))


def _load_for_ever() -> None:
    """The model comes from a disk that does not answer."""
    from feature_frontend.ros import main as program

    def load(_settings: object) -> None:
        print("[INFO] [0] [frontend]: loading", flush=True)
        time.sleep(60)

    program._load = load  # type: ignore[assignment]
    _start()


def _call_back_for_ever() -> None:
    """A callback of the executor does not return."""
    from feature_frontend.ros.output import diagnostics

    def publish(_diagnostics: object) -> None:
        print("[INFO] [0] [frontend]: calling back", flush=True)
        time.sleep(60)

    diagnostics.Diagnostics._publish = publish  # type: ignore[method-assign]
    diagnostics._PERIOD_S = 0.01
    _start()


_KINDS: dict[str, Callable[[], None]] = {
    "start": _start,
    "a load that hangs": _load_for_ever,
    "a callback that hangs": _call_back_for_ever,
}


def _fork(kind: str, number: int, moment: float | str, times: int) -> Ended:
    with _private_folders() as folders, tempfile.TemporaryFile() as output:
        before = _shared_memory()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.environ |= folders
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
            _KINDS[kind]()
            os._exit(99)
        return _end(pid, number, moment, times, output, folders, before)


def _main() -> None:
    import feature_frontend.ros.main
    import feature_frontend.ros.node
    import feature_frontend.ros.start_errors  # noqa: F401
    from feature_frontend.ros.interrupts import end_at_once

    # A fork has them until the node has its own.
    end_at_once()
    for line in sys.stdin:
        print(json.dumps(asdict(_fork(*json.loads(line)))), flush=True)


if __name__ == "__main__":
    _main()
