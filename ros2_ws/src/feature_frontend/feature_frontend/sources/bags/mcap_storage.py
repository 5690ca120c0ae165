"""MCAP files, read by their index if it is intact, else from the front as far as they are intact.

rosbags reads only intact files of the profile "ros2". Format: https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from feature_frontend.sources.bags.storage import (
    BagTopic,
    Chunk,
    ChunkedStorage,
    counted_topics,
    decompress,
    plural,
    ros2_type_name,
)

__all__ = ["MCAP_MAGIC", "McapStorage"]

MCAP_MAGIC = b"\x89MCAP0\r\n"

_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _MESSAGE_INDEX, _CHUNK_INDEX = range(2, 9)
_STATISTICS, _DATA_END = 0x0B, 0x0F
# Record kinds from here on are private; there are none between the highest of the format and this.
_FIRST_PRIVATE = 0x80
_RECORD = struct.Struct("<BQ")
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_CHUNK_HEAD = struct.Struct("<QQQI")
_FOOTER_RECORD = struct.Struct("<BQQQI")
_DATA_END_BYTES = _RECORD.size + 4


class _Fields:
    """Reads the fields of a record one by one; raises ValueError if it ends too early."""

    def __init__(self, record: memoryview) -> None:
        self._rest = record

    def unpack(self, layout: str | struct.Struct) -> tuple[int, ...]:
        layout = struct.Struct(layout) if isinstance(layout, str) else layout
        return layout.unpack(self.take(layout.size))

    def sized(self) -> memoryview:
        return self.take(self.unpack("<I")[0])

    def text(self) -> str:
        return str(self.sized(), "utf-8", "replace")

    def take(self, size: int) -> memoryview:
        if size > len(self._rest):
            raise ValueError("a record is shorter than its fields")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def rest(self) -> memoryview:
        return self._rest


@dataclass
class _Contents:
    """The contents according to a file or its index."""

    schemas: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    # Schema, topic, encoding of the messages.
    channels: dict[int, tuple[int, str, str]] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)
    statistics: Counter[int] | None = None
    chunk_count: int = 0

    def take(self, kind: int, record: memoryview) -> None:
        """Adds a record; raises ValueError if it is damaged."""
        fields = _Fields(record)
        if kind == _SCHEMA:
            (number,) = fields.unpack("<H")
            self.schemas.setdefault(number, (fields.text(), fields.text(), fields.text()))
        elif kind == _CHANNEL:
            number, schema = fields.unpack("<HH")
            self.channels.setdefault(number, (schema, fields.text(), fields.text()))
        elif kind == _STATISTICS:
            *_, self.chunk_count, _, _ = fields.unpack("<QHIIIIQQ")
            self.statistics = Counter(dict(_pairs("<HQ", fields.sized())))
        elif kind == _CHUNK_INDEX:
            earliest_ns, _, offset, size = fields.unpack("<QQQQ")
            indices = sorted((position, channel) for channel, position in _pairs("<HQ", fields.sized()))
            (bytes_of_indices,) = fields.unpack("<Q")
            ends = [position for position, _ in indices[1:]] + [offset + size + bytes_of_indices] * bool(indices)
            # A message index holds the channel and, for each message, its time and position.
            counts = Counter(
                {
                    channel: max(end - begin - _RECORD.size - 6, 0) // 16
                    for (begin, channel), end in zip(indices, ends, strict=True)
                }
            )
            self.chunks.append(Chunk(offset, earliest_ns, counts if indices else None, size))

    def indexed(self) -> Counter[int] | None:
        """Number of messages of each channel according to the index; None if unknown."""
        total: Counter[int] = Counter()
        for chunk in self.chunks:
            if chunk.counts is None:
                return None
            total += chunk.counts
        return total


class McapStorage(ChunkedStorage):
    """See `Storage`.

    Args:
        path: The file.
        name: Its name in messages to the user.
        known_types: Topic types from the metadata, for channels without a schema.

    Raises:
        SourceError: It is not an MCAP file.
    """

    def __init__(self, path: Path, name: str, known_types: Mapping[str, str]) -> None:
        self._known_types = known_types
        self._contents = _Contents()
        # Expected number of messages, if the file contains it.
        self._statistics: Counter[int] | None = None
        self._data_end: int | None = None
        super().__init__(path, name, MCAP_MAGIC, "MCAP file")

    def _take_contents(self) -> None:
        if self._take_index():
            self._chunks = self._contents.chunks
            counts = self._contents.statistics or Counter()
        else:
            self._scan()
            counts = self._counted()
            if self._statistics is not None and self._statistics - counts:
                lost = sum((self._statistics - counts).values())
                self.losses.lose(f"{self.name} lacks {plural(lost, 'message')} of those that its index counts")
        for number, (schema, name, encoding) in self._contents.channels.items():
            type_name, definition_format, definition = self._contents.schemas.get(schema, ("", "", ""))
            kind = ros2_type_name(type_name) or self._known_types.get(name, "")
            self._by_number[number] = BagTopic(name, kind, encoding, definition, definition_format)
        self.topics = counted_topics(self._by_number, counts, self.name, self.losses)

    def _take_index(self) -> bool:
        """Reads the index; returns whether it exists and matches the file."""
        record = _FOOTER_RECORD.size + len(MCAP_MAGIC)
        end = self._read(max(self._size - record, 0), record)
        if len(end) < record or not end.endswith(MCAP_MAGIC):
            self.losses.lose(f"{self.name} has no end: its recorder was stopped, or the file is cut")
            return False
        kind, size, begin, _, checksum = _FOOTER_RECORD.unpack_from(end)
        footer = self._size - record
        if (kind, size) != (_FOOTER, _FOOTER_RECORD.size - _RECORD.size) or begin > footer:
            self.losses.lose(f"the end of {self.name} is damaged")
            return False
        self._data_end = begin or footer
        if not begin:
            return False
        index = self._read(begin, footer + _FOOTER_RECORD.size - begin)
        contents = _Contents()
        is_whole = not checksum or zlib.crc32(index[:-4]) == checksum
        try:
            for kind, content in _records(memoryview(index)):
                contents.take(kind, content)
        except ValueError:
            is_whole = False
        self._statistics = contents.statistics if is_whole else None
        if not is_whole:
            self.losses.note(f"the index of {self.name} is damaged; it is read from the front")
            return False
        counts = contents.statistics
        if counts is None or not set(counts) <= set(contents.channels) or contents.chunk_count != len(contents.chunks):
            return False
        indexed = contents.indexed()
        if indexed is not None and indexed != +counts:
            return False
        self._contents = contents
        return True

    def _scan(self) -> None:
        """Scans the file from the front and indexes its contents."""
        position = len(MCAP_MAGIC)
        while True:
            head = self._read(position, _RECORD.size)
            if len(head) < _RECORD.size:
                self.losses.lose(f"{self.name} has no end: its recorder was stopped, or the file is cut")
                break
            kind, size = _RECORD.unpack(head)
            begin = position + _RECORD.size
            if kind in {_DATA_END, _FOOTER}:
                if self._data_end not in {None, position, position + _DATA_END_BYTES}:
                    self._lose_rest(position)
                break
            if kind == 0 or _DATA_END < kind < _FIRST_PRIVATE:
                self._lose_rest(position)
                break
            is_cut = begin + size > self._size
            try:
                self._scan_record(kind, position, min(size, self._size - begin), is_cut=is_cut)
            except ValueError:
                self.losses.lose(f"{self.name} is damaged at byte {position}")
            if is_cut:
                self.losses.lose(f"{self.name} is cut, or damaged, at byte {position}: what follows cannot be read")
                break
            position = begin + size

    def _lose_rest(self, position: int) -> None:
        self.losses.lose(f"{self.name} is damaged at byte {position}: what follows cannot be read")

    def _scan_record(self, kind: int, position: int, size: int, *, is_cut: bool) -> None:
        begin = position + _RECORD.size
        if kind == _CHUNK:
            self._scan_chunk(position, _RECORD.size + size)
        elif is_cut:
            return
        elif kind == _MESSAGE:
            number, _, time_ns, _ = _Fields(memoryview(self._read(begin, _MESSAGE_HEAD.size))).unpack(_MESSAGE_HEAD)
            self._loose.append((time_ns, number, begin + _MESSAGE_HEAD.size, max(size - _MESSAGE_HEAD.size, 0)))
        elif kind == _MESSAGE_INDEX and self._chunks:
            fields = _Fields(memoryview(self._read(begin, size)))
            (number,) = fields.unpack("<H")
            self._check_index(number, len(fields.sized()) // 16)
        elif kind in {_SCHEMA, _CHANNEL}:
            self._contents.take(kind, memoryview(self._read(begin, size)))

    def _content(self, chunk: Chunk) -> tuple[memoryview, str]:
        head = self._read(chunk.position, _RECORD.size)
        if len(head) < _RECORD.size or head[0] != _CHUNK:
            return memoryview(b""), "there is none where the index says"
        fields = _Fields(memoryview(self._read(chunk.position + _RECORD.size, chunk.size - _RECORD.size)))
        try:
            *_, content_size, checksum = fields.unpack(_CHUNK_HEAD)
            compression = fields.text()
            (compressed_size,) = fields.unpack("<Q")
        except ValueError as error:
            return memoryview(b""), str(error)
        compressed = fields.rest()[:compressed_size]
        content, problem = decompress(compressed, compression)
        if not problem and len(content) != content_size:
            problem = f"it holds {len(content)} bytes, not {content_size}"
        if not problem and checksum and zlib.crc32(content) != checksum:
            problem = "its checksum is wrong"
        return memoryview(content), problem

    def _messages_in(self, content: memoryview, *, learns: bool) -> Iterator[tuple[int, int, memoryview]]:
        for kind, record in _records(content):
            if kind == _MESSAGE:
                number, _, time_ns, _ = _Fields(record).unpack(_MESSAGE_HEAD)
                yield number, time_ns, record[_MESSAGE_HEAD.size :]
            elif learns:
                self._contents.take(kind, record)


def _records(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Kind and content of the records in `content`; raises ValueError after the last intact one."""
    position = 0
    while position < len(content):
        if position + _RECORD.size > len(content):
            raise ValueError("it ends within a record")
        kind, size = _RECORD.unpack_from(content, position)
        begin = position + _RECORD.size
        if kind == 0 or _DATA_END < kind < _FIRST_PRIVATE or begin + size > len(content):
            raise ValueError("a record is cut or damaged")
        yield kind, content[begin : begin + size]
        position = begin + size


def _pairs(layout: str, data: memoryview) -> list[tuple[int, int]]:
    if len(data) % struct.calcsize(layout):
        raise ValueError("a list has another length than its elements")
    return [(first, second) for first, second in struct.iter_unpack(layout, data)]
