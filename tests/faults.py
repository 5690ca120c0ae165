"""Commands on a failing disk: builds and preloads `faults.c`, which makes a chosen write of a command fail.

Commands run in forks of one process with all imports done: a fault takes a tenth of a second, not four.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

__all__ = ["EIO", "FLIP", "FULL", "KILL", "NONE", "SHORT", "Ended", "FaultyDisk", "fault_environment", "faulty_disk"]

NONE, KILL, EIO, FULL, SHORT, FLIP = range(6)
_SOURCE = Path(__file__).with_name("faults.c")
_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Exit status; the negative signal where one ended it.
        out: Its output.
        err: Its errors.
        calls: Writes, syncs, renames and the like to the files of the folder.
        seconds: How long it took.
    """

    code: int
    out: str
    err: str
    calls: int
    seconds: float


class FaultyDisk:
    """Runs commands, one at a time. Made by `faulty_disk`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self,
        main: str,
        *arguments: object,
        folder: Path,
        kind: int = NONE,
        call: int = 0,
        bit: int = 0,
        kill_after_s: float | None = None,
    ) -> Ended:
        """Runs a command.

        Args:
            main: "module:function", which takes the arguments and returns the exit status.
            arguments: Of the command.
            folder: Faults happen to files whose paths begin with this.
            kind: What happens to the call: KILL, in the middle of it; EIO; FULL, ENOSPC for all from there on; SHORT,
                half is written, which is said; FLIP, a bit flips in silence.
            call: Which one of those to such files, from 1.
            bit: Which one flips, modulo the size.
            kill_after_s: When the process is killed; None for never.
        """
        request = [main, [str(argument) for argument in arguments], str(folder), kind, call, bit, kill_after_s]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that runs the commands has ended"
        return Ended(*json.loads(answer))


@contextmanager
def faulty_disk(folder: Path, *modules: str) -> Iterator[FaultyDisk]:
    """What runs commands of `modules`; `folder` is for its files. Skips where there is no C compiler, or no Linux."""
    library = _build(folder)
    # One thread: forks do not have the others.
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults", str(library), *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=_SOURCE.parent.parent,
    )
    try:
        yield FaultyDisk(process)
    finally:
        process.kill()
        process.communicate()


def fault_environment(made_in: Path, folder: Path, kind: int, call: int) -> dict[str, str]:
    """What a program's environment needs for such a fault in it, as of `FaultyDisk.run`; `made_in` is for files."""
    return {"LD_PRELOAD": str(_build(made_in)), "FAULT": f"{kind} {call} {folder}"}


def _build(folder: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler (cc) on Linux, for the library that lets writes fail")
    library = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl"], check=True)
    return library


def _serve(library: str, modules: Sequence[str]) -> None:
    for module in modules:
        import_module(module)
    arm = ctypes.CDLL(library)
    out, err, calls = (Path(library).with_name(name) for name in ("out", "err", "calls"))
    for line in sys.stdin:
        main, arguments, folder, kind, call, bit, kill_after_s = json.loads(line)
        module, name = main.split(":")
        calls.write_text("0")
        started_s = time.monotonic()
        child = os.fork()
        if child == 0:
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            arm.fault_arm(folder.encode(), kind, ctypes.c_long(call), ctypes.c_ulong(bit))
            os._exit(_code(getattr(import_module(module), name), arguments, arm, calls))
        status = _wait(child, kill_after_s)
        took_s = time.monotonic() - started_s
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in (out, err)]
        ended = [os.waitstatus_to_exitcode(status), *texts, int(calls.read_text()), took_s]
        print(json.dumps(ended), flush=True)


def _code(main: Callable[[Sequence[str]], Any], arguments: Sequence[str], arm: ctypes.CDLL, calls: Path) -> int:
    try:
        code = main(arguments)
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    calls.write_text(str(arm.fault_calls()))
    return int(code or 0)


def _wait(child: int, kill_after_s: float | None) -> int:
    deadline_s = time.monotonic() + (_TIMEOUT_S if kill_after_s is None else kill_after_s)
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        if time.monotonic() >= deadline_s:
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(0.001)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])
