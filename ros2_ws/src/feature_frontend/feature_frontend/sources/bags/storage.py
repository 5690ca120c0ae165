"""What a file of a bag holds, whatever its format, and what of it is lost."""

from __future__ import annotations

import bz2
import heapq
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from feature_frontend.errors import SourceError
from feature_frontend.system.text import listed, printable, quoted, short_text

__all__ = [
    "ZSTD_MAGIC",
    "BagMessage",
    "BagTopic",
    "Losses",
    "Storage",
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
        type_name: Such as "sensor_msgs/msg/Image"; empty where the file does not say.
        encoding: Of the messages: "cdr", "ros1", or what other programs write ("json", "protobuf").
        definition: Text of the type's definition; empty where the file has none.
        definition_format: "ros2msg", "ros2idl", "ros1msg", or what other programs write.
        count: Number of messages that can be found.
    """

    name: str
    type_name: str
    encoding: str
    definition: str = ""
    definition_format: str = ""
    count: int = 0


@dataclass(frozen=True)
class BagMessage:
    """A message as it is in a bag.

    Attributes:
        topic: Its topic, as the file has it that holds the message.
        time_ns: When it was recorded.
        data: As it was serialized; empty where it cannot be read.
        problem: Why it cannot be read; empty where it can.
    """

    topic: BagTopic
    time_ns: int
    data: bytes
    problem: str = ""


@dataclass
class Losses:
    """What is known to be lost of a bag, a sentence each, and what a user should know beside that.

    Sentences are short and printable, whatever names and words of damaged files are in them.

    Attributes:
        missing: What cannot be read although it was recorded, or may be missing because the recording has no end.
        notes: What is unusual, and costs nothing.
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
        name: What to call it in messages to the user.
        topics: All that it names.
        losses: What is lost of it; more may be found while messages are read.
    """

    name: str
    topics: list[BagTopic]
    losses: Losses

    def messages(self, names: Collection[str]) -> Iterator[BagMessage]:
        """The messages of the topics of these names, in the order of their recording."""

    def close(self) -> None:
        """Lets go of the file."""


def in_order(parts: Iterable[tuple[int, Callable[[], Iterable[BagMessage]]]]) -> Iterator[BagMessage]:
    """The messages of parts of a file by their times, each part loaded only when its first message is due.

    Args:
        parts: The time of its earliest message in ns, and what loads the part's messages, in their order in the file.
    """

    def messages_of(
        index: int, earliest_ns: int, load: Callable[[], Iterable[BagMessage]]
    ) -> Iterator[tuple[int, int, int, BagMessage | None]]:
        # heapq.merge asks each part for its first element at once, and for the second when that one is the smallest.
        yield earliest_ns, index, -1, None
        loaded = sorted(load(), key=lambda message: message.time_ns)
        for number, message in enumerate(loaded):
            yield message.time_ns, index, number, message

    for *_, message in heapq.merge(*(messages_of(index, *part) for index, part in enumerate(parts))):
        if message is not None:
            yield message


def merged_topics(topics: Iterable[BagTopic]) -> list[BagTopic]:
    """One topic for those of the same name, type and encoding, with the sum of their messages."""
    merged: dict[tuple[str, str, str], BagTopic] = {}
    for topic in topics:
        key = (topic.name, topic.type_name, topic.encoding)
        earlier = merged.get(key)
        merged[key] = topic if earlier is None else replace(earlier, count=earlier.count + topic.count)
    return list(merged.values())


def ros2_type_name(name: str) -> str:
    """The name of a type as ROS 2 has it: "sensor_msgs/msg/Image" for ROS 1's "sensor_msgs/Image"."""
    package, slash, rest = name.partition("/")
    return f"{package}/msg/{rest}" if slash and "/" not in rest else name


def plural(count: int, noun: str) -> str:
    """Such as "1 message", "3 messages"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def difference(expected: Counter[str], found: Counter[str]) -> str:
    """What of `expected` is not in `found`, such as "2 of 10 messages of /image"; empty where nothing is."""
    lost = {name: (count - found[name], count) for name, count in expected.items() if count > found[name]}
    return listed(
        f"{few} of {plural(count, 'message')} of {printable(name, _SHOWN_CHARACTERS)}"
        for name, (few, count) in sorted(lost.items())
    )


def zstd_decompressor() -> Any:
    """An object whose `decompress(data)` gives what can be decompressed so far.

    Raises:
        SourceError: No library for it is installed.
    """
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdDecompressor

        return ZstdDecompressor()
    # Which of the two is there depends on the version of rosbags.
    try:
        from backports.zstd import ZstdDecompressor as BackportsDecompressor

        return BackportsDecompressor()
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError as error:
        msg = "reading what zstd has compressed needs a Python package: pip install backports.zstd"
        raise SourceError(msg) from error
    return zstandard.ZstdDecompressor().decompressobj()


def decompress(data: bytes | memoryview, compression: str) -> tuple[bytes | memoryview, str]:
    """What `data` is decompressed, as far as it can be, and why not further; empty where all of it can.

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
    except Exception as error:  # each library has errors of its own
        return _beginning(data, compression), f"it cannot be decompressed: {short_text(error)}"
    return whole, "" if decompressor.eof else "its compressed data have no end"


def _beginning(data: bytes | memoryview, compression: str) -> bytes:
    """What damaged data are decompressed, up to the damage."""
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
