"""Files of rosbag2's storage sqlite3, including those left by a killed recorder with a log or a journal.

rosbags opens them as "immutable", which ignores the log, and stops at the first damaged page.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from feature_frontend.errors import SourceError
from feature_frontend.sources.bags.private_copies import PrivateCopies
from feature_frontend.sources.bags.storage import BagMessage, BagTopic, Losses, counted_topics, plural, ros2_type_name
from feature_frontend.system.text import short_text

__all__ = ["SQLITE_MAGIC", "SqliteStorage"]

SQLITE_MAGIC = b"SQLite format 3\0"

_WAL, _JOURNAL = "-wal", "-journal"
_WAL_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
# Minimum size of a message's row in the database, even for an empty message.
_LEAST_ROW_BYTES = 16
_ROW_PROBLEM = "its row in the database is damaged"


@dataclass(frozen=True, order=True)
class _Row:
    time_ns: int
    number: int
    topic: int


class SqliteStorage:
    """See `Storage`.

    Lists the rows once, then fetches them one by one: a damaged index or page costs no more than its own rows.

    Args:
        path: The file.
        name: Its name in messages to the user.
        copies: Where to copy it if it has a log or a journal.

    Raises:
        SourceError: It is not a rosbag2.
    """

    def __init__(self, path: Path, name: str, copies: PrivateCopies) -> None:
        self.losses = Losses()
        self.name = name
        # Recorders count from 1: a higher number is damaged, and trying every row up to it would take for ever.
        self._highest_number = _bytes_with_log(path) // _LEAST_ROW_BYTES
        self._database = self._open(path, copies)
        try:
            self._check_size(path)
            try:
                self._topics = self._read_topics()
            except sqlite3.Error as error:
                raise SourceError(f"{name} is not a readable rosbag2: {short_text(error)}") from error
            self._rows = self._list_rows()
        except BaseException:
            self._database.close()
            raise
        counts = Counter(row.topic for row in self._rows)
        self.topics = counted_topics(self._topics, counts, name, self.losses)

    def messages(self, names: Collection[str]) -> Iterator[BagMessage]:
        """See `Storage`."""
        wanted = {number: topic for number, topic in self._topics.items() if topic.name in names}
        for row in sorted(row for row in self._rows if row.topic in wanted):
            topic = wanted[row.topic]
            try:
                (data,) = self._database.execute("SELECT data FROM messages WHERE id = ?", (row.number,)).fetchone()
            except (sqlite3.Error, TypeError):
                data = None
            if isinstance(data, bytes):
                yield BagMessage(topic, row.time_ns, data)
            else:
                yield BagMessage(topic, row.time_ns, b"", _ROW_PROBLEM)

    def close(self) -> None:
        """See `Storage`."""
        self._database.close()

    def _open(self, path: Path, copies: PrivateCopies) -> sqlite3.Connection:
        # Log and journal are next to the target of a link.
        path = path.resolve()
        wal, journal = (path.with_name(path.name + suffix) for suffix in (_WAL, _JOURNAL))
        beside = [file for file in (wal, journal) if file.is_file() and _is_in_use(file)]
        if not beside:
            # In this mode SQLite writes nothing next to the file, whatever its header says.
            return _connect(path, "mode=ro&immutable=1")
        folder = copies.copy([*beside, path])
        database = _connect(folder / path.name, "mode=rw")
        if wal in beside:
            self._apply_log(database, wal)
        if journal in beside:
            self.losses.lose(f"the last transaction of {self.name} was not ended: what it was writing is lost")
        return database

    def _apply_log(self, database: sqlite3.Connection, wal: Path) -> None:
        """Makes SQLite apply the log in the copy, and compares the applied pages with those present."""
        there = _frames(wal)
        try:
            (_, _, taken) = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error:
            taken = 0
        self.losses.note(f"the recorder of {self.name} was stopped; its latest messages are read from {wal.name}")
        if there is None or max(taken, 0) < there:
            self.losses.lose(
                f"the end of {wal.name} is damaged, or was not written to its end: messages in it are lost"
            )

    def _check_size(self, path: Path) -> None:
        with path.open("rb") as file:
            header = file.read(100)
        if len(header) < 100:
            return
        (page,) = struct.unpack_from(">H", header, 16)
        changes, pages = struct.unpack_from(">II", header, 24)
        (valid_for,) = struct.unpack_from(">I", header, 92)
        expected = pages * (65536 if page == 1 else page)
        if changes == valid_for and path.stat().st_size < expected:
            self.losses.lose(f"{self.name} is cut: it has {path.stat().st_size} of {expected} bytes")

    def _read_topics(self) -> dict[int, BagTopic]:
        columns = {row[1] for row in self._database.execute("PRAGMA table_info(topics)")}
        encoding = "serialization_format" if "serialization_format" in columns else "'cdr'"
        definitions: dict[str, tuple[str, str]] = {}
        try:
            for name, kind, text in self._database.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            ):
                definitions[_text(name)] = (_text(kind), _text(text))
        except sqlite3.Error:
            # Bags from before Iron have no such table.
            pass
        topics = {}
        for number, name, kind, serialized in self._database.execute(f"SELECT id, name, type, {encoding} FROM topics"):
            type_name = _text(kind)
            definition_format, definition = definitions.get(type_name, ("", ""))
            topics[number] = BagTopic(
                _text(name), ros2_type_name(type_name), _text(serialized), definition, definition_format
            )
        return topics

    def _list_rows(self) -> list[_Row]:
        rows: dict[int, _Row] = {}
        lost = 0
        try:
            for number, topic, time_ns in self._database.execute(
                "SELECT id, topic_id, timestamp FROM messages NOT INDEXED"
            ):
                rows[number] = _Row(_integer(time_ns), number, _integer(topic))
        except sqlite3.Error as error:
            self.losses.lose(f"{self.name} is damaged: {error}")
            lost = self._rescue_rows(rows)
        indexed = self._indexed_rows()
        lost = max(lost, len(indexed - rows.keys()))
        if lost > 0:
            self.losses.lose(f"{plural(lost, 'message')} of {self.name} cannot be read")
        return list(rows.values())

    def _rescue_rows(self, rows: dict[int, _Row]) -> int:
        """Requests each row by its number, also beyond the damage; returns how many are known to be lost."""
        known = {*rows, *self._indexed_rows()}
        with suppress(sqlite3.Error):
            known.update(self._database.execute("SELECT max(id) FROM messages").fetchone())
        last = max((n for n in known if isinstance(n, int) and n <= self._highest_number), default=0)
        lost = 0
        for number in range(1, last + 1):
            if number in rows:
                continue
            try:
                found = self._database.execute(
                    "SELECT topic_id, timestamp FROM messages WHERE id = ?", (number,)
                ).fetchone()
            except sqlite3.Error:
                lost += 1
            else:
                if found is not None:
                    rows[number] = _Row(_integer(found[1]), number, _integer(found[0]))
        return lost

    def _indexed_rows(self) -> set[int]:
        """Row numbers from the index of times, as far as it can be read."""
        numbers = set()
        try:
            for (number,) in self._database.execute("SELECT id FROM messages INDEXED BY timestamp_idx"):
                numbers.add(number)
        except sqlite3.Error:
            # The index may be damaged or missing.
            pass
        return numbers


def _connect(path: Path, options: str) -> sqlite3.Connection:
    # One thread uses it, but the garbage collector may close it in another.
    name = f"file:{quote(os.fsencode(path))}?{options}"
    database = sqlite3.connect(name, uri=True, check_same_thread=False)
    database.text_factory = lambda data: data.decode("utf-8", "replace")
    # SQLite refuses a truncated file unless the schema is writable; nothing is written.
    database.execute("PRAGMA writable_schema = ON")
    return database


def _bytes_with_log(path: Path) -> int:
    path = path.resolve()
    log = path.with_name(path.name + _WAL)
    return path.stat().st_size + (log.stat().st_size if log.is_file() else 0)


def _integer(value: object) -> int:
    """An integer; 0 for any other value of a damaged row."""
    return value if isinstance(value, int) else 0


def _text(value: object) -> str:
    """A text; empty for any other value of a damaged row."""
    return value if isinstance(value, str) else ""


def _is_in_use(file: Path) -> bool:
    """Whether the file has a non-empty log or journal."""
    with file.open("rb") as opened:
        begin = opened.read(_WAL_HEADER_BYTES + 1)
    if file.name.endswith(_JOURNAL):
        return begin.startswith(_JOURNAL_MAGIC)
    return len(begin) > _WAL_HEADER_BYTES


def _frames(wal: Path) -> int | None:
    """Number of pages in a log since its last restart, the last one possibly incomplete; None if it is damaged."""
    with wal.open("rb") as file:
        header = file.read(_WAL_HEADER_BYTES)
        magic, _, page, _ = struct.unpack_from(">IIII", header)
        salts = header[16:24]
        if magic & ~1 != 0x377F0682 or not 512 <= page <= 65536:
            return None
        frames = 0
        while len(frame := file.read(_FRAME_HEADER_BYTES)) == _FRAME_HEADER_BYTES and frame[8:16] == salts:
            frames += 1
            file.seek(page, os.SEEK_CUR)
        # Pages of an earlier round have other salts; they cannot be at the front.
        return None if frames == 0 else frames + (0 < len(frame) < _FRAME_HEADER_BYTES)
