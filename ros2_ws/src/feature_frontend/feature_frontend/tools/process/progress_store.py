"""The progress of a run in an SQLite file: a run killed at any moment leaves only complete steps.

A step consists of the messages of some frames and the state after the last of them. A hash over all steps detects
changes.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.runtime.snapshot import Snapshot

__all__ = ["FILE_NAME", "BusyError", "ProgressStore"]

FILE_NAME = "progress.db"
# How long another process, such as one just killed, may take to release the file.
_LOCK_TIMEOUT_S = 5.0
# Version of the tables; stored in SQLite's user_version.
_VERSION = 2
_SCHEMA = f"""
CREATE TABLE run(job TEXT NOT NULL, state TEXT NOT NULL, is_last INTEGER NOT NULL, messages INTEGER NOT NULL,
                 messages_sha256 TEXT NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE arrays(id INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE messages(id INTEGER PRIMARY KEY, topic TEXT NOT NULL, time_ns INTEGER NOT NULL, data BLOB NOT NULL);
PRAGMA user_version = {_VERSION};
"""
_NO_STATE = ""


class BusyError(FeatureFrontendError):
    """Another process works on the same output."""


class ProgressStore(AbstractContextManager["ProgressStore"]):
    """The messages and the state of one run; leaving the context discards uncommitted messages.

    Args:
        folder: Folder of the file; created if missing.
        kept_at: Where the user finds the file if this is a copy; for errors.

    Raises:
        FeatureFrontendError: Another process uses the file, or it cannot be created or read, is damaged, or was written
            by another version of this program. All methods may raise it.
    """

    def __init__(self, folder: Path, kept_at: str = "") -> None:
        self._path = folder / FILE_NAME
        self._shown, self._to_delete = kept_at or self._path, kept_at or folder
        self._messages = _Messages()
        self._job = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"{folder} cannot be made: {error}") from error
        with self._readable_errors():
            self._database = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT_S, isolation_level=None)
        try:
            with self._readable_errors():
                # Locked until the end: two processes must not write one output.
                self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._database.execute("BEGIN EXCLUSIVE")
                self._make_or_check_tables()
        except FeatureFrontendError:
            self._database.close()
            raise

    def job(self) -> dict[str, object] | None:
        """The job of the run stored here; None if there is none."""
        row = self._run()
        try:
            return None if row is None else dict(json.loads(row[0]))
        except (TypeError, ValueError, RecursionError):
            self.refuse("its job cannot be read")

    def begin(self, job: Mapping[str, object], state: Snapshot | None = None) -> None:
        """Deletes the contents and starts a run, from `state` if it continues another one."""
        self._messages, self._job = _Messages(), json.dumps(job)
        with self._readable_errors():
            self._database.execute("DELETE FROM messages")
        self.commit(state or Snapshot(_NO_STATE, ()))

    def copy_state(self, folder: Path) -> None:
        """Writes job and state of a finished run into a store of their own, without the messages."""
        job, found = self.job(), self.state()
        assert job is not None
        assert found is not None
        with ProgressStore(folder) as copy:
            copy.begin(job)
            copy.commit(found[0], is_last=found[1])

    def state(self) -> tuple[Snapshot, bool] | None:
        """The state after the latest step, and whether that was the last one; None before the first step.

        First verifies all stored messages, because more will be appended.
        """
        row = self._run()
        if row is None:
            return None
        self._job, document, is_last = row[:3]
        self._messages = _Messages()
        for message in self._rows():
            self._messages.add(*message)
        if self._messages.seal != row[3:5]:
            self.refuse(f"it holds {self._messages.count} messages; expected {row[3]}, as they were written")
        return None if document == _NO_STATE else (Snapshot(document, self._arrays()), bool(is_last))

    def add(self, topic: str, time_ns: int, data: bytes) -> None:
        """Adds a message to the current step."""
        with self._readable_errors():
            self._database.execute(
                "INSERT INTO messages(topic, time_ns, data) VALUES (?, ?, ?)", (topic, time_ns, data)
            )
        self._messages.add(topic, time_ns, data)

    def commit(self, snapshot: Snapshot, *, is_last: bool = False) -> None:
        """Ends the current step and stores the state after it."""
        row = (self._job, snapshot.document, int(is_last), *self._messages.seal)
        with self._readable_errors():
            self._database.execute("DELETE FROM run")
            self._database.execute("DELETE FROM arrays")
            self._database.executemany("INSERT INTO arrays(data) VALUES (?)", ((data,) for data in snapshot.arrays))
            self._database.execute("INSERT INTO run VALUES (?, ?, ?, ?, ?, ?)", (*row, _seal(row, snapshot.arrays)))
            self._database.execute("COMMIT")
            self._database.execute("BEGIN EXCLUSIVE")

    def messages(self) -> Iterator[tuple[str, int, bytes]]:
        """Topic, time in ns and content of all messages, in order; verifies the hash at the end."""
        found = _Messages()
        for message in self._rows():
            found.add(*message)
            yield message
        if found.seal != self._messages.seal:
            self.refuse(f"{self._messages.count} messages were written, and others came back")

    def refuse(self, why: str) -> NoReturn:
        """Raises the error for a damaged file, with advice."""
        raise FeatureFrontendError(f"{self._shown} is damaged: {why}; delete {self._to_delete} to start over")

    def _make_or_check_tables(self) -> None:
        tables = list(self._database.execute("SELECT name FROM sqlite_master"))
        if not tables:
            for statement in _SCHEMA.split(";"):
                self._database.execute(statement)
            return
        ((version,),) = self._database.execute("PRAGMA user_version")
        if version != _VERSION:
            raise SettingsError(
                f"{self._shown} is of another version of this program (its tables are of version {version}, expected "
                f"{_VERSION}); use that version, or delete {self._to_delete} to start over"
            )

    def _run(self) -> tuple[Any, ...] | None:
        """Job, state, whether it is final, number and hash of the messages; None in a new file."""
        rows = self._read("SELECT job, state, is_last, messages, messages_sha256, sha256 FROM run")
        if not rows and not self._read("SELECT 1 FROM messages LIMIT 1"):
            return None
        if len(rows) != 1 or tuple(map(type, rows[0])) != (str, str, int, int, str, str):
            self.refuse(f"{len(rows)} runs are in it; expected one")
        *row, seal = rows[0]
        if seal != _seal(row, self._arrays()):
            self.refuse("the state in it is not as it was written")
        return tuple(row)

    def _arrays(self) -> list[bytes]:
        arrays = [data for (data,) in self._read("SELECT data FROM arrays ORDER BY id")]
        if not all(isinstance(data, bytes) for data in arrays):
            self.refuse("an array of the state is invalid")
        return arrays

    def _rows(self) -> Iterator[tuple[str, int, bytes]]:
        with self._readable_errors():
            for row in self._database.execute("SELECT topic, time_ns, data FROM messages ORDER BY id"):
                if tuple(map(type, row)) != (str, int, bytes):
                    self.refuse("a message in it is invalid")
                yield row

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        with self._readable_errors():
            return list(self._database.execute(query))

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError:
            # Raised by sqlite3 for a damaged name or text.
            self.refuse("a text in it is invalid")
        except sqlite3.Error as error:
            text = str(error)
            if "locked" in text:
                raise BusyError(f"another process works on {self._path.parent}; wait for it, or end it") from error
            if "disk is full" in text:
                msg = f"{self._path} cannot be written: no space is left; free some and run the same command again "
                msg += "to resume"
            elif any(words in text for words in ("disk I/O", "unable to open", "readonly")):
                msg = f"{self._path} cannot be read or written: {text}; check the disk, its quota and permissions, "
                msg += "and run the same command again to resume"
            else:
                self.refuse(text)
            raise FeatureFrontendError(msg) from error

    def __exit__(self, *_error: object) -> None:
        """Closes the file."""
        self._database.close()


class _Messages:
    """Number and hash of the messages of a run."""

    def __init__(self) -> None:
        self.count = 0
        self._digest = hashlib.sha256()

    def add(self, topic: str, time_ns: int, data: bytes) -> None:
        self.count += 1
        self._digest.update(f"{topic} {time_ns} {len(data)}\n".encode())
        self._digest.update(data)

    @property
    def seal(self) -> tuple[int, str]:
        return self.count, self._digest.hexdigest()


def _seal(row: Any, arrays: Any) -> str:
    digest = hashlib.sha256(json.dumps([_VERSION, *row, [len(data) for data in arrays]]).encode())
    for data in arrays:
        digest.update(data)
    return digest.hexdigest()
