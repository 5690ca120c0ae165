"""Temporary copies of user files that cannot be read without writing next to them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from feature_frontend.errors import SourceError
from feature_frontend.sources.bags.storage import zstd_decompressor
from feature_frontend.system.text import short_text

__all__ = ["PrivateCopies"]

_PIECE_BYTES = 1 << 20
# An active recorder may change its files while they are copied.
_ATTEMPTS = 3


class PrivateCopies:
    """A temporary folder, created with the first copy and deleted by `close`, at the latest with this object.

    Created by Python's `tempfile`; the environment variable TMPDIR sets another location.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0

    def copy(self, files: Sequence[Path]) -> Path:
        """Copies a consistent snapshot of files that belong together.

        Args:
            files: Files of one folder, the more frequently changing ones first.

        Returns:
            Folder of the copies, which keep their names.

        Raises:
            SourceError: The disk is full, a file cannot be read, or another program is writing to them.
        """
        folder = self._new_folder(sum(file.stat().st_size for file in files), files[-1])
        try:
            for _ in range(_ATTEMPTS):
                before = [_state(file) for file in files]
                for file in files:
                    shutil.copyfile(file, folder / file.name)
                if before == [_state(file) for file in files]:
                    return folder
        except OSError as error:
            raise SourceError(f"{files[-1]} cannot be copied to {folder}: {error}") from error
        raise SourceError(f"another program is writing to {files[-1]}; end the recording first")

    def decompressed(self, file: Path) -> tuple[Path, str]:
        """Decompresses a zstd file as far as possible.

        Returns:
            The decompressed file, and why it is incomplete; empty if it is complete.

        Raises:
            SourceError: The disk is full, or the file cannot be read.
        """
        folder = self._new_folder(file.stat().st_size, file)
        copy = folder / file.stem
        problem = ""
        try:
            with file.open("rb") as source, copy.open("wb") as target:
                decompressor = zstd_decompressor()
                while piece := source.read(_PIECE_BYTES):
                    # A file may contain several zstd frames.
                    while piece:
                        if decompressor.eof:
                            decompressor = zstd_decompressor()
                        try:
                            target.write(decompressor.decompress(piece))
                        except OSError:
                            raise
                        except Exception as error:  # each library raises different errors
                            return copy, f"it cannot be decompressed further: {short_text(error)}"
                        piece = decompressor.unused_data if decompressor.eof else b""
                if not decompressor.eof:
                    problem = "its compressed data have no end"
        except OSError as error:
            raise SourceError(
                f"{file} cannot be decompressed to {folder}: {error}; TMPDIR names another place for it"
            ) from error
        return copy, problem

    def close(self) -> None:
        """Deletes the copies."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _new_folder(self, size: int, file: Path) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="feature_frontend_bag_", ignore_cleanup_errors=True)
        free = shutil.disk_usage(self._folder.name).free
        if free < size:
            raise SourceError(
                f"{file} must be copied to be read, {size / 1e9:.1f} GB, and {self._folder.name} has {free / 1e9:.1f} "
                "GB; set TMPDIR to a folder with more room"
            )
        self._count += 1
        folder = Path(self._folder.name, str(self._count))
        folder.mkdir()
        return folder


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns
