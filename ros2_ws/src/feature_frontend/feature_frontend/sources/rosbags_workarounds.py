"""What stands in the way of reading and writing bags by the library rosbags, each with how it is got round.

`tests/core/test_rosbags_workarounds.py` fails for each of them once a version of rosbags needs it no longer.
"""

from __future__ import annotations

import struct
from typing import Any

from rosbags.serde import SerdeError
from rosbags.typesys.store import Typestore

__all__ = ["deserialize_cdr"]

_ENCAPSULATION_BYTES = 4
# rclpy's buffer has room for the padding before elements of 8 bytes even where the sequence is empty and nothing is
# padded: 4 bytes more than the message, which are as they were in memory. Up to 3 more make it a multiple of 4.
_SLACK_BYTES = 4 + 3


def deserialize_cdr(store: Typestore, data: bytes | memoryview, type_name: str) -> Any:
    """`store.deserialize_cdr`, but for messages of rclpy whose sequences of 8-byte elements are empty, too.

    rosbags allows 3 bytes behind the last field and refuses these messages, which have up to 7.

    Raises:
        SerdeError: The message is damaged.
    """
    data = memoryview(data)
    if len(data) < _ENCAPSULATION_BYTES or bytes(data[:2]) not in {b"\0\0", b"\0\1"}:
        msg = "the message does not begin as CDR does"
        raise SerdeError(msg)
    definition = store.get_msgdef(type_name)
    read = definition.deserialize_cdr_le if data[1] else definition.deserialize_cdr_be
    content = data[_ENCAPSULATION_BYTES:]
    try:
        message, end = read(content, 0, definition.cls, store)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        msg = f"{type_name} cannot be read: {error}"
        raise SerdeError(msg) from error
    if not end <= len(content) <= end + _SLACK_BYTES:
        msg = f"a message of {type_name} ends after {end} bytes and has {len(content)}"
        raise SerdeError(msg)
    return message
