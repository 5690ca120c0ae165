"""Reads TIFF directories, of TIFF files and of EXIF data in other files. Decodes no pixels."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["ORIENTATION", "TiffDirectory", "TiffEntry", "is_tiff", "tiff_directories"]

ORIENTATION = 274
# More than a camera's file has; a chain of directories can be long without being a loop.
_MAX_DIRECTORIES = 100_000
_MAX_ENTRIES = 4_096
_FORMATS = {1: "B", 3: "H", 4: "I", 16: "Q"}


@dataclass(frozen=True)
class TiffEntry:
    """Location of a tag's values: `count` values from `offset` on, in struct's `format`."""

    format: str
    count: int
    offset: int


@dataclass(frozen=True)
class TiffDirectory:
    """The integer tags of one picture in a file.

    Attributes:
        entries: By the number of the tag.
    """

    data: bytes
    entries: dict[int, TiffEntry]

    def values(self, tag: int) -> tuple[int, ...]:
        """The integers of a tag; empty if the tag is absent.

        Raises:
            struct.error: They are beyond the end of the file.
        """
        entry = self.entries.get(tag)
        if entry is None:
            return ()
        return struct.unpack_from(f"{entry.format[0]}{entry.count}{entry.format[1]}", self.data, entry.offset)

    def value(self, tag: int, default: int) -> int:
        """The first integer of a tag."""
        entry = self.entries.get(tag)
        if entry is None or not entry.count:
            return default
        (first,) = struct.unpack_from(entry.format, self.data, entry.offset)
        return int(first)


def is_tiff(data: bytes) -> bool:
    """Whether the file starts like TIFF or BigTIFF."""
    return data[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}


def tiff_directories(data: bytes) -> Iterator[TiffDirectory]:
    """The directories of a file or of EXIF data, in order.

    Raises:
        struct.error: A directory is beyond the end of the file.
        ValueError: The directories form a loop or overlap, or one has too many entries.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in {b"+\0", b"\0+"}
    # struct formats of (number of entries, an entry, next directory), and the position of a value inside its entry.
    count_format, entry_format, next_format, inline = ("Q", "HHQ", "Q", 12) if is_big else ("H", "HHI", "I", 8)
    inline_bytes = struct.calcsize(order + next_format)
    (offset,) = struct.unpack_from(order + next_format, data, 8 if is_big else 4)
    seen: set[int] = set()
    listed_bytes = 0
    while offset:
        offset = min(offset, len(data))
        if offset in seen or len(seen) > _MAX_DIRECTORIES:
            raise ValueError("its directories lead back to each other")
        seen.add(offset)
        (count,) = struct.unpack_from(order + count_format, data, offset)
        if count > _MAX_ENTRIES:
            raise ValueError(f"a directory has {count} entries")
        listed_bytes += count * (inline + inline_bytes)
        if listed_bytes > len(data):
            raise ValueError("its directories lie on each other")
        offset += struct.calcsize(order + count_format)
        entries = {}
        for _ in range(count):
            tag, kind, number = struct.unpack_from(order + entry_format, data, offset)
            if kind in _FORMATS:
                size = struct.calcsize(order + _FORMATS[kind]) * number
                place = offset + inline
                if size > inline_bytes:
                    (place,) = struct.unpack_from(order + next_format, data, offset + inline)
                # An offset beyond the end may be too large for `struct`.
                place = min(place, len(data))
                entries[tag] = TiffEntry(order + _FORMATS[kind], number, place)
            offset += inline + inline_bytes
        yield TiffDirectory(data, entries)
        (offset,) = struct.unpack_from(order + next_format, data, offset)
