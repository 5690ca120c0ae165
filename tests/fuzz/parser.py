"""The interface of a fuzzed parser, and the criteria for correct behaviour."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Finding", "Judge", "Parser", "check_text"]

_LINES, _CHARACTERS = 3, 800
# More resident memory at its peak than before the first execution. An input has at most some hundred kilobytes.
_MIB = 256
_PACKAGE = f"{os.sep}feature_frontend{os.sep}"


@dataclass(frozen=True)
class Parser:
    """One parser and what may come of it.

    Attributes:
        name: Of its folder in the corpus; what is before a hyphen is the name of a group.
        run: Gives bytes to it, which lead to a result, or to one of `errors`.
        errors: What it documents that it raises. Anything else is a finding.
        tokens: Words of its format, which mutations put in.
        repair: Makes checksums right again that a mutation has made wrong, so that what is behind them is reached.
        seconds: Most CPU time for an input, ten times what one of the corpus needs.
    """

    name: str
    run: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    tokens: tuple[bytes, ...] = ()
    repair: Callable[[bytes], bytes] | None = None
    seconds: float = 2.0


@dataclass(frozen=True)
class Finding:
    """An input that was not handled right.

    Attributes:
        cause: What happened and where, the same for inputs that show the same fault; a name for a file.
        text: The same for people, with the traceback.
    """

    cause: str
    text: str


class UnreadableTextError(AssertionError):
    """A text that is meant for the user is none that a user can read."""


def check_text(text: str) -> None:
    """Checks a text that a parser has for the user: an error's, a warning's, a list of what is lost.

    Raises:
        UnreadableTextError: It is longer than three lines or 800 characters, or not printable.
    """
    lines = text.split("\n")
    if len(lines) > _LINES:
        problem = f"{len(lines)} lines"
    elif len(text) > _CHARACTERS:
        problem = f"{len(text)} characters"
    elif not all(line.isprintable() for line in lines):
        problem = "not printable"
    else:
        return
    msg = f"{problem}: {text[:2000]!r}"
    raise UnreadableTextError(msg)


class _Words(logging.Handler):
    """Keeps what is logged during an execution."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


class Judge:
    """Executes a parser and says what is wrong with what it did.

    Attributes:
        taken: How many inputs led to a result.
        refused: How many to a documented error.
    """

    def __init__(self, parser: Parser) -> None:
        self.parser = parser
        self.taken = self.refused = 0
        self._words = _Words()
        package = logging.getLogger("feature_frontend")
        package.handlers, package.propagate = [self._words], False
        self._status = os.open("/proc/self/status", os.O_RDONLY)
        self._peak_mib = self._peak()

    def __call__(self, data: bytes) -> Finding | None:
        """Executes the parser once."""
        self._words.texts.clear()
        console = _written()
        begin_s = time.process_time()
        try:
            self.parser.run(data)
            self.taken += 1
        except self.parser.errors as error:
            self.refused += 1
            found = _unreadable(str(error), error)
        except Exception as error:
            found = _raised(error)
        else:
            found = None
        spent_s = time.process_time() - begin_s
        if found is not None:
            return found
        for text in self._words.texts:
            found = _unreadable(text, None)
            if found is not None:
                return found
        if spent_s > self.parser.seconds:
            return Finding("slow", f"took {spent_s:.1f} s of CPU time; expected at most {self.parser.seconds:g} s")
        grown_mib = self._peak() - self._peak_mib
        if grown_mib > _MIB:
            self._peak_mib += grown_mib
            return Finding("memory", f"took {grown_mib:.0f} MiB of memory; expected at most {_MIB} MiB")
        written = _written() - console
        if written:
            return Finding("console", f"{written} bytes were written to stdout or stderr, past Python's logging")
        return None

    def _peak(self) -> float:
        return int(os.pread(self._status, 4096, 0).split(b"VmHWM:")[1].split()[0]) / 1024


def _written() -> int:
    """Bytes written so far, where a worker has sent stdout and stderr to files."""
    sys.stdout.flush()
    return sum(os.fstat(stream).st_size for stream in (1, 2))


def _raised(error: Exception) -> Finding:
    text = "".join(traceback.format_exception(error))
    words = f"-{_slug(str(error))}" if isinstance(error, UnreadableTextError) else ""
    return Finding(f"{type(error).__name__}-{_place(error)}{words}", f"{type(error).__name__}: {error}\n{text}"[:6000])


def _place(error: Exception) -> str:
    """File and function of ours in which an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _PACKAGE in frame.filename] or frames
    return f"{os.path.basename(own[-1].filename).removesuffix('.py')}-{own[-1].name.strip('<>')}"


def _unreadable(text: str, error: Exception | None) -> Finding | None:
    try:
        check_text(text)
    except UnreadableTextError as problem:
        kind = "logged" if error is None else type(error).__name__
        trace = "" if error is None else "".join(traceback.format_tb(error.__traceback__))
        place = _slug(str(problem)) if error is None else _place(error)
        return Finding(f"text-{kind}-{place}", f"{kind}, a text of {problem}\n{trace}"[:4000])
    return None


def _slug(text: str) -> str:
    """The words of a text without what differs from input to input."""
    words = re.findall(r"[a-z]{2,}", re.sub(r"'[^']*'|/\S+", "", text[:200]))
    return "-".join(words[:8])
