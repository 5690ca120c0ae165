"""Bags in each storage, intact or damaged, and their metadata."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import lru_cache

from feature_frontend.errors import SourceError
from feature_frontend.sources.bags.messages import MessageReader
from feature_frontend.sources.bags.sequence import Bag
from tests.fuzz.corpus import seeds
from tests.fuzz.files import FOLDER, written
from tests.fuzz.messages import read_message
from tests.fuzz.parser import Parser, check_text

__all__ = ["PARSERS"]

_MOST_MESSAGES = 300


def _read(bag: Bag) -> None:
    """All of its messages, up to a number, and what it says that is lost."""
    try:
        # Types that a bag defines are kept by the reader: not from one input to the next.
        reader = MessageReader()
        for number, message in enumerate(bag.messages({topic.name for topic in bag.topics})):
            if number == _MOST_MESSAGES:
                break
            try:
                read_message(message, reader)
            except ValueError as error:
                check_text(str(error))
        for text in (*bag.losses.missing, *bag.losses.notes):
            check_text(text)
    finally:
        bag.close()


def _file(suffix: str) -> Callable[[bytes], None]:
    return lambda data: _read(Bag(written(data, f"bag.{suffix}")))


@lru_cache
def _storage() -> bytes:
    return next(seeds("bag-mcap"))[1]


def _metadata(data: bytes) -> None:
    folder = FOLDER / "bag"
    if not folder.exists():
        folder.mkdir()
        for number in range(2):
            (folder / f"bag_{number}.mcap").write_bytes(_storage())
    (folder / "metadata.yaml").write_bytes(data)
    _read(Bag(folder))


def _log(data: bytes) -> None:
    """The log of SQLite beside a database, which the recorder left that was killed; the database comes first."""
    folder = FOLDER / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    database, _, log = data.partition(SEPARATOR)
    (folder / "bag_0.db3").write_bytes(database)
    (folder / "bag_0.db3-wal").write_bytes(log)
    _read(Bag(folder))


SEPARATOR = b"\n--- and its log ---\n"
_TYPES = (b"sensor_msgs/msg/Image", b"sensor_msgs/msg/CameraInfo", b"sensor_msgs/Image", b"/cam/image_raw")
PARSERS = (
    Parser("bag-db3", _file("db3"), (SourceError,), (b"CREATE TABLE", b"messages", b"topics", *_TYPES)),
    Parser("bag-log", _log, (SourceError,), (SEPARATOR, b"\x37\x7f\x06\x82")),
    Parser("bag-mcap", _file("mcap"), (SourceError,), (b"\x89MCAP0\r\n", b"zstd", b"lz4", b"ros2msg", *_TYPES)),
    Parser(
        "bag-ros1",
        _file("bag"),
        (SourceError,),
        (b"op=\x02", b"op=\x05", b"op=\x06", b"op=\x07", b"conn=", b"compression=bz2", b"size=", *_TYPES),
    ),
    Parser(
        "bag-metadata",
        _metadata,
        (SourceError,),
        (b"rosbag2_bagfile_information:", b"relative_file_paths:", b"message_count: ", b"../../etc/passwd", b"&a *a"),
    ),
)
