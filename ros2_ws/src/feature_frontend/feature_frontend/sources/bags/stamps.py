"""The stamp of an image in a bag: from its header, or its recording time."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

__all__ = ["header_stamp_ns", "stamp_ns", "uses_recording_times"]

_NS_PER_S = 1_000_000_000
# The CDR encapsulation header, whose second byte is odd for little endian; ROS 1 has the counter `seq` instead.
_BYTES_BEFORE = 4


def uses_recording_times(stamps_ns: Iterable[int]) -> bool:
    """Whether to use the recording times of a topic's images because their header stamps were never set.

    True if all stamps are 0. A single 0 is a valid time: a simulator's first image has it.

    Args:
        stamps_ns: Of all headers of the topic; read up to the first that is not 0.
    """
    return all(stamp == 0 for stamp in stamps_ns)


def stamp_ns(header: Any) -> int:
    """The stamp in ns of a `std_msgs/Header` of any library."""
    return int(header.stamp.sec) * _NS_PER_S + int(header.stamp.nanosec)


def header_stamp_ns(data: bytes | memoryview, encoding: str = "cdr") -> int:
    """The stamp in ns of a message that begins with a `std_msgs/Header`, read without decoding the message.

    Args:
        data: The serialized message.
        encoding: "cdr", or "ros1".

    Raises:
        ValueError: The message is too short to contain one.
    """
    if len(data) < _BYTES_BEFORE + 8:
        raise ValueError(f"a message of {len(data)} bytes holds no header; expected at least {_BYTES_BEFORE + 8}")
    if encoding == "ros1":
        seconds, nanoseconds = struct.unpack_from("<II", data, _BYTES_BEFORE)
    else:
        seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, _BYTES_BEFORE)
    return int(seconds) * _NS_PER_S + int(nanoseconds)
