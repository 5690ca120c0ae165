"""ROS 1 bags, read by their index if it is intact, else from the front, such as after the recorder was killed.

rosbags refuses a bag without an index. Format: http://wiki.ros.org/Bags/Format/2.0.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from feature_frontend.errors import SourceError
from feature_frontend.sources.bags.storage import (
    BagTopic,
    Chunk,
    ChunkedStorage,
    counted_topics,
    decompress,
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


class Ros1Storage(ChunkedStorage):
    """See `Storage`.

    Args:
        path: The file.
        name: Its name in messages to the user.

    Raises:
        SourceError: It is not a ROS 1 bag of version 2.0, or it is encrypted.
    """

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name, ROS1_MAGIC, "bag of ROS 1 of version 2.0")

    def _take_contents(self) -> None:
        if not self._take_index():
            self._by_number, self._chunks = {}, []
            self._scan()
        self.topics = counted_topics(self._by_number, self._counted(), self.name, self.losses)

    def _record(self, position: int) -> tuple[_Header, int, int]:
        """Header of the record at `position`, and position and length of its data; raises ValueError if damaged."""
        start = self._read(position, _UINT32.size)
        if len(start) < _UINT32.size:
            raise ValueError("it ends within a record")
        (size,) = _UINT32.unpack(start)
        if size > min(_LARGEST_HEADER_BYTES, self._size):
            raise ValueError("a record is damaged")
        rest = self._read(position + _UINT32.size, size + _UINT32.size)
        if len(rest) < size + _UINT32.size:
            raise ValueError("it ends within a record")
        (data_size,) = _UINT32.unpack(rest[size:])
        return _header(rest[:size]), position + 2 * _UINT32.size + size, data_size

    def _take_index(self) -> bool:
        """Reads the index; returns whether it exists and matches the bag."""
        try:
            header, _, _ = self._record(len(ROS1_MAGIC))
            if header.get("encryptor"):
                by = quoted(header["encryptor"].decode("ascii", "replace"))
                raise SourceError(f"{self.name} is encrypted by {by}; expected a bag that is not")
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
                    self._chunks.append(Chunk(_number(header, "chunk_pos"), earliest_ns, counts))
                position = begin + size
        except ValueError as error:
            self.losses.lose(f"the index of {self.name} is cut or damaged ({error})")
            return False
        if (len(self._by_number), len(self._chunks)) == (connections, chunks) and position == self._size:
            return True
        self.losses.lose(f"the index of {self.name} is damaged")
        return False

    def _whole(self, begin: int, size: int) -> bytes:
        data = self._read(begin, size)
        if len(data) < size:
            raise ValueError("it ends within a record")
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
                    # The length of the chunk being written when the recorder stopped is unknown.
                    self._loose.append((_time_ns(header, "time"), _number(header, "conn"), begin, size))
                elif operation == _CONNECTION:
                    self._take_connection(header, self._whole(begin, size))
                elif operation == _INDEX and self._chunks:
                    self._check_index(_number(header, "conn"), size // 12)
            except ValueError as error:
                self.losses.lose(f"{self.name} is cut or damaged at byte {position}: {error}; what follows is lost")
                return
            if begin + size > self._size:
                self.losses.lose(f"{self.name} is cut or damaged at byte {position}: what follows is lost")
                return
            position = begin + size

    def _content(self, chunk: Chunk) -> tuple[memoryview, str]:
        try:
            header, begin, size = self._record(chunk.position)
            if _operation(header) != _CHUNK:
                return memoryview(b""), "there is none where the index says"
            expected, compression = _number(header, "size"), header["compression"].decode("ascii", "replace")
        except (ValueError, KeyError) as error:
            return memoryview(b""), str(error)
        content, problem = decompress(self._read(begin, size), compression)
        if not problem and len(content) != expected:
            problem = f"it holds {len(content)} bytes, not {expected}"
        return memoryview(content), problem

    def _messages_in(self, content: memoryview, *, learns: bool) -> Iterator[tuple[int, int, memoryview]]:
        for header, data in _records(content):
            if _operation(header) == _MESSAGE:
                yield _number(header, "conn"), _time_ns(header, "time"), data
            elif learns and _operation(header) == _CONNECTION:
                self._take_connection(header, data)

    def _take_connection(self, header: _Header, data: bytes | memoryview) -> None:
        described = _header(bytes(data))
        try:
            name = header["topic"].decode("utf-8", "replace")
            type_name = described["type"].decode("utf-8", "replace")
            definition = described["message_definition"].decode("utf-8", "replace")
        except KeyError as error:
            raise ValueError(f"a topic has no {error}") from error
        # rosbag normalises topic names the same way: "//a" and "/a/" are "/a".
        name = f"{'/' * name.startswith('/')}{'/'.join(part for part in name.split('/') if part)}"
        topic = BagTopic(name, ros2_type_name(type_name), "ros1", definition, "ros1msg")
        self._by_number.setdefault(_number(header, "conn"), topic)


def _records(content: memoryview) -> Iterator[tuple[_Header, memoryview]]:
    """Header and data of the records in `content`; raises ValueError after the last intact one."""
    position = 0
    while position < len(content):
        spans = []
        for _ in range(2):
            if position + _UINT32.size > len(content):
                raise ValueError("it ends within a record")
            (size,) = _UINT32.unpack_from(content, position)
            position += _UINT32.size
            if position + size > len(content):
                raise ValueError("a record is cut or damaged")
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
            raise ValueError("a header is damaged")
        fields[name.decode("ascii", "replace")] = value
        position += 4 + size
    return fields


def _number(header: _Header, name: str) -> int:
    if name not in header:
        raise ValueError(f"a record has no {name}")
    return int.from_bytes(header[name], "little")


def _operation(header: _Header) -> int:
    return _number(header, "op")


def _time_ns(header: _Header, name: str) -> int:
    both = _number(header, name)
    return (both & 0xFFFFFFFF) * _NS_PER_S + (both >> 32)
