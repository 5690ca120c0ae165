"""Workarounds for bugs and limits of the library rosbags.

`tests/core/test_rosbags_workarounds.py` fails for each of them once a version of rosbags no longer needs it.
"""

from __future__ import annotations

import struct
from typing import Any

from rosbags.serde import SerdeError
from rosbags.typesys.store import Typestore

__all__ = ["deserialize_cdr"]

_ENCAPSULATION_BYTES = 4
# rclpy's buffer reserves the padding before 8-byte elements even for an empty sequence, which has none: 4 uninitialised
# bytes more than the message. If an 8-byte number follows, its padding is counted from the wrong offset: another 4. Up
# to 3 more round it up to a multiple of 4.
_SLACK_BYTES = 4 + 4 + 3


def deserialize_cdr(store: Typestore, data: bytes | memoryview, type_name: str) -> Any:
    """As `store.deserialize_cdr`, but also accepts two kinds of messages that it refuses.

    First, rclpy's messages with empty sequences of 8-byte elements: up to 11 bytes after the last field; rosbags allows
    3. Second, a `header.frame_id` that is not UTF-8 (drivers with Latin-1 names), read with U+FFFD as in rclpy.

    Raises:
        SerdeError: The message is damaged.
    """
    data = memoryview(data)
    if len(data) < _ENCAPSULATION_BYTES or bytes(data[:2]) not in {b"\0\0", b"\0\1"}:
        raise SerdeError("the message does not begin as CDR does")
    message: Any
    definition = store.get_msgdef(type_name)
    read = definition.deserialize_cdr_le if data[1] else definition.deserialize_cdr_be
    content = data[_ENCAPSULATION_BYTES:]
    try:
        try:
            message, end = read(content, 0, definition.cls, store)
        except UnicodeDecodeError:
            frame_id, content = _without_frame_id(content, is_little=bool(data[1]))
            message, end = read(content, 0, definition.cls, store)
            message.header.frame_id = frame_id
    except (struct.error, AttributeError, ValueError) as error:
        raise SerdeError(f"{type_name} cannot be read: {error}") from error
    if not end <= len(content) <= end + _SLACK_BYTES:
        raise SerdeError(f"a message of {type_name} ends after {end} bytes and has {len(content)}")
    return message


def _without_frame_id(content: memoryview, *, is_little: bool) -> tuple[str, memoryview]:
    """The `frame_id` of a message that begins with a header, and the content with "?" in place of its letters."""
    begin = 12
    (length,) = struct.unpack_from("<I" if is_little else ">I", content, begin - 4)
    end = begin + max(length - 1, 0)
    plain = bytearray(content)
    plain[begin:end] = b"?" * len(plain[begin:end])
    return bytes(content[begin:end]).decode("utf-8", "replace"), memoryview(plain)
