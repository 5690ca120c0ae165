"""The bag writer verifies the contents of a bag after closing it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="needs rosbags")

from rosbags.typesys import Stores, get_typestore

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.tools.common.bag_writer import BagContent, BagWriter

_TEXTS = [b"\0\1\0\0\5\0\0\0" + f"{index:4}".encode() + b"\0" for index in range(5)]


def _written(folder: Path, storage: str) -> tuple[BagWriter, BagContent]:
    content = BagContent()
    with BagWriter(folder, storage, get_typestore(Stores.ROS2_JAZZY)) as bag:
        bag.add_topic("/text", "std_msgs/msg/String")
        bag.add_topic("/nothing", "std_msgs/msg/String")
        for index, data in enumerate(_TEXTS):
            # Readers give those of one time in any order.
            bag.write("/text", index // 2, data)
            content.add("/text", index // 2, data)
    return bag, content


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_bag_holds_what_was_written(tmp_path: Path, storage: str) -> None:
    bag, content = _written(tmp_path / "bag", storage)
    assert bag.holds(content)
    content.add("/text", 9, b"")
    assert not bag.holds(content)


def _replace(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        assert old in data
        (folder / name).write_bytes(data.replace(old, new))

    return spoil


def _execute(statement: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        database = sqlite3.connect(folder / "bag.db3")
        database.execute(statement)
        database.commit()
        database.close()

    return spoil


@pytest.mark.parametrize(
    ("storage", "spoil"),
    [
        ("sqlite3", _execute("UPDATE messages SET data = zeroblob(length(data)) WHERE id = 2")),
        ("sqlite3", _execute("UPDATE messages SET timestamp = 7 WHERE id = 2")),
        ("sqlite3", _execute("DELETE FROM messages WHERE id = 2")),
        ("sqlite3", _execute("UPDATE topics SET name = '/texts' WHERE id = 1")),
        ("sqlite3", _execute("UPDATE message_definitions SET encoded_message_definition = 'string date'")),
        ("sqlite3", _replace("metadata.yaml", b"message_count: 5", b"message_count: 4")),
        ("sqlite3", _replace("metadata.yaml", b"durability: volatile", b"durability: transient_local")),
        ("sqlite3", _replace("metadata.yaml", b"nanoseconds: 2", b"nanoseconds: 3")),
        ("sqlite3", lambda folder: (folder / "metadata.yaml").unlink()),
        ("mcap", _replace("bag.mcap", b"   3\0", b"   4\0")),
        ("mcap", _replace("bag.mcap", b"string data", b"string date")),
        ("mcap", lambda folder: (folder / "bag.mcap").write_bytes(b"")),
    ],
    ids=range(12),
)
def test_other_content_is_noticed(tmp_path: Path, storage: str, spoil: Callable[[Path], None]) -> None:
    bag, content = _written(tmp_path / "bag", storage)
    spoil(tmp_path / "bag")
    assert not bag.holds(content)


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FeatureFrontendError, match=r"/file/bag .*Not a directory"):
        BagWriter(tmp_path / "file" / "bag", "mcap", get_typestore(Stores.ROS2_JAZZY))
