"""Stamps of messages as nanoseconds."""

from __future__ import annotations

from builtin_interfaces.msg import Time

__all__ = ["stamp_from_ns", "stamp_to_ns"]


_NS_PER_S = 1_000_000_000


def stamp_to_ns(stamp: Time) -> int:
    """A message's stamp in ns."""
    return int(stamp.sec) * _NS_PER_S + int(stamp.nanosec)


def stamp_from_ns(stamp_ns: int) -> Time:
    """The stamp for a time in ns."""
    return Time(sec=stamp_ns // _NS_PER_S, nanosec=stamp_ns % _NS_PER_S)
