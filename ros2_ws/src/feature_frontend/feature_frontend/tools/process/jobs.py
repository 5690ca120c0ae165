"""Processes several inputs in parallel, each in a child process that ends whenever this process ends."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.runtime.heap import keep_freed_memory
from feature_frontend.tools.process.run import Outcome, Reporter, Request, process_input

__all__ = ["process_inputs"]

# Not with -m: the package imports this module first.
_CHILD = f"import sys; from {__name__} import child; sys.exit(child())"


def process_inputs(requests: Sequence[Request], jobs: int, reporter: Reporter) -> list[Outcome | FeatureFrontendError]:
    """Processes all requests and returns their outcomes in order; a failed request does not stop the others.

    Args:
        requests: With distinct outputs.
        jobs: Number of parallel processes; 1 runs everything in this process.
        reporter: Receives the progress of all requests.
    """
    if jobs == 1 or len(requests) == 1:
        return [_attempt(request, reporter) for request in requests]
    started: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(jobs) as pool:
        try:
            return list(pool.map(lambda request: _in_process(request, reporter, started), requests))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            _end(started)


def _attempt(request: Request, reporter: Reporter) -> Outcome | FeatureFrontendError:
    try:
        return process_input(request, reporter)
    except FeatureFrontendError as error:
        return error


def _end(started: Sequence[subprocess.Popen[str]]) -> None:
    for process in started:
        if process.poll() is None:
            # Progress is safe at any moment.
            process.kill()
    for process in started:
        process.wait()


def _in_process(
    request: Request, reporter: Reporter, started: list[subprocess.Popen[str]]
) -> Outcome | FeatureFrontendError:
    # Set before torch is loaded there, so that no thread pool becomes too large.
    environment = {**os.environ, "OMP_NUM_THREADS": str(request.threads)}
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        # This process handles Ctrl-C.
        start_new_session=True,
    )
    started.append(process)
    assert process.stdin is not None
    assert process.stdout is not None
    # Keep the pipe open: its end tells the child that this process has ended.
    process.stdin.write(json.dumps(dataclasses.asdict(request)) + "\n")
    process.stdin.flush()
    result: Outcome | FeatureFrontendError | None = None
    for line in process.stdout:
        event = json.loads(line)
        if "outcome" in event:
            result = Outcome(**event["outcome"])
        elif "error" in event:
            result = FeatureFrontendError(event["error"])
        elif "say" in event:
            reporter.say(event["say"])
        else:
            reporter.done(event["done"], earlier=event["earlier"])
    code = process.wait()
    return result or FeatureFrontendError(
        f"{request.source}: its process ended with exit status {code}; the same command resumes from there"
    )


class _Lines:
    """A `Reporter` that writes JSON lines for another process; all other output to stdout is redirected to stderr."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def done(self, images: int, *, earlier: bool = False) -> None:
        self.write({"done": images, "earlier": earlier})

    def say(self, text: str) -> None:
        self.write({"say": text})

    def write(self, event: dict[str, object]) -> None:
        """Writes a line."""
        print(json.dumps(event), file=self._file, flush=True)


def _end_with_parent() -> None:
    # Not through sys.stdin: a thread blocked in it makes the interpreter abort at exit.
    while os.read(0, 1):
        pass
    os._exit(1)


def _read_request() -> Request:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(1)
        line += byte
    return Request(**json.loads(line))


def child() -> int:
    """Runs one request in a child process: reads it from stdin and reports to stdout, both as JSON."""
    keep_freed_memory()
    request = _read_request()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    lines = _Lines()
    outcome = _attempt(request, lines)
    if isinstance(outcome, FeatureFrontendError):
        lines.write({"error": str(outcome)})
        return 1
    lines.write({"outcome": dataclasses.asdict(outcome)})
    return 0
