"""Files that are whole or not there, also when the process that writes them is killed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["new_file"]


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
