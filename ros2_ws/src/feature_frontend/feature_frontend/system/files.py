"""Files as they really are called: names that are no UTF-8, things that are no regular files, and C libraries."""

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
    "new_file",
    "open_regular_file",
    "path_for_c_library",
    "print_any_name",
    "read_regular_file",
    "readable_name",
    "user_path",
]

_ERRORS = "feature_frontend.readable"
# What Python makes of a byte that is no UTF-8 in a file's name.
_FIRST_ESCAPED, _LAST_ESCAPED = 0xDC80, 0xDCFF


def readable_name(name: str | Path) -> str:
    r"""`name` for people, logs, messages and databases: each byte that is no UTF-8 as in "f\xfcr.png".

    Names from file systems without UTF-8 (GBK, Latin-1) hold characters that nothing but Python's own calls can take.
    """
    return str(name).encode("utf-8", _ERRORS).decode("utf-8")


def print_any_name() -> None:
    """Lets stdout and stderr print whatever is in a name, as `readable_name` has it, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_ERRORS)


def user_path(text: str) -> Path:
    """The path that a parameter or an argument names; "~" and "~name" are the folders of users.

    Whatever the text is, nothing is raised: the folder of nobody, zero bytes and endless names are refused where the
    file is opened.
    """
    try:
        # Not `Path.expanduser`, which raises for a name that no user has.
        return Path(os.path.expanduser(text))
    except ValueError:
        return Path(text)


def open_regular_file(path: Path) -> BinaryIO:
    """Opens a file for reading.

    Raises:
        OSError: It cannot be read, or is no regular file: a pipe would be waited for, a device has no end. The text
            is without the path.
    """
    try:
        # A pipe without a writer would be waited for by the plain call.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:
        # A zero byte, or half of a character.
        raise OSError(errno.EINVAL, "no file can have such a name") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        msg = "it is no regular file"
        raise OSError(msg)
    return open(descriptor, "rb")


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """The content of a file.

    Raises:
        OSError: As `open_regular_file`; or it is larger than `max_bytes`, of which nothing is read; or it grows.
    """
    with open_regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            msg = f"it has {size} bytes; expected at most {max_bytes}"
            raise OSError(msg)
        content = file.read(size + 1) or b""  # None: it would be waited for, as for the kernel's log
    if len(content) > size:
        # Files of /proc announce no size at all, and some have no end.
        msg = f"it has more than the {size} bytes that it announces; expected a file that is not written to"
        raise OSError(msg)
    return content


@contextmanager
def path_for_c_library(path: Path) -> Iterator[str]:
    """A path to the file that a C library can take; the file stays open to it after the block.

    Absolute, as libraries take "12:30.mp4" for a URL. A name that is no UTF-8, which OpenCV 5.0 ends the process for,
    is reached by a link of another name.

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
    """A file to write and read, which takes the place of `path` when the block ends without an error.

    Where the file system can do so it has no name until then: nothing is left of it, however the process ends.

    Raises:
        OSError: It cannot be made, written or named.
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
                # With a folder to begin at, which is not used, Python follows the link; without, whatever it is told.
                os.link(_descriptor_path(descriptor), unfinished, src_dir_fd=descriptor, follow_symlinks=True)
        unfinished.replace(path)
    finally:
        if unfinished is not None:
            with suppress(FileNotFoundError):
                unfinished.unlink()


def _nameless(folder: Path) -> int | None:
    """A new file in `folder` without a name that can be given one; None where the system has no such thing."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        descriptor = os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o666)
    except OSError:
        # Whatever else is wrong with the folder, the attempt at a file with a name says so.
        return None
    if os.path.exists(_descriptor_path(descriptor)):
        return descriptor
    os.close(descriptor)
    return None


def _descriptor_path(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"
