"""Runs a tool: reports in one line whatever ends it, and turns it into an exit status."""

from __future__ import annotations

import errno
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.system.files import print_any_name
from feature_frontend.system.interrupts import interruptible
from feature_frontend.system.text import quoted, short_text
from feature_frontend.tools.common.limits import LEAST_FILES

__all__ = ["FAULT", "INTERRUPTED", "OUTPUT_CLOSED", "TRACEBACK_VARIABLE", "open_standard_streams", "run_tool"]

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as in other programs."""

OUTPUT_CLOSED = 141
"""Exit status if the reader of the output is gone, as in `... | head`: 128 + SIGPIPE, as in other programs."""

FAULT = 70
"""Exit status after an unexpected error: a bug of this package (EX_SOFTWARE of sysexits.h)."""

TRACEBACK_VARIABLE = "FEATURE_FRONTEND_TRACEBACK"

_PACKAGES = {"feature_frontend", "feature_frontend_lab"}
_STANDARD_STREAMS = 3
_FILES = f"too many open files; expected a limit (`ulimit -n`) of at least {LEAST_FILES}: type ulimit -n 1024"
_MEMORY = "memory ran out; end other programs, raise the limit (`ulimit -v`), or ask for less"
_THREADS = "no thread can be started; raise the limits on processes and memory (`ulimit -u`, `ulimit -v`)"
# Words in generic library errors that tell what this machine lacks.
_WORDS = {
    os.strerror(errno.EMFILE): _FILES,
    "can't allocate memory": _MEMORY,
    "Insufficient memory": _MEMORY,
    os.strerror(errno.ENOMEM): _MEMORY,
    "bad_alloc": _MEMORY,
    "failed to map segment": _MEMORY,
    "can't start new thread": _THREADS,
}


def run_tool(run: Callable[[], int], interrupted: Callable[[], int] | None = None) -> int:
    """Calls `run` and returns its exit status, or prints an exception in one line on stderr and returns its status.

    SystemExit passes through. If the variable `FEATURE_FRONTEND_TRACEBACK` is set, also prints tracebacks.

    Args:
        run: The tool.
        interrupted: Returns the exit status after an interrupt (default: `INTERRUPTED`). If given, SIGTERM interrupts
            `run` like Ctrl-C, and only the first signal counts, so that `run` can clean up.
    """
    try:
        try:
            with nullcontext() if interrupted is None else interruptible():
                _make_lock_of_progress()
                return run()
        finally:
            # Flush here, not at interpreter exit, where Python would print its own message for a closed pipe.
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
    except KeyboardInterrupt:
        return INTERRUPTED if interrupted is None else interrupted()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _redirect_closed_streams():
            return OUTPUT_CLOSED
        if os.environ.get(TRACEBACK_VARIABLE):
            traceback.print_exc()
        status, words = _status_and_message(error)
        try:
            print(f"error: {words}", file=sys.stderr, flush=True)
        except BrokenPipeError:
            _redirect_closed_streams()
        return status


def _make_lock_of_progress() -> None:
    """Otherwise tqdm makes it with its first line; interrupted there, it raises an AttributeError of its own."""
    with suppress(ImportError):
        from tqdm import tqdm

        tqdm.get_lock()  # type: ignore[no-untyped-call]


def open_standard_streams() -> None:
    """Redirects closed stdin, stdout and stderr (`>&-`) to the null device, and makes them print any file name.

    Otherwise the next opened file could get descriptor 1 and receive the output of libraries.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < _STANDARD_STREAMS:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 -- until the process ends
    print_any_name()


def _redirect_closed_streams() -> bool:
    """Redirects stdout and stderr to the null device if they are closed pipes; returns whether one was."""
    are_closed = False
    for stream in (sys.stdout, sys.stderr):
        try:
            descriptor = stream.fileno()
        except (AttributeError, OSError):
            continue  # replaced by a Python caller
        poll = select.poll()
        poll.register(descriptor, 0)
        if poll.poll(0):
            are_closed = True
            # Prevents another exception when the interpreter flushes.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
    return are_closed


def _status_and_message(error: Exception) -> tuple[int, str]:
    """Exit status and message."""
    if isinstance(error, FeatureFrontendError):
        return 1, str(error)
    said = "; ".join(str(cause) for cause in _causes(error))
    lacking = next((advice for words, advice in _WORDS.items() if words in said), None)
    if lacking is None and isinstance(error, MemoryError):
        lacking = _MEMORY
    if lacking is not None:
        return 1, lacking
    words = " ".join(short_text(error).split())
    if isinstance(error, OSError):
        about = f"{quoted(os.fsdecode(error.filename))}: " if isinstance(error.filename, (str, bytes)) else ""
        return 1, short_text(f"{about}{error.strerror or words}")
    if type(error).__module__.partition(".")[0] == "rclpy":
        return 1, f"ROS 2: {words}"
    if isinstance(error, ImportError):
        return 1, f"{words}; `feature_frontend doctor` says what is missing"
    return FAULT, (
        f"{type(error).__name__}: {words} ({_place(error)}). This is a fault of this program: please report it, with "
        f"the traceback that {TRACEBACK_VARIABLE}=1 prints"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _place(error: Exception) -> str:
    """The innermost line of this package in the error's traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames[1:] if _PACKAGES & set(Path(frame.filename).parts)] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}"
