"""Copies of remote inputs on this machine, in a cache of bounded size that all processes share."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from feature_frontend.errors import FeatureFrontendError, SourceError
from feature_frontend.image.image_file import IMAGE_SUFFIXES
from feature_frontend.models.weights import cache_folder
from feature_frontend.sources import Source
from feature_frontend.sources.datasets.layouts import layout_of
from feature_frontend.tools.process.inputs import describe_files
from feature_frontend.tools.process.remote import RemoteFile, RemoteFolder, is_url

__all__ = ["Input", "layout_of_remote", "work_folder"]

_POLL_S = 0.5
_PARTIAL, _SIZE = ".partial", ".size"
_GIB = 1 << 30
# The top folder of a dataset has fewer; listing those of a fleet would take long.
_MOST_FOLDERS = 32


def work_folder(url: str) -> Path:
    """The folder on this machine for the unfinished output of a URL."""
    return cache_folder() / "unfinished" / hashlib.sha256(url.encode()).hexdigest()[:16]


def layout_of_remote(folder: RemoteFolder) -> str | None:
    """The layout of a remote dataset, by the names in its folder and one level below; None if it is none."""
    inner = folder.folders()
    if not 0 < len(inner) <= _MOST_FOLDERS:
        return None
    with TemporaryDirectory() as temporary:
        # A copy of the names only: what makes a dataset is known to its layout.
        root = Path(temporary) / (folder.name or "root")
        for name in inner:
            (root / name).mkdir(parents=True)
            for one in (folder / name).folders():
                (root / name / one).mkdir()
            for file in (folder / name).files():
                if Path(file.name).suffix.lower() not in IMAGE_SUFFIXES:
                    (root / name / file.name).touch()
        for file in folder.files():
            (root / file.name).touch()
        found = layout_of(root)
    return None if found is None else found.layout


@dataclass(frozen=True)
class Input:
    """An input at a path or behind a URL.

    Attributes:
        location: The path or the URL.
        cache_bytes: As in `Request`.
    """

    location: str
    cache_bytes: int

    @property
    def is_remote(self) -> bool:
        """Whether it must be copied to this machine."""
        return is_url(self.location)

    def identity(self, source: Source | None) -> dict[str, object]:
        """Where it is, and what distinguishes this version of it from others, as in a manifest.

        Args:
            source: The opened input; needed for a local one only.

        Raises:
            SourceError: There is no such input, or it is a remote dataset.
        """
        if self.is_remote:
            return self._remote_identity
        assert source is not None
        return describe_files(self.location, source)

    @cached_property
    def _remote_identity(self) -> dict[str, object]:
        listing = [(file.name, file.size, file.version) for file in self._files]
        return {
            "path": self.location,
            "files": len(listing),
            "bytes": sum(file.size for file in self._files),
            "listing_sha256": hashlib.sha256(json.dumps(listing).encode()).hexdigest(),
        }

    def here(self) -> AbstractContextManager[str]:
        """Its path on this machine, inside the block: its own, or that of a copy.

        Raises:
            FeatureFrontendError: It cannot be read, or is larger than the cache.
        """
        return self._copy() if self.is_remote else nullcontext(self.location)

    @cached_property
    def _folder(self) -> RemoteFolder:
        return RemoteFolder(self.location)

    @cached_property
    def _files(self) -> Sequence[RemoteFile]:
        files = self._folder.files()
        layout = layout_of_remote(self._folder)
        if layout is not None:
            raise SourceError(
                f"{self.location} is a dataset in the layout of {layout}, which is not read from URLs; copy it to a "
                "disk or mount it, and give its path"
            )
        if not files:
            raise SourceError(f"there is no file or folder {self.location}")
        return files

    @contextmanager
    def _copy(self) -> Iterator[str]:
        folder, files = self._folder, self._files
        # A folder keeps its name, which its `run_id` and messages to the user depend on.
        is_file = [file.name for file in files] == [folder.name] and folder.is_file()

        def fill(entry: Path) -> None:
            target = entry if is_file else entry / folder.name
            target.mkdir(exist_ok=True)
            for file in files:
                folder.download(file.name, target / file.name)

        key = hashlib.sha256(json.dumps([self.location, self._remote_identity["listing_sha256"]]).encode()).hexdigest()[
            :24
        ]
        cache = _Cache(cache_folder() / "inputs", self.cache_bytes)
        with cache.entry(key, sum(file.size for file in files), self.location, fill) as entry:
            yield str(entry / folder.name)


class _Cache:
    """Folders by key, the least recently used of which are deleted to make room; never one in use.

    Args:
        folder: That the processes of a machine share; made if missing.
        most_bytes: That all entries may have together.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    @contextmanager
    def entry(self, key: str, size: int, what: str, fill: Callable[[Path], None]) -> Iterator[Path]:
        """An entry, kept until the end of the block; waits for room while others use theirs.

        Args:
            key: Of the entry.
            size: In bytes.
            what: The entry in messages to the user.
            fill: Fills an empty folder, unless the entry exists.

        Raises:
            FeatureFrontendError: It is larger than the cache, or the disk fails.
        """
        if size > self._most_bytes:
            raise FeatureFrontendError(
                f"{what} has {size / _GIB:.2f} GiB, and copies of inputs may take {self._most_bytes / _GIB:.2f} GiB; "
                "raise --cache-gib"
            )
        path = self._folder / key
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / f"{key}.lock").open("ab")
            self._take(lock, path, size, fill)
        except OSError as error:
            raise FeatureFrontendError(
                f"{what} cannot be copied to {self._folder}: {error.strerror or error}; free space, or choose another "
                "folder by XDG_CACHE_HOME"
            ) from error
        with lock:
            yield path

    def _take(self, lock: IO[bytes], path: Path, size: int, fill: Callable[[Path], None]) -> None:
        fcntl.flock(lock, fcntl.LOCK_SH)
        while not path.is_dir():
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_dir():
                self._make_room(path.name, size)
                partial = path.with_suffix(_PARTIAL)
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                fill(partial)
                partial.rename(path)
            # Another process may delete the entry meanwhile: this is not one step.
            fcntl.flock(lock, fcntl.LOCK_SH)
        os.utime(path.with_suffix(_SIZE))

    def _make_room(self, key: str, size: int) -> None:
        with (self._folder / "room").open("ab") as room:
            fcntl.flock(room, fcntl.LOCK_EX)
            while True:
                others = [file for file in self._folder.glob(f"*{_SIZE}") if file.stem != key]
                if sum(int(file.read_text() or 0) for file in others) + size <= self._most_bytes:
                    (self._folder / f"{key}{_SIZE}").write_text(str(size))
                    return
                if not any(map(self._delete, sorted(others, key=lambda file: file.stat().st_mtime_ns))):
                    time.sleep(_POLL_S)

    def _delete(self, size_file: Path) -> bool:
        """Deletes an entry, or what a killed process has left of one; returns whether it was not in use."""
        with size_file.with_suffix(".lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            for suffix in ("", _PARTIAL):
                shutil.rmtree(size_file.with_suffix(suffix), ignore_errors=True)
            size_file.unlink()
            return True
