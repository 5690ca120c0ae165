"""The scheduler of this machine: child processes, each of which ends whenever this process ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from feature_frontend.runtime.heap import keep_freed_memory
from feature_frontend.tools.process.request import Reporter, Work
from feature_frontend.tools.process.schedule import Answer, Scheduler, answer_of

__all__ = ["Jobs"]

# Not with -m: the package imports this module first.
_CHILD = f"import sys; from {__name__} import child; sys.exit(child())"


class Jobs(Scheduler):
    """Units of work in parallel child processes, or one after another in this one.

    Args:
        width: Number of processes; 1 does everything in this process.
        reporter: Receives the progress of all.
    """

    def __init__(self, width: int, reporter: Reporter) -> None:
        self._width = width
        self._reporter = reporter
        self._started: list[subprocess.Popen[str]] = []
        self._here: deque[Work] = deque()
        self._running: dict[Future[Answer], Work] = {}
        self._pool = ThreadPoolExecutor(width)

    @property
    def width(self) -> int:
        """See `Scheduler`."""
        return self._width

    def submit(self, work: Work) -> None:
        """See `Scheduler`."""
        if self._width == 1:
            self._here.append(work)
        else:
            self._running[self._pool.submit(_in_process, work, self._reporter, self._started)] = work

    def wait(self) -> tuple[Work, Answer]:
        """See `Scheduler`."""
        if self._width == 1:
            work = self._here.popleft()
            return work, answer_of(work, self._reporter)
        done = next(iter(wait(self._running, return_when=FIRST_COMPLETED).done))
        return self._running.pop(done), done.result()

    def __exit__(self, *_: object) -> None:
        """Ends the processes."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        _end(self._started)


def _end(started: Sequence[subprocess.Popen[str]]) -> None:
    for process in started:
        if process.poll() is None:
            # Progress is safe at any moment.
            process.kill()
    for process in started:
        process.wait()


def _in_process(work: Work, reporter: Reporter, started: list[subprocess.Popen[str]]) -> Answer:
    # Set before torch is loaded there, so that no thread pool becomes too large.
    environment = {**os.environ, "OMP_NUM_THREADS": str(work.request.threads)}
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
    process.stdin.write(json.dumps(work.to_json()) + "\n")
    process.stdin.flush()
    answer: Answer | None = None
    for line in process.stdout:
        event = json.loads(line)
        if "answer" in event:
            answer = event["answer"]
        elif "say" in event:
            reporter.say(event["say"])
        else:
            reporter.done(event["done"], earlier=event["earlier"])
    code = process.wait()
    return answer or {
        "error": f"{work.request.source}: its process ended with exit status {code}; "
        "the same command resumes from there"
    }


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


def _read_work() -> Work:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(1)
        line += byte
    return Work.from_json(json.loads(line))


def child() -> int:
    """Does one unit of work in a child process: reads it from stdin and reports to stdout, both as JSON."""
    keep_freed_memory()
    work = _read_work()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    lines = _Lines()
    answer = answer_of(work, lines)
    lines.write({"answer": answer})
    return 1 if "error" in answer else 0
