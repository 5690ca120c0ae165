"""One input in a process of its own: its request comes by stdin, what there is to tell goes to stdout, as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import threading

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.runtime.heap import keep_freed_memory
from feature_frontend.tools.process.jobs import attempt
from feature_frontend.tools.process.run import Request


class _Lines:
    """A `Reporter` that another process reads; whatever else prints to stdout comes out at stderr."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def done(self, images: int, *, earlier: bool = False) -> None:
        self.tell({"done": images, "earlier": earlier})

    def say(self, text: str) -> None:
        self.tell({"say": text})

    def tell(self, event: dict[str, object]) -> None:
        """Writes a line."""
        print(json.dumps(event), file=self._file, flush=True)


def _end_with_parent() -> None:
    # Not through sys.stdin: a thread that waits inside it makes the interpreter abort at its own end.
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


def _main() -> int:
    keep_freed_memory()
    request = _read_request()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    lines = _Lines()
    outcome = attempt(request, lines)
    if isinstance(outcome, FeatureFrontendError):
        lines.tell({"error": str(outcome)})
        return 1
    lines.tell({"outcome": dataclasses.asdict(outcome)})
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
