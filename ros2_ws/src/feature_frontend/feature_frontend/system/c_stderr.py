"""Silences the messages that image decoders print to the console, and nothing else.

libpng and libjpeg print a line for each damaged frame, and OpenCV has no switch for that. File descriptor 2 stays
unchanged, as all threads and child processes use it. Instead, the C library's variable `stderr` points to a memory
stream while an image is decoded, which glibc's manual allows. Output of C code in other threads during that time is
printed afterwards; output of Python and C++ does not use this variable.
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
# The prefix of all messages of libpng, and the texts of libjpeg's warnings (jerror.h).
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
    """The variable `stderr` of glibc; in other C libraries it is a constant."""

    def __init__(self) -> None:
        library = ctypes.PyDLL(None)
        self.version = library.gnu_get_libc_version
        self._variable = ctypes.c_void_p.in_dll(library, "stderr")
        self._console = self._variable.value
        self._buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
        opening = library.fmemopen
        opening.argtypes, opening.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p), ctypes.c_void_p
        # Never closed: another thread may be about to write to it.
        self._memory = opening(self._buffer, _BUFFER_BYTES, b"w")
        self._flush, self._tell, self._rewind = library.fflush, library.ftell, library.rewind
        for function in (self._flush, self._tell, self._rewind):
            function.argtypes = (ctypes.c_void_p,)
        self._tell.restype, self._rewind.restype = ctypes.c_long, None
        if not self._memory:
            raise OSError("no stream in memory")

    def keep(self) -> None:
        """Redirects output to memory."""
        self._console = self._variable.value
        self._variable.value = self._memory

    def let_go(self) -> None:
        """Directs output to the console again."""
        self._variable.value = self._console

    def take(self) -> bytes:
        """Returns and clears the output in memory."""
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
    """The number of active decoders, and the settings before the first of them started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoding = 0
        self._stderr = _stderr()
        # OpenCV's log functions: at their place in OpenCV 5, or in OpenCV 4.
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
        """Returns the output that is not from the decoders."""
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
    """In this block, decoders print nothing, in this thread or another."""
    _quiet.enter()
    try:
        yield
    finally:
        others = _quiet.leave()
        if others:
            with suppress(OSError):
                os.write(2, others)
