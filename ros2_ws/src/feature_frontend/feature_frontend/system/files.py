"""Robust file access: names that are not UTF-8, paths that are not regular files, paths for C libraries."""

from __future__ import annotations

import codecs
import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "move_whole",
    "new_file",
    "open_regular_file",
    "path_for_c_library",
    "print_any_name",
    "read_regular_file",
    "readable_name",
    "user_path",
]

_ERRORS = "feature_frontend.readable"
# The range to which Python maps bytes of a file name that are not UTF-8.
_FIRST_ESCAPED, _LAST_ESCAPED = 0xDC80, 0xDCFF


def readable_name(name: str | Path) -> str:
    r"""`name` for people, logs, messages and databases: bytes that are not UTF-8 are escaped, as in "f\xfcr.png".

    Names from file systems without UTF-8 (GBK, Latin-1) contain characters that only Python's own calls accept.
    """
    return str(name).encode("utf-8", _ERRORS).decode("utf-8")


def print_any_name() -> None:
    """Makes stdout and stderr print any name, escaped as by `readable_name`, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_ERRORS)


def user_path(text: str) -> Path:
    """The path that a parameter or an argument names; "~" and "~name" are home folders.

    Never raises: unknown users, zero bytes and overlong names fail when the file is opened.
    """
    try:
        # Not `Path.expanduser`, which raises for an unknown user.
        return Path(os.path.expanduser(text))
    except ValueError:
        return Path(text)


def open_regular_file(path: Path) -> BinaryIO:
    """Opens a file for reading.

    Raises:
        OSError: It cannot be read, or is not a regular file: a pipe would block, a device has no end. The text does
            not contain the path.
    """
    try:
        # A plain open would block on a pipe without a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:
        # A zero byte or a lone surrogate.
        raise OSError(errno.EINVAL, "no file can have such a name") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError("it is not a regular file")
    return open(descriptor, "rb")


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """The content of a file.

    Raises:
        OSError: As for `open_regular_file`; or the file is larger than `max_bytes` (nothing is read), or grows.
    """
    with open_regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise OSError(f"it has {size} bytes; expected at most {max_bytes}")
        content = file.read(size + 1) or b""  # None: the read would block, as for the kernel's log
    if len(content) > size:
        # Files in /proc announce no size, and some have no end.
        raise OSError(f"it has more than the {size} bytes that it announces; expected a file that is not written to")
    return content


@contextmanager
def path_for_c_library(path: Path) -> Iterator[str]:
    """A path to the file that a C library accepts; a file opened by it stays readable after the block.

    The path is absolute, as libraries take "12:30.mp4" for a URL. A name that is not UTF-8, for which OpenCV 5.0 aborts
    the process, is replaced by a symbolic link with another name.

    Raises:
        OSError: The link cannot be made.
    """
    absolute = str(path.absolute())
    if readable_name(absolute) == absolute:
        yield absolute
        return
    with tempfile.TemporaryDirectory(prefix="feature_frontend_") as folder:
        link = Path(folder) / f"file{readable_name(path.suffix)}"
        link.symlink_to(absolute)
        yield str(link)


def _readable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    numbers = [ord(character) for character in error.object[error.start : error.end]]
    shown = [
        f"\\x{number & 0xFF:02x}" if _FIRST_ESCAPED <= number <= _LAST_ESCAPED else f"\\u{number:04x}"
        for number in numbers
    ]
    return "".join(shown), error.end


codecs.register_error(_ERRORS, _readable)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write and read, which replaces `path` when the block ends without an error.

    If the file system supports it, the file has no name until then: nothing is left of it, however the process ends.

    Raises:
        OSError: The file cannot be created, written or renamed.
    """
    descriptor = _nameless(path.parent)
    unfinished: Path | None = None
    if descriptor is None:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        unfinished = Path(name)
    try:
        with open(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if unfinished is None:
                unfinished = path.with_name(f".{path.name}.{os.getpid()}")
                with suppress(FileNotFoundError):
                    unfinished.unlink()
                # Python follows the link only if a directory descriptor is given, although it is not used.
                os.link(_descriptor_path(descriptor), unfinished, src_dir_fd=descriptor, follow_symlinks=True)
        unfinished.replace(path)
    finally:
        if unfinished is not None:
            with suppress(FileNotFoundError):
                unfinished.unlink()


def move_whole(path: Path, target: Path) -> None:
    """Moves a finished file to `target` on the same file system; after a power cut `target` is whole or as before.

    Raises:
        OSError: The file cannot be read or moved.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)


def _nameless(folder: Path) -> int | None:
    """A new unnamed file in `folder` that can be named later; None if the system does not support that."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        descriptor = os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o666)
    except OSError:
        # If the folder itself is the problem, creating a named file reports it.
        return None
    if os.path.exists(_descriptor_path(descriptor)):
        return descriptor
    os.close(descriptor)
    return None


def _descriptor_path(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"
