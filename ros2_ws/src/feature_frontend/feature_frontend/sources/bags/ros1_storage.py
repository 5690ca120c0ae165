"""Bags of ROS 1, by their index where it is whole, else from the front, such as those whose recorder was killed.

rosbags refuses a bag without an index. The format is that of http://wiki.ros.org/Bags/Format/2.0.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from feature_frontend.errors import SourceError
from feature_frontend.sources.bags.storage import (
    BagMessage,
    BagTopic,
    Losses,
    decompress,
    difference,
    in_order,
    merged_topics,
    plural,
    ros2_type_name,
)
from feature_frontend.system.text import quoted

__all__ = ["ROS1_MAGIC", "Ros1Storage"]

ROS1_MAGIC = b"#ROSBAG V2.0\n"

_MESSAGE, _BAG, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = 2, 3, 4, 5, 6, 7
_UINT32 = struct.Struct("<I")
_NS_PER_S = 1_000_000_000
_LARGEST_HEADER_BYTES = 1 << 20
_NO_END = "has no index: its recorder was stopped, or the file is cut"

_Header = Mapping[str, bytes]


@dataclass
class _Chunk:
    """Where a chunk is, its earliest time, and how many messages of each connection it holds.

    `is_scanned`: what is wrong with it has been said.
    """

    position: int
    earliest_ns: int
    counts: Counter[int]
    is_scanned: bool = False


class Ros1Storage:
    """See `Storage`.

    Args:
        path: The file.
        name: What to call it in messages to the user.

    Raises:
        SourceError: It is no bag of ROS 1 of version 2.0, or it is encrypted.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.losses = Losses()
        self.name = name
        self._size = path.stat().st_size
        self._file = path.open("rb")
        self._topics: dict[int, BagTopic] = {}
        self._chunks: list[_Chunk] = []
        # Messages outside chunks: time, connection, position and length of the data.
        self._loose: list[tuple[int, int, int, int]] = []
        try:
            if self._read(0, len(ROS1_MAGIC)) != ROS1_MAGIC:
                msg = f"{name} is no bag of ROS 1 of version 2.0: its first bytes are others"
                raise SourceError(msg)
            if not self._take_index():
                self._topics, self._chunks = {}, []
                self._scan()
        except BaseException:
            self._file.close()
            raise
        self.topics = self._counted()

    def messages(self, names: Collection[str]) -> Iterator[BagMessage]:
        """See `Storage`."""
        wanted = {number: topic for number, topic in self._topics.items() if topic.name in names}
        parts: list[tuple[int, Callable[[], Iterable[BagMessage]]]] = [
            (chunk.earliest_ns, partial(self._messages_of, chunk, wanted))
            for chunk in self._chunks
            if any(chunk.counts[number] for number in wanted)
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

    def _record(self, position: int) -> tuple[_Header, int, int]:
        """Header of the record at `position`, and position and length of its data; ValueError where it is damaged."""
        start = self._read(position, _UINT32.size)
        if len(start) < _UINT32.size:
            msg = "it ends within a record"
            raise ValueError(msg)
        (size,) = _UINT32.unpack(start)
        if size > min(_LARGEST_HEADER_BYTES, self._size):
            msg = "a record is damaged"
            raise ValueError(msg)
        rest = self._read(position + _UINT32.size, size + _UINT32.size)
        if len(rest) < size + _UINT32.size:
            msg = "it ends within a record"
            raise ValueError(msg)
        (data_size,) = _UINT32.unpack(rest[size:])
        return _header(rest[:size]), position + 2 * _UINT32.size + size, data_size

    def _take_index(self) -> bool:
        """Whether the bag has an index that fits itself; what it says is taken then."""
        try:
            header, _, _ = self._record(len(ROS1_MAGIC))
            if header.get("encryptor"):
                by = quoted(header["encryptor"].decode("ascii", "replace"))
                msg = f"{self.name} is encrypted by {by}; expected a bag that is not"
                raise SourceError(msg)
            position, connections, chunks = (
                _number(header, name) for name in ("index_pos", "conn_count", "chunk_count")
            )
            if _operation(header) != _BAG or not position:
                self.losses.lose(f"{self.name} {_NO_END}")
                return False
            for _ in range(connections + chunks):
                header, begin, size = self._record(position)
                if _operation(header) == _CONNECTION:
                    self._take_connection(header, self._whole(begin, size))
                elif _operation(header) == _CHUNK_INFO:
                    data = self._whole(begin, size)
                    counts = Counter(dict(struct.iter_unpack("<II", data[: len(data) // 8 * 8])))
                    earliest_ns = _time_ns(header, "start_time") if counts else 0
                    self._chunks.append(_Chunk(_number(header, "chunk_pos"), earliest_ns, counts))
                position = begin + size
        except ValueError as error:
            self.losses.lose(f"the index of {self.name} is cut or damaged ({error})")
            return False
        if (len(self._topics), len(self._chunks)) == (connections, chunks) and position == self._size:
            return True
        self.losses.lose(f"the index of {self.name} is damaged")
        return False

    def _whole(self, begin: int, size: int) -> bytes:
        data = self._read(begin, size)
        if len(data) < size:
            msg = "it ends within a record"
            raise ValueError(msg)
        return data

    def _scan(self) -> None:
        position = len(ROS1_MAGIC)
        while position < self._size:
            try:
                header, begin, size = self._record(position)
                operation = _operation(header)
                if operation == _CHUNK:
                    self._scan_chunk(position)
                elif operation == _MESSAGE and begin + size <= self._size:
                    # The recorder does not say how long the chunk is that it was working on.
                    self._loose.append((_time_ns(header, "time"), _number(header, "conn"), begin, size))
                elif operation == _CONNECTION:
                    self._take_connection(header, self._whole(begin, size))
                elif operation == _INDEX and self._chunks:
                    lost = size // 12 - self._chunks[-1].counts[_number(header, "conn")]
                    if lost > 0:
                        self._lose_of_chunk(self._chunks[-1].position, f"{plural(lost, 'message')} cannot be read")
            except ValueError as error:
                self.losses.lose(f"{self.name} is cut or damaged at byte {position}: {error}; what follows is lost")
                return
            if begin + size > self._size:
                self.losses.lose(f"{self.name} is cut or damaged at byte {position}: what follows is lost")
                return
            position = begin + size

    def _scan_chunk(self, position: int) -> None:
        counts: Counter[int] = Counter()
        earliest_ns = 1 << 64
        content, problem = self._content(position)
        try:
            for header, data in _records(content):
                if _operation(header) == _MESSAGE:
                    counts[_number(header, "conn")] += 1
                    earliest_ns = min(earliest_ns, _time_ns(header, "time"))
                elif _operation(header) == _CONNECTION:
                    self._take_connection(header, data)
        except ValueError as error:
            problem = problem or str(error)
        if problem:
            self._lose_of_chunk(position, f"{problem}; {plural(sum(counts.values()), 'message')} found in it")
        self._chunks.append(_Chunk(position, earliest_ns, counts, is_scanned=True))

    def _content(self, position: int) -> tuple[memoryview, str]:
        """The records of a chunk as far as they can be had, and what is wrong with it."""
        try:
            header, begin, size = self._record(position)
            if _operation(header) != _CHUNK:
                return memoryview(b""), "there is none where the index says"
            expected, compression = _number(header, "size"), header["compression"].decode("ascii", "replace")
        except (ValueError, KeyError) as error:
            return memoryview(b""), str(error)
        content, problem = decompress(self._read(begin, size), compression)
        if not problem and len(content) != expected:
            problem = f"it holds {len(content)} bytes, not {expected}"
        return memoryview(content), problem

    def _messages_of(self, chunk: _Chunk, wanted: Mapping[int, BagTopic]) -> list[BagMessage]:
        content, problem = self._content(chunk.position)
        found: list[BagMessage] = []
        counts: Counter[int] = Counter()
        try:
            for header, data in _records(content):
                if _operation(header) != _MESSAGE:
                    continue
                number = _number(header, "conn")
                counts[number] += 1
                if number in wanted:
                    found.append(BagMessage(wanted[number], _time_ns(header, "time"), bytes(data)))
        except ValueError as error:
            problem = problem or str(error)
        lost = difference(self._by_topic(chunk.counts), self._by_topic(counts))
        if (problem or lost) and not chunk.is_scanned:
            self._lose_of_chunk(chunk.position, "; ".join(filter(None, (problem, lost and f"{lost} cannot be read"))))
        return found

    def _lose_of_chunk(self, position: int, text: str) -> None:
        self.losses.lose(f"the chunk at byte {position} of {self.name} is damaged: {text}")

    def _loose_message(self, topic: BagTopic, time_ns: int, position: int, size: int) -> list[BagMessage]:
        return [BagMessage(topic, time_ns, self._read(position, size))]

    def _by_topic(self, counts: Counter[int]) -> Counter[str]:
        total: Counter[str] = Counter()
        for number, count in counts.items():
            if number in self._topics:
                total[self._topics[number].name] += count
        return total

    def _take_connection(self, header: _Header, data: bytes | memoryview) -> None:
        described = _header(bytes(data))
        try:
            name = header["topic"].decode("utf-8", "replace")
            type_name = described["type"].decode("utf-8", "replace")
            definition = described["message_definition"].decode("utf-8", "replace")
        except KeyError as error:
            msg = f"a topic has no {error}"
            raise ValueError(msg) from error
        # rosbag normalises the names of topics likewise: "//a" and "/a/" are "/a".
        name = f"{'/' * name.startswith('/')}{'/'.join(part for part in name.split('/') if part)}"
        topic = BagTopic(name, ros2_type_name(type_name), "ros1", definition, "ros1msg")
        self._topics.setdefault(_number(header, "conn"), topic)

    def _counted(self) -> list[BagTopic]:
        counts: Counter[int] = Counter(number for _, number, _, _ in self._loose)
        for chunk in self._chunks:
            counts += chunk.counts
        homeless = sum(count for number, count in counts.items() if number not in self._topics)
        if homeless:
            self.losses.lose(f"{plural(homeless, 'message')} of {self.name} belong to no topic that is known")
        return merged_topics(
            BagTopic(topic.name, topic.type_name, topic.encoding, topic.definition, "ros1msg", counts[number])
            for number, topic in self._topics.items()
        )


def _records(content: memoryview) -> Iterator[tuple[_Header, memoryview]]:
    """Header and data of the records that fill `content`; ValueError behind the last that is whole."""
    position = 0
    while position < len(content):
        spans = []
        for _ in range(2):
            if position + _UINT32.size > len(content):
                msg = "it ends within a record"
                raise ValueError(msg)
            (size,) = _UINT32.unpack_from(content, position)
            position += _UINT32.size
            if position + size > len(content):
                msg = "a record is cut or damaged"
                raise ValueError(msg)
            spans.append(content[position : position + size])
            position += size
        yield _header(bytes(spans[0])), spans[1]


def _header(data: bytes) -> dict[str, bytes]:
    fields = {}
    position = 0
    while position < len(data):
        (size,) = _UINT32.unpack(data[position : position + 4].ljust(4, b"\xff"))
        name, equals, value = data[position + 4 : position + 4 + size].partition(b"=")
        if not equals or position + 4 + size > len(data):
            msg = "a header is damaged"
            raise ValueError(msg)
        fields[name.decode("ascii", "replace")] = value
        position += 4 + size
    return fields


def _number(header: _Header, name: str) -> int:
    if name not in header:
        msg = f"a record has no {name}"
        raise ValueError(msg)
    return int.from_bytes(header[name], "little")


def _operation(header: _Header) -> int:
    return _number(header, "op")


def _time_ns(header: _Header, name: str) -> int:
    both = _number(header, name)
    return (both & 0xFFFFFFFF) * _NS_PER_S + (both >> 32)
