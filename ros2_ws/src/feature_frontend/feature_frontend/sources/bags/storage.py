"""The format-independent contents of a bag file, and its losses."""

from __future__ import annotations

import bz2
import heapq
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from feature_frontend.errors import SourceError
from feature_frontend.system.text import listed, printable, quoted, short_text

__all__ = [
    "ZSTD_MAGIC",
    "BagMessage",
    "BagTopic",
    "Chunk",
    "ChunkedStorage",
    "Losses",
    "Storage",
    "counted_topics",
    "decompress",
    "difference",
    "in_order",
    "merged_topics",
    "plural",
    "ros2_type_name",
    "zstd_decompressor",
]

_SHOWN_CHARACTERS = 60
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag.

    Attributes:
        name: Such as "/camera/image_raw".
        type_name: Such as "sensor_msgs/msg/Image"; empty if the file does not contain it.
        encoding: Of the messages: "cdr", "ros1", or those of other programs ("json", "protobuf").
        definition: Text of the type's definition; empty if the file has none.
        definition_format: "ros2msg", "ros2idl", "ros1msg", or those of other programs.
        count: Number of messages found.
    """

    name: str
    type_name: str
    encoding: str
    definition: str = ""
    definition_format: str = ""
    count: int = 0


@dataclass(frozen=True)
class BagMessage:
    """A serialized message of a bag.

    Attributes:
        topic: Its topic, as in the file that contains the message.
        time_ns: Recording time in ns.
        data: The serialized message; empty if it cannot be read.
        problem: Why it cannot be read; empty otherwise.
    """

    topic: BagTopic
    time_ns: int
    data: bytes
    problem: str = ""


@dataclass
class Losses:
    """Known losses of a bag, one sentence each, and further notes for the user.

    Sentences are short and printable, even with names and words from damaged files.

    Attributes:
        missing: Recorded data that cannot be read, or may be missing because the bag was not finished.
        notes: Peculiarities without loss.
    """

    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lose(self, text: str) -> None:
        """Adds to `missing`, once."""
        _add(self.missing, text)

    def note(self, text: str) -> None:
        """Adds to `notes`, once."""
        _add(self.notes, text)


def _add(texts: list[str], text: str) -> None:
    short = short_text(text)
    if short not in texts:
        texts.append(short)


class Storage(Protocol):
    """An open file of a bag.

    Attributes:
        name: Its name in messages to the user.
        topics: All topics in it.
        losses: Known losses; more may be found while reading messages.
    """

    name: str
    topics: list[BagTopic]
    losses: Losses

    def messages(self, names: Collection[str]) -> Iterator[BagMessage]:
        """The messages of the named topics, in recording order."""

    def close(self) -> None:
        """Closes the file."""


def in_order(parts: Iterable[tuple[int, Callable[[], Iterable[BagMessage]]]]) -> Iterator[BagMessage]:
    """Merges the messages of parts of a file by time, loading each part only when its first message is due.

    Args:
        parts: Time of the earliest message in ns and a function that loads the messages of each part, in file order.
    """

    def messages_of(
        index: int, earliest_ns: int, load: Callable[[], Iterable[BagMessage]]
    ) -> Iterator[tuple[int, int, int, BagMessage | None]]:
        # heapq.merge requests each part's first element at once, but the second only when the first is the smallest.
        yield earliest_ns, index, -1, None
        loaded = sorted(load(), key=lambda message: message.time_ns)
        for number, message in enumerate(loaded):
            yield message.time_ns, index, number, message

    for *_, message in heapq.merge(*(messages_of(index, *part) for index, part in enumerate(parts))):
        if message is not None:
            yield message


@dataclass
class Chunk:
    """Position and earliest time of a chunk, and its number of messages by topic number; None if unknown.

    `is_scanned`: its damage has been reported.
    """

    position: int
    earliest_ns: int
    counts: Counter[int] | None
    size: int = 0
    is_scanned: bool = False


class ChunkedStorage(ABC):
    """Base class of formats with chunks of compressed records: see `Storage`.

    A subclass fills `_by_number`, `_chunks` and `_loose`, and parses the contents of a chunk.

    Args:
        path: The file, which must begin with `magic`.
        name: Its name in messages to the user.
        magic: Its first bytes.
        what: Name of the format.

    Raises:
        SourceError: It begins with other bytes.
    """

    topics: list[BagTopic]

    def __init__(self, path: Path, name: str, magic: bytes, what: str) -> None:
        self.losses = Losses()
        self.name = name
        self._size = path.stat().st_size
        self._file = path.open("rb")
        self._by_number: dict[int, BagTopic] = {}
        self._chunks: list[Chunk] = []
        # Messages outside chunks: time, number of the topic, position and length of the data.
        self._loose: list[tuple[int, int, int, int]] = []
        try:
            if self._read(0, len(magic)) != magic:
                raise SourceError(f"{name} is no {what}: its first bytes are others")
            self._take_contents()
        except BaseException:
            self._file.close()
            raise

    @abstractmethod
    def _take_contents(self) -> None:
        """Reads the list of contents."""

    @abstractmethod
    def _content(self, chunk: Chunk) -> tuple[memoryview, str]:
        """The records of a chunk as far as readable, and a description of its damage."""

    @abstractmethod
    def _messages_in(self, content: memoryview, *, learns: bool) -> Iterator[tuple[int, int, memoryview]]:
        """Topic number, time and data of messages; `learns`: adds new topics. ValueError after the last intact one."""

    def messages(self, names: Collection[str]) -> Iterator[BagMessage]:
        """See `Storage`."""
        wanted = {number: topic for number, topic in self._by_number.items() if topic.name in names}
        parts: list[tuple[int, Callable[[], Iterable[BagMessage]]]] = [
            (chunk.earliest_ns, partial(self._messages_of, chunk, wanted))
            for chunk in self._chunks
            if chunk.counts is None or any(chunk.counts[number] for number in wanted)
        ]
        parts += [
            (time_ns, partial(self._loose_message, wanted[number], time_ns, position, size))
            for time_ns, number, position, size in self._loose
            if number in wanted
        ]
        yield from in_order(parts)

    def close(self) -> None:
        """See `Storage`."""
        self._file.close()

    def _read(self, position: int, size: int) -> bytes:
        self._file.seek(position)
        return self._file.read(size)

    def _counted(self) -> Counter[int]:
        """Number of messages by topic number, as far as known from the chunks."""
        counts = Counter(number for _, number, _, _ in self._loose)
        for chunk in self._chunks:
            counts += chunk.counts or Counter()
        return counts

    def _scan_chunk(self, position: int, size: int = 0) -> None:
        counts: Counter[int] = Counter()
        chunk = Chunk(position, 1 << 64, counts, size, is_scanned=True)
        content, problem = self._content(chunk)
        try:
            for number, time_ns, _ in self._messages_in(content, learns=True):
                counts[number] += 1
                chunk.earliest_ns = min(chunk.earliest_ns, time_ns)
        except ValueError as error:
            problem = problem or str(error)
        if problem:
            self._lose_of_chunk(chunk, f"{problem}; {plural(sum(counts.values()), 'message')} found in it")
        self._chunks.append(chunk)

    def _check_index(self, number: int, count: int) -> None:
        """Compares the count of a topic in the index after the latest chunk with the chunk's contents."""
        lost = count - (self._chunks[-1].counts or Counter())[number]
        if lost > 0:
            self._lose_of_chunk(self._chunks[-1], f"{plural(lost, 'message')} cannot be read")

    def _messages_of(self, chunk: Chunk, wanted: Mapping[int, BagTopic]) -> list[BagMessage]:
        content, problem = self._content(chunk)
        found: list[BagMessage] = []
        counts: Counter[int] = Counter()
        try:
            for number, time_ns, data in self._messages_in(content, learns=False):
                counts[number] += 1
                if number in wanted:
                    found.append(BagMessage(wanted[number], time_ns, bytes(data)))
        except ValueError as error:
            problem = problem or str(error)
        lost = difference(self._by_topic(chunk.counts or Counter()), self._by_topic(counts))
        if (lost or problem) and not chunk.is_scanned:
            self._lose_of_chunk(chunk, "; ".join(filter(None, (problem, lost and f"{lost} cannot be read"))))
        return found

    def _loose_message(self, topic: BagTopic, time_ns: int, position: int, size: int) -> list[BagMessage]:
        return [BagMessage(topic, time_ns, self._read(position, size))]

    def _lose_of_chunk(self, chunk: Chunk, text: str) -> None:
        self.losses.lose(f"the chunk at byte {chunk.position} of {self.name} is damaged: {text}")

    def _by_topic(self, counts: Counter[int]) -> Counter[str]:
        total: Counter[str] = Counter()
        for number, count in counts.items():
            if number in self._by_number:
                total[self._by_number[number].name] += count
        return total


def counted_topics(topics: Mapping[int, BagTopic], counts: Counter[int], name: str, losses: Losses) -> list[BagTopic]:
    """The topics of the file `name` with their message counts; messages without a topic are lost."""
    homeless = sum(count for number, count in counts.items() if number not in topics)
    if homeless:
        losses.lose(f"{plural(homeless, 'message')} of {name} belong to no topic that is known")
    return merged_topics(replace(topic, count=counts[number]) for number, topic in topics.items())


def merged_topics(topics: Iterable[BagTopic]) -> list[BagTopic]:
    """Merges topics of the same name, type and encoding, and adds their message counts."""
    merged: dict[tuple[str, str, str], BagTopic] = {}
    for topic in topics:
        key = (topic.name, topic.type_name, topic.encoding)
        earlier = merged.get(key)
        merged[key] = topic if earlier is None else replace(earlier, count=earlier.count + topic.count)
    return list(merged.values())


def ros2_type_name(name: str) -> str:
    """The ROS 2 name of a type: "sensor_msgs/msg/Image" for ROS 1's "sensor_msgs/Image"."""
    package, slash, rest = name.partition("/")
    return f"{package}/msg/{rest}" if slash and "/" not in rest else name


def plural(count: int, noun: str) -> str:
    """Such as "1 message", "3 messages"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def difference(expected: Counter[str], found: Counter[str]) -> str:
    """The part of `expected` missing from `found`, such as "2 of 10 messages of /image"; empty if complete."""
    lost = {name: (count - found[name], count) for name, count in expected.items() if count > found[name]}
    return listed(
        f"{few} of {plural(count, 'message')} of {printable(name, _SHOWN_CHARACTERS)}"
        for name, (few, count) in sorted(lost.items())
    )


def zstd_decompressor() -> Any:
    """An object whose `decompress(data)` returns what can be decompressed so far.

    Raises:
        SourceError: No zstd library is installed.
    """
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdDecompressor

        return ZstdDecompressor()
    # The version of rosbags determines which of the two is installed.
    try:
        from backports.zstd import ZstdDecompressor as BackportsDecompressor

        return BackportsDecompressor()
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError as error:
        raise SourceError(
            "reading what zstd has compressed needs a Python package: pip install backports.zstd"
        ) from error
    return zstandard.ZstdDecompressor().decompressobj()


def decompress(data: bytes | memoryview, compression: str) -> tuple[bytes | memoryview, str]:
    """Decompresses `data` as far as possible; also returns why not further, empty if complete.

    Args:
        data: One frame.
        compression: "", "none", "zstd", "lz4" or "bz2".
    """
    if compression in {"", "none"}:
        return data, ""
    if compression not in _DECOMPRESSORS:
        return b"", f"compression {quoted(compression)} is unknown; expected one of {', '.join(_DECOMPRESSORS)}"
    try:
        decompressor = _DECOMPRESSORS[compression]()
        whole = bytes(decompressor.decompress(data))
    except SourceError:
        raise
    except Exception as error:  # each library raises different errors
        return _beginning(data, compression), f"it cannot be decompressed: {short_text(error)}"
    return whole, "" if decompressor.eof else "its compressed data have no end"


def _beginning(data: bytes | memoryview, compression: str) -> bytes:
    """Decompresses damaged data up to the damage."""
    decompressor = _DECOMPRESSORS[compression]()
    beginning = bytearray()
    piece_bytes = 1 << 12
    with suppress(Exception):
        for begin in range(0, len(data), piece_bytes):
            beginning += decompressor.decompress(data[begin : begin + piece_bytes])
    return bytes(beginning)


def _lz4_decompressor() -> Any:
    from lz4.frame import LZ4FrameDecompressor

    return LZ4FrameDecompressor()


_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "zstd": zstd_decompressor,
    "lz4": _lz4_decompressor,
    "bz2": bz2.BZ2Decompressor,
}
