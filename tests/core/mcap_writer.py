"""Writes kinds of MCAP files that the library rosbags does not, after https://mcap.dev/spec."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

__all__ = ["SECOND", "mcap"]

SECOND = 1_000_000_000
_MAGIC = b"\x89MCAP0\r\n"


def mcap(
    messages: Sequence[bytes],
    type_name: str,
    topic: str,
    *,
    profile: str = "ros2",
    schema: tuple[str, str] = ("ros2msg", ""),
    encoding: str = "cdr",
    compression: str = "",
    chunk_messages: int = 3,
    checksums: bool = False,
    index: bool = True,
    message_index: bool = True,
    end: bool = True,
    others: Sequence[tuple[str, str, str, str, bytes]] = (),
) -> bytes:
    """A file of `messages`, one a second from 100 s on.

    Args:
        messages: Serialized.
        type_name: Of the topic; empty for a channel without a schema.
        topic: Its name.
        profile: Of the file.
        schema: Encoding and text of the definition.
        encoding: Of the messages.
        compression: Of the chunks: "", "zstd", "lz4".
        chunk_messages: Messages in a chunk; 0 for a file without chunks.
        checksums: Whether chunks and index have some.
        index: Whether there is an index.
        message_index: Whether there are indices of messages.
        end: Whether the recorder has closed the file.
        others: Further topics, each with one message: topic, type, encoding of the schema, of the messages, message.
    """
    head = _schemas_and_channels(type_name, topic, schema, encoding, others)
    out = bytearray(_MAGIC + _record(1, _text(profile) + _text("tests")))
    listed = [(1, 100 + n, data) for n, data in enumerate(messages)]
    listed += [(2 + n, 100, data) for n, (*_, data) in enumerate(others)]
    records = [(channel, at, _message(channel, at, data)) for channel, at, data in listed]
    indices = b""
    chunks = 0
    if not chunk_messages:
        out += head + b"".join(record for *_, record in records)
    for first in range(0, len(records) if chunk_messages else 0, chunk_messages or 1):
        part = records[first : first + chunk_messages]
        indices += _chunk(out, head if first == 0 else b"", part, compression, checksums, message_index)
        chunks += 1
    if not end:
        return bytes(out)
    out += _record(0x0F, bytes(4))
    begin = len(out) if index else 0
    if index:
        counts = {channel: sum(found == channel for found, *_ in records) for channel in {c for c, *_ in records}}
        per_channel = b"".join(struct.pack("<HQ", *pair) for pair in sorted(counts.items()))
        numbers = (len(records), 1, len(counts), 0, 0, chunks, 100 * SECOND, (99 + len(messages)) * SECOND)
        out += head + indices + _record(0x0B, struct.pack("<QHIIIIQQ", *numbers) + _sized(per_channel))
    footer = b"\x02" + struct.pack("<QQQ", 20, begin, 0)
    checksum = zlib.crc32(out[begin:] + footer) if checksums and index else 0
    return bytes(out + footer + struct.pack("<I", checksum) + _MAGIC)


def _chunk(
    out: bytearray,
    head: bytes,
    part: Sequence[tuple[int, int, bytes]],
    compression: str,
    checksums: bool,
    message_index: bool,
) -> bytes:
    """Appends a chunk and the indices of its messages; returns its own index."""
    content = bytearray(head)
    entries: dict[int, list[tuple[int, int]]] = {}
    for channel, at, record in part:
        entries.setdefault(channel, []).append((at * SECOND, len(content)))
        content += record
    times = min(at for _, at, _ in part) * SECOND, max(at for _, at, _ in part) * SECOND
    packed = _compressed(bytes(content), compression)
    position = len(out)
    out += _record(
        6,
        struct.pack("<QQQI", *times, len(content), zlib.crc32(content) if checksums else 0)
        + _text(compression)
        + struct.pack("<Q", len(packed))
        + packed,
    )
    size = len(out) - position
    offsets = b""
    for channel, pairs in sorted(entries.items()) if message_index else ():
        offsets += struct.pack("<HQ", channel, len(out))
        out += _record(7, struct.pack("<H", channel) + _sized(b"".join(struct.pack("<QQ", *pair) for pair in pairs)))
    return _record(
        8,
        struct.pack("<QQQQ", *times, position, size)
        + _sized(offsets)
        + struct.pack("<Q", len(out) - position - size)
        + _text(compression)
        + struct.pack("<QQ", len(packed), len(content)),
    )


def _schemas_and_channels(
    type_name: str,
    topic: str,
    schema: tuple[str, str],
    encoding: str,
    others: Sequence[tuple[str, str, str, str, bytes]],
) -> bytes:
    head = (
        _record(3, struct.pack("<H", 1) + _text(type_name) + _text(schema[0]) + _text(schema[1])) if type_name else b""
    )
    head += _record(4, struct.pack("<HH", 1, 1 if type_name else 0) + _text(topic) + _text(encoding) + _sized(b""))
    for n, (other, kind, schema_encoding, message_encoding, _) in enumerate(others, 2):
        head += _record(3, struct.pack("<H", n) + _text(kind) + _text(schema_encoding) + _text("\xff not a definition"))
        head += _record(4, struct.pack("<HH", n, n) + _text(other) + _text(message_encoding) + _sized(b""))
    return head


def _compressed(content: bytes, compression: str) -> bytes:
    if compression == "lz4":
        import lz4.frame

        return bytes(lz4.frame.compress(content))
    if compression == "zstd":
        # Which of them is there depends on the version of rosbags.
        try:
            from backports import zstd
        except ImportError:
            import zstandard as zstd
        return bytes(zstd.compress(content))
    return content


def _message(channel: int, at: int, data: bytes) -> bytes:
    return _record(5, struct.pack("<HIQQ", channel, 0, at * SECOND, at * SECOND) + data)


def _record(kind: int, content: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(content)) + content


def _sized(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _text(text: str) -> bytes:
    return _sized(text.encode())
