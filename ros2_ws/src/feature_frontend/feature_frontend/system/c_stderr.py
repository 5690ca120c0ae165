"""Keeps what the decoders of images print off the console, and nothing else.

libpng and libjpeg tell damage by printing it, for each frame, and OpenCV has no switch for that. File descriptor 2
stays as it is, for it belongs to all threads and to child processes: it is the variable `stderr` of the C library that
points to a stream in memory for as long as something is decoded, which glibc's manual allows. What C code of other
threads printed meanwhile goes out afterwards; what Python and C++ print never went that way.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import cv2

__all__ = ["decoders_are_quiet"]

_BUFFER_BYTES = 2**18
_SILENT = 0
# All that libpng prints begins so; of libjpeg, the texts of its warnings (jerror.h).
_WORDS = re.compile(
    rb"libpng (warning|error): .*"
    rb"|Corrupt JPEG data: .*"
    rb"|Premature end of JPEG file"
    rb"|Invalid SOS parameters for sequential JPEG"
    rb"|Inconsistent progression sequence for component .*"
    rb"|Unknown Adobe color transform code .*"
    rb"|Warning: unknown JFIF revision number .*"
    rb"|Application transferred too many scanlines"
)


class _Stderr:
    """The variable `stderr` of glibc; other C libraries have a constant."""

    def __init__(self) -> None:
        library = ctypes.PyDLL(None)
        self.version = library.gnu_get_libc_version
        self._variable = ctypes.c_void_p.in_dll(library, "stderr")
        self._console = self._variable.value
        self._buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
        opening = library.fmemopen
        opening.argtypes, opening.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p), ctypes.c_void_p
        # Never closed: another thread may be about to print to it.
        self._memory = opening(self._buffer, _BUFFER_BYTES, b"w")
        self._flush, self._tell, self._rewind = library.fflush, library.ftell, library.rewind
        for function in (self._flush, self._tell, self._rewind):
            function.argtypes = (ctypes.c_void_p,)
        self._tell.restype, self._rewind.restype = ctypes.c_long, None
        if not self._memory:
            msg = "no stream in memory"
            raise OSError(msg)

    def keep(self) -> None:
        """From now on, what is printed stays in memory."""
        self._console = self._variable.value
        self._variable.value = self._memory

    def let_go(self) -> None:
        """From now on, what is printed goes to the console."""
        self._variable.value = self._console

    def take(self) -> bytes:
        """What has been printed since, out of the memory."""
        self._flush(self._memory)
        printed = ctypes.string_at(self._buffer, max(self._tell(self._memory), 0))
        self._rewind(self._memory)
        return printed


def _stderr() -> _Stderr | None:
    try:
        return _Stderr()
    except (AttributeError, OSError, TypeError, ValueError):
        return None


class _Quiet:
    """Who decodes at present, and what was set before the first of them began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoding = 0
        self._stderr = _stderr()
        # OpenCV's own log: where 5 has its functions, or 4.
        logs: tuple[Any, ...] = (getattr(cv2.utils, "logging", None), cv2)
        self._log = next((log for log in logs if hasattr(log, "setLogLevel")), None)
        self._level = 0

    def enter(self) -> None:
        with self._lock:
            self._decoding += 1
            if self._decoding > 1:
                return
            if self._log is not None:
                self._level = self._log.getLogLevel()
                self._log.setLogLevel(_SILENT)
            if self._stderr is not None:
                self._stderr.keep()

    def leave(self) -> bytes:
        """What was printed that is not the decoders'."""
        with self._lock:
            self._decoding -= 1
            if self._decoding == 0:
                if self._stderr is not None:
                    self._stderr.let_go()
                if self._log is not None:
                    self._log.setLogLevel(self._level)
            printed = b"" if self._stderr is None else self._stderr.take()
        lines = printed.splitlines(keepends=True)
        return b"".join(line for line in lines if not _WORDS.fullmatch(line.rstrip(b"\r\n")))


_quiet = _Quiet()


@contextmanager
def decoders_are_quiet() -> Iterator[None]:
    """Decoders called in the block, by this thread or another, print nothing."""
    _quiet.enter()
    try:
        yield
    finally:
        others = _quiet.leave()
        if others:
            with suppress(OSError):
                os.write(2, others)
