"""A bag as one sequence of messages, for any number and state of its files."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

from feature_frontend.errors import SourceError
from feature_frontend.sources.bags.files import find_bag_files
from feature_frontend.sources.bags.mcap_storage import MCAP_MAGIC, McapStorage
from feature_frontend.sources.bags.private_copies import PrivateCopies
from feature_frontend.sources.bags.ros1_storage import ROS1_MAGIC, Ros1Storage
from feature_frontend.sources.bags.sqlite_storage import SQLITE_MAGIC, SqliteStorage
from feature_frontend.sources.bags.storage import (
    ZSTD_MAGIC,
    BagMessage,
    Losses,
    Storage,
    decompress,
    difference,
    merged_topics,
)
from feature_frontend.system.text import listed, short_text

__all__ = ["Bag"]

_LONGEST_MAGIC = max(map(len, (SQLITE_MAGIC, MCAP_MAGIC, ROS1_MAGIC)))


class Bag:
    """An open rosbag2 (sqlite3 or MCAP, one or more files, also compressed) or ROS 1 bag.

    Reads the intact parts; `losses` describes the rest. Never changes the files or writes next to them. Files that
    cannot be read in place (compressed, or with an SQLite log) are copied while the bag is open.

    Args:
        path: A file, or the folder of a rosbag2.

    Attributes:
        topics: All topics of the bag, with their message counts.

    Raises:
        SourceError: Nothing in it can be read.
    """

    def __init__(self, path: Path) -> None:
        self._copies = PrivateCopies()
        self._storages: list[Storage] = []
        self._losses = Losses()
        self.close = weakref.finalize(self, _close, self._storages, self._copies)
        """Closes the files; called automatically when the bag is garbage-collected."""
        try:
            found = find_bag_files(path)
            self._losses = found.losses
            self._open(path, found.files, found.types)
        except BaseException:
            self.close()
            raise
        self.topics = merged_topics(topic for storage in self._storages for topic in storage.topics)
        self._compare(path, found.counts)

    @property
    def losses(self) -> Losses:
        """Losses known so far; complete once all messages have been read."""
        every = [self._losses, *(storage.losses for storage in self._storages)]
        return Losses([text for one in every for text in one.missing], [text for one in every for text in one.notes])

    def messages(self, names: Collection[str]) -> Iterator[BagMessage]:
        """The messages of the named topics, file by file in recording order.

        A message known to be damaged keeps its position and has a `problem`.
        """
        for storage in self._storages:
            try:
                for message in storage.messages(names):
                    yield _decompressed(message)
            except Exception as error:  # a failing disk, or any error caused by damaged contents
                storage.losses.lose(
                    f"{storage.name} cannot be read any further: {type(error).__name__}: {short_text(error)}"
                )

    def _open(self, path: Path, files: list[Path], types: dict[str, str]) -> None:
        problems = []
        for file in files:
            try:
                self._storages.append(_open_storage(file, types, self._copies, self._losses))
            except (SourceError, OSError) as error:
                problems.append(short_text(error))
            except Exception as error:  # any error caused by damaged contents
                problems.append(f"{file} is damaged: {type(error).__name__}: {short_text(error)}")
        if not self._storages:
            raise SourceError(f"bag {path} cannot be read: {listed(problems, '; ')}")
        for problem in problems:
            self._losses.lose(problem)

    def _compare(self, path: Path, counts: Counter[str]) -> None:
        found: Counter[str] = Counter()
        for topic in self.topics:
            found[topic.name] += topic.count
        lacking = difference(counts, found)
        if lacking:
            self._losses.lose(f"bag {path} lacks messages that its metadata.yaml counts: {lacking}")
        elif counts and sum(found.values()) > sum(counts.values()):
            self._losses.note(f"bag {path} holds more messages than its metadata.yaml counts; all are read")


def _close(storages: list[Storage], copies: PrivateCopies) -> None:
    while storages:
        storages.pop().close()
    copies.close()


def _open_storage(file: Path, types: dict[str, str], copies: PrivateCopies, losses: Losses) -> Storage:
    """Opens a file according to its first bytes, whatever its name.

    Raises:
        SourceError: It is not a bag file, or too little of it is present.
        OSError: It cannot be read.
    """
    path = file
    begin = _first_bytes(path)
    if begin.startswith(ZSTD_MAGIC):
        path, problem = copies.decompressed(file)
        if problem:
            losses.lose(f"{file}: {problem}")
        begin = _first_bytes(path)
    openers: dict[bytes, Callable[[], Storage]] = {
        SQLITE_MAGIC: lambda: SqliteStorage(path, str(file), copies),
        MCAP_MAGIC: lambda: McapStorage(path, str(file), types),
        ROS1_MAGIC: lambda: Ros1Storage(path, str(file)),
    }
    for magic, opener in openers.items():
        if begin.startswith(magic):
            return opener()
    shown = " ".join(f"{byte:02x}" for byte in begin[:8])
    what = f"it begins with {shown}" if begin else "it is empty"
    raise SourceError(f"{file} is not a bag: {what}; expected a file of sqlite3, MCAP or ROS 1")


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LONGEST_MAGIC)


def _decompressed(message: BagMessage) -> BagMessage:
    # CDR begins with a zero byte, so compressed messages are recognised even without metadata.
    if message.topic.encoding != "cdr" or not message.data.startswith(ZSTD_MAGIC):
        return message
    data, problem = decompress(message.data, "zstd")
    return replace(message, data=bytes(data), problem=problem)
