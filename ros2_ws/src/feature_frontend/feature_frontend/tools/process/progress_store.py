"""What a run has made so far, in an SQLite file: SQLite sees to it that a run killed at any moment leaves whole steps.

A step is the messages of some frames together with the state behind the last of them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from feature_frontend.errors import FeatureFrontendError, SettingsError

__all__ = ["ProgressStore"]

FILE_NAME = "progress.db"
# How long another process, such as one just killed, may take to let go of the file.
_LOCK_TIMEOUT_S = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS job(description TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS state(snapshot BLOB NOT NULL, is_last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS messages(id INTEGER PRIMARY KEY, topic TEXT NOT NULL, time_ns INTEGER NOT NULL,
                                    data BLOB NOT NULL);
"""


class ProgressStore:
    """The messages and the state of one run; leaving the context drops what has not been committed.

    Args:
        folder: Where the file is; made where it does not exist.

    Raises:
        FeatureFrontendError: Another process works on it, or the file cannot be made or read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"{folder} cannot be made: {error}"
            raise SettingsError(msg) from error
        with self._readable_errors():
            self._database = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT_S, isolation_level=None)
        try:
            with self._readable_errors():
                # Held until the end: two processes must not work on one output.
                self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._database.execute("BEGIN EXCLUSIVE")
                for statement in _SCHEMA.split(";"):
                    self._database.execute(statement)
        except FeatureFrontendError:
            self._database.close()
            raise

    def job(self) -> dict[str, object] | None:
        """What the run is that was begun here; None where none was."""
        rows = self._read("SELECT description FROM job")
        return dict(json.loads(rows[0][0])) if rows else None

    def begin(self, job: Mapping[str, object]) -> None:
        """Forgets what is there and begins a run."""
        with self._readable_errors():
            for table in ("job", "state", "messages"):
                self._database.execute(f"DELETE FROM {table}")
            self._database.execute("INSERT INTO job VALUES (?)", (json.dumps(job),))
            self._next_step()

    def state(self) -> tuple[bytes, bool] | None:
        """The state behind the latest step, and whether that was the last one; None before the first step."""
        rows = self._read("SELECT snapshot, is_last FROM state")
        return (rows[0][0], bool(rows[0][1])) if rows else None

    def add(self, topic: str, time_ns: int, data: bytes) -> None:
        """Adds a message to the present step."""
        with self._readable_errors():
            self._database.execute(
                "INSERT INTO messages(topic, time_ns, data) VALUES (?, ?, ?)", (topic, time_ns, data)
            )

    def commit(self, snapshot: bytes, *, is_last: bool = False) -> None:
        """Ends the present step, with the state behind it."""
        with self._readable_errors():
            self._database.execute("DELETE FROM state")
            self._database.execute("INSERT INTO state VALUES (?, ?)", (snapshot, is_last))
            self._next_step()

    def messages(self) -> Iterator[tuple[str, int, bytes]]:
        """Topic, time in ns and content of all messages, in their order."""
        with self._readable_errors():
            yield from self._database.execute("SELECT topic, time_ns, data FROM messages ORDER BY id")

    def _next_step(self) -> None:
        self._database.execute("COMMIT")
        self._database.execute("BEGIN EXCLUSIVE")

    def _read(self, query: str) -> list[tuple[str | bytes | int, ...]]:
        with self._readable_errors():
            return list(self._database.execute(query))

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                msg = f"another process works on {self._path.parent}; wait for it, or end it"
            else:
                msg = f"{self._path} cannot be used: {error}; delete its folder to begin anew"
            raise FeatureFrontendError(msg) from error

    def __enter__(self) -> Self:
        """Nothing to do: the file is open from the start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file."""
        self._database.close()
