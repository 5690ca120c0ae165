"""Detection of bags, in the states left by recorders, power cuts and other programs."""

import random
import shutil
import sqlite3
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs the Python package rosbags")
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer

from feature_frontend.errors import SourceError
from feature_frontend.sources import open_source
from feature_frontend.sources.bag import BagSource
from feature_frontend.sources.bags.files import is_bag
from feature_frontend.sources.bags.sequence import Bag
from feature_frontend.sources.base import UnreadableFrame
from feature_frontend.sources.registry import missing_of
from tests.core.bag_damage import IMAGE, STORE, Recording, image, recordings, write_files
from tests.core.mcap_writer import SECOND, mcap
from tests.core.test_damaged_bags import delivered

TOPIC = "/cam/image_raw"


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recording]:
    made = recordings(tmp_path_factory.mktemp("bags"), 9, 1000, random.Random(1))
    return {bag.name: bag for bag in made}


def images(count: int, first_ns: int = 100 * SECOND) -> list[bytes]:
    chance = random.Random(2)
    return [
        bytes(STORE.serialize_cdr(image(STORE, first_ns + n * SECOND, chance.randbytes(500)), IMAGE))
        for n in range(count)
    ]


@pytest.mark.parametrize("suffix", ["db3", "mcap"])
@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize("metadata", [True, False])
def test_a_split_that_is_missing(
    bags: dict[str, Recording], tmp_path: Path, suffix: str, gone: int, metadata: bool
) -> None:
    files = dict(bags[f"{suffix}-split"].files)
    del files[f"bag_{gone}.{suffix}"]
    if not metadata:
        del files["metadata.yaml"]
    found, missing = delivered(write_files(tmp_path / "bag", files))
    expected = bags[f"{suffix}-split"].images
    assert found == expected[: 3 * gone] + expected[3 * gone + 3 :]
    # Nothing but the metadata knows of files after the last one.
    assert any(f"bag_{gone}" in text for text in missing) or (gone == 2 and not metadata)


def test_splits_without_metadata_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    every = images(12)
    files = {f"rosbag2_{n}.mcap": mcap([data], IMAGE, TOPIC) for n, data in enumerate(every)}
    assert delivered(write_files(tmp_path / "bag", files)) == (every, [])


def test_files_of_several_bags_must_be_chosen_from(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "bags", {f"{name}.mcap": mcap(images(1), IMAGE, TOPIC) for name in "ab"})
    with pytest.raises(SourceError, match=r"bags .*metadata\.yaml and 2 "):
        BagSource(folder)


@pytest.mark.parametrize("suffix", ["db3", "mcap"])
def test_a_recorder_that_was_killed_after_a_split(bags: dict[str, Recording], tmp_path: Path, suffix: str) -> None:
    bag = bags[f"{suffix}-split"]
    metadata = bag.files["metadata.yaml"].decode()
    early = "\n".join(line for line in metadata.splitlines() if "bag_2" not in line).replace("count: 9", "count: 6")
    files = {**bag.files, "metadata.yaml": early.encode()}
    assert delivered(write_files(tmp_path / "bag", files)) == (bag.images, [])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0" * 100,
        "storage_identifier: ''\n",
        "rosbag2_bagfile_information:\n  version: 5\n",
        "{",
        "- a\n- b\n",
        "[" * 5000,
    ],
)
@pytest.mark.parametrize(
    "name", ["sqlite3-none", "mcap-none", "sqlite3-file", "sqlite3-message", "mcap-file", "mcap-message"]
)
def test_damaged_metadata(
    bags: dict[str, Recording], tmp_path: Path, text: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = {**bags[name].files, "metadata.yaml": text.encode()}
    folder = write_files(tmp_path / "bag", files)
    assert delivered(folder) == (bags[name].images, [])
    assert "metadata.yaml" in caplog.text
    (folder / "metadata.yaml").unlink()
    assert delivered(folder) == (bags[name].images, [])


def test_metadata_with_an_empty_storage_identifier(bags: dict[str, Recording], tmp_path: Path) -> None:
    files = dict(bags["mcap-split"].files)
    files["metadata.yaml"] = files["metadata.yaml"].replace(b"storage_identifier: mcap", b'storage_identifier: ""')
    assert delivered(write_files(tmp_path / "bag", files)) == (bags["mcap-split"].images, [])


@pytest.mark.parametrize("found", ["more", "fewer"])
def test_metadata_that_counts_other_messages(bags: dict[str, Recording], tmp_path: Path, found: str) -> None:
    files = dict(bags["mcap-split"].files)
    count = b"count: 20" if found == "fewer" else b"count: 2"
    files["metadata.yaml"] = files["metadata.yaml"].replace(b"count: 9", count)
    images, missing = delivered(write_files(tmp_path / "bag", files))
    assert images == bags["mcap-split"].images
    assert len(missing) == (found == "fewer")
    assert all("11 of 20 messages of /cam/image_raw" in text for text in missing)


def test_files_that_were_renamed(bags: dict[str, Recording], tmp_path: Path) -> None:
    files = {name.replace("mcap-none", "renamed"): content for name, content in bags["mcap-none"].files.items()}
    assert delivered(write_files(tmp_path / "bag", files)) == (bags["mcap-none"].images, [])


def test_pictures_beside_metadata_of_another_program_are_no_bag(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text("camera: some make\nfps: 20\n")
    assert not is_bag(tmp_path)
    (tmp_path / "metadata.yaml").write_text("")
    assert not is_bag(tmp_path)


@pytest.mark.parametrize("name", ["feats.bag", "with space", "50% & more?#1", "grüße"])
@pytest.mark.parametrize("storage", ["sqlite3-none", "mcap-none", "sqlite3-killed"])
def test_any_name_of_a_folder(bags: dict[str, Recording], tmp_path: Path, name: str, storage: str) -> None:
    assert delivered(write_files(tmp_path / name, bags[storage].files)) == (bags[storage].images, [])


def test_a_killed_recorder_of_ros1(bags: dict[str, Recording], tmp_path: Path) -> None:
    bag = bags["ros1-none"]
    (content,) = bag.files.values()
    # Until it is closed, the head of the bag says that there is no index, and that of the chunk that it has no length.
    at = content.index(b"index_pos=") + len(b"index_pos=")
    position = int.from_bytes(content[at : at + 8], "little")
    unclosed = content[:at] + bytes(8) + content[at + 8 : position]
    images, missing = delivered(write_files(tmp_path / "bag", {"a.bag.active": unclosed}).rename(tmp_path / "a.bag"))
    assert images == bag.images
    assert len(missing) == 1
    shutil.copy(tmp_path / "a.bag", tmp_path / "a.bag.active")
    assert open_source(str(tmp_path / "a.bag.active")).frame_count == 9
    chunk = content.index(b"compression=none") + len(b"compression=none")
    size = content.index(b"size=", chunk) + len(b"size=")
    opened = bytearray(unclosed)
    opened[size : size + 4] = bytes(4)
    opened[size + 4 : size + 8] = bytes(4)
    found, missing = delivered(write_files(tmp_path / "opened", {"a.bag": bytes(opened)}))
    assert found == bag.images
    assert missing


def test_a_transaction_that_was_not_ended(bags: dict[str, Recording], tmp_path: Path) -> None:
    path = write_files(tmp_path / "bag", {"bag_0.db3": bags["sqlite3-none"].files["sqlite3-none.db3"]})
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA cache_size = 1")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("BEGIN")
    for n in range(200):
        database.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (1, ?, ?)", (n, bytes(5000)))
    files = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    database.close()
    assert "bag_0.db3-journal" in files
    images, missing = delivered(write_files(tmp_path / "killed", files))
    assert images == bags["sqlite3-none"].images
    assert len(missing) == 1
    assert "transaction" in missing[0]


def test_the_files_of_a_user_are_not_touched(bags: dict[str, Recording], tmp_path: Path) -> None:
    files = bags["sqlite3-killed"].files
    path = write_files(tmp_path / "bag", files)
    source = BagSource(path)
    assert len(list(source.messages())) == 9
    assert {file.name: file.read_bytes() for file in path.iterdir()} == files


@pytest.mark.parametrize("kind", ["a definition that cannot be parsed", "json", "protobuf", "no schema"])
def test_topics_that_nobody_asked_for(tmp_path: Path, kind: str) -> None:
    others = {
        "a definition that cannot be parsed": [("/key", "std_msgs/msg/Char", "ros2idl", "cdr", b"\0\1\0\0A")],
        "json": [("/foxglove", "foxglove.Log", "jsonschema", "json", b"{}")],
        "protobuf": [("/foxglove", "foxglove.CompressedImage", "protobuf", "protobuf", b"\x08\x01")],
        "no schema": [("/foxglove", "", "", "json", b"{}")],
    }[kind]
    every = images(4)
    content = mcap(every, IMAGE, TOPIC, profile="", others=others)
    assert delivered(write_files(tmp_path / "bag", {"a.mcap": content})) == (every, [])


@pytest.mark.parametrize(
    "schema", [("", ""), ("ros2msg", "nonsense !"), ("ros2idl", "map<string, long> x;"), ("jsonschema", "{}")]
)
def test_images_whose_own_definition_cannot_be_used(tmp_path: Path, schema: tuple[str, str]) -> None:
    every = images(3)
    content = mcap(every, IMAGE, TOPIC, schema=schema)
    assert delivered(write_files(tmp_path / "bag", {"a.mcap": content})) == (every, [])


def test_images_in_json_are_named_for_what_they_are(tmp_path: Path) -> None:
    path = write_files(tmp_path / "bag", {"a.mcap": mcap([b"{}"], IMAGE, TOPIC, encoding="json")})
    with pytest.raises(SourceError, match=r"\n  /cam/image_raw  sensor_msgs/msg/Image in json  1 mess"):
        BagSource(path)


def test_ros1_messages_in_mcap(bags: dict[str, Recording], tmp_path: Path) -> None:
    every = bags["ros1-none"].images
    content = mcap(every, "sensor_msgs/Image", TOPIC, profile="ros1", schema=("ros1msg", ""), encoding="ros1")
    source = BagSource(write_files(tmp_path / "bag", {"a.mcap": content}))
    assert [found.stamp_ns for found, _ in source.messages()] == [(100 + n) * SECOND for n in range(9)]
    assert missing_of(source) == []


def test_a_topic_with_a_damaged_database_row(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        topic = writer.add_connection(TOPIC, IMAGE, typestore=STORE)
        for n, data in enumerate(images(3)):
            writer.write(topic, n, data)
    database = sqlite3.connect(path / "bag.db3")
    database.execute("UPDATE messages SET data = 7 WHERE id = 2")
    database.commit()
    database.close()
    found = [image for image, _ in BagSource(path).messages()]
    assert [getattr(image, "reason", "") for image in found] == ["", "its row in the database is damaged", ""]


# Header stamps in s, and what the images are stamped with; R is the time of recording.
STAMPS: list[tuple[list[int], list[Any]]] = [
    ([0], ["R"]),
    ([0, 0, 0], ["R", "R", "R"]),
    ([0, 1, 2], [0, 1, 2]),
    ([0, 0, 0, 5], [0, 0, 0, 5]),
    ([5, 0, 6], [5, 0, 6]),
    ([7], [7]),
]


@pytest.mark.parametrize(("stamps", "expected"), STAMPS)
@pytest.mark.parametrize("storage", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
@pytest.mark.parametrize("start", [0, 1])
def test_the_time_of_recording_only_where_all_stamps_are_0(
    tmp_path: Path, stamps: list[int], expected: list[Any], storage: StoragePlugin, start: int
) -> None:
    with Writer(tmp_path / "bag", version=9, storage_plugin=storage) as writer:
        topic = writer.add_connection(TOPIC, IMAGE, typestore=STORE)
        for n, stamp in enumerate(stamps):
            message = image(STORE, stamp * SECOND, np.arange(30, dtype=np.uint8).tobytes())
            writer.write(topic, (1000 + n) * SECOND, STORE.serialize_cdr(message, IMAGE))
    source = BagSource(tmp_path / "bag")
    times = [1000 + n if value == "R" else value for n, value in enumerate(expected)][start:]
    assert [found.stamp_ns for found, _ in source.messages(start)] == [time * SECOND for time in times]
    if times:
        assert [frame.stamp_ns for frame in source.frames(start)] == [time * SECOND for time in times]


def test_a_damaged_message_has_the_stamp_of_its_header(tmp_path: Path) -> None:
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        topic = writer.add_connection(TOPIC, IMAGE, typestore=STORE)
        for n in range(4):
            data = STORE.serialize_cdr(image(STORE, n * SECOND, np.arange(30, dtype=np.uint8).tobytes()), IMAGE)
            # The last one ends within its header.
            writer.write(topic, (1000 + n) * SECOND, data[: {1: 50, 3: 8}.get(n)])
    found = [one for one, _ in BagSource(tmp_path / "bag").messages()]
    assert [isinstance(one, UnreadableFrame) for one in found] == [False, True, False, True]
    assert [one.stamp_ns for one in found] == [0, SECOND, 2 * SECOND, 1003 * SECOND]


def test_nothing_is_left_in_the_temporary_folder(
    bags: dict[str, Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    bag = Bag(write_files(tmp_path / "bag", bags["sqlite3-killed"].files))
    assert list(temporary.iterdir())
    bag.close()
    assert not list(temporary.iterdir())


def test_no_room_for_a_copy(bags: dict[str, Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    with pytest.raises(SourceError, match="TMPDIR"):
        BagSource(write_files(tmp_path / "bag", bags["sqlite3-killed"].files))


@pytest.mark.parametrize("storage", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_whole_bags_give_what_rosbags_gives_in_its_order(
    bags: dict[str, Recording], tmp_path: Path, storage: StoragePlugin
) -> None:
    chance = random.Random(3)
    with Writer(tmp_path / "bag", version=9, storage_plugin=storage) as writer:
        topics = [writer.add_connection(name, IMAGE, typestore=STORE) for name in ("/b/image", "/a/image", "/c/image")]
        # Many at the same time, not in the order of time, in several chunks.
        for _ in range(60):
            data = STORE.serialize_cdr(image(STORE, chance.randrange(9), chance.randbytes(40_000)), IMAGE)
            writer.write(chance.choice(topics), chance.randrange(20), data)
    wanted = {"/a/image", "/c/image"}
    with AnyReader([tmp_path / "bag"]) as reader:
        connections = [c for c in reader.connections if c.topic in wanted]
        expected = [(c.topic, time_ns, bytes(data)) for c, time_ns, data in reader.messages(connections=connections)]
    found = [(message.topic.name, message.time_ns, message.data) for message in Bag(tmp_path / "bag").messages(wanted)]
    assert found == expected


def test_the_file_of_a_killed_recorder_alone_and_by_a_link(bags: dict[str, Recording], tmp_path: Path) -> None:
    folder = write_files(tmp_path / "bag", bags["sqlite3-killed"].files)
    assert delivered(folder / "bag_0.db3") == (bags["sqlite3-killed"].images, [])
    (tmp_path / "link.db3").symlink_to(folder / "bag_0.db3")
    assert delivered(tmp_path / "link.db3") == (bags["sqlite3-killed"].images, [])


def test_times_of_recording_that_are_wrong_lose_nothing(tmp_path: Path) -> None:
    every = images(12)
    content = mcap(every, IMAGE, TOPIC, chunk_messages=4)
    swapped = content
    for first in (100, 104, 108):
        times = struct.pack("<QQ", first * SECOND, (first + 3) * SECOND)
        swapped = swapped.replace(times, times[8:] + times[:8])
    assert swapped != content
    assert delivered(write_files(tmp_path / "swapped", {"a.mcap": swapped})) == (every, [])
    # Two times: when it was recorded and when it was published.
    rolled = content.replace(struct.pack("<QQ", *[105 * SECOND] * 2), struct.pack("<QQ", *[2**64 - 5] * 2))
    assert delivered(write_files(tmp_path / "rolled", {"a.mcap": rolled})) == ([*every[:5], *every[6:], every[5]], [])


@pytest.mark.parametrize("names", [["run_7"], ["run_20240501"]])
def test_a_file_that_is_numbered_for_another_reason(tmp_path: Path, names: list[str]) -> None:
    every = images(2)
    files = {f"{name}.mcap": mcap(every, IMAGE, TOPIC) for name in names}
    (tmp_path / "folder").mkdir()
    for name, content in files.items():
        (tmp_path / "folder" / name).write_bytes(content)
    assert delivered(tmp_path / "folder") == (every, [])
    (tmp_path / "folder" / "run_20240502.mcap").write_bytes(mcap(every, IMAGE, TOPIC))
    with pytest.raises(SourceError, match="2 storage files"):
        BagSource(tmp_path / "folder")


@pytest.mark.parametrize("metadata", [True, False])
def test_a_file_beside_what_it_is_compressed_is_read_once(
    bags: dict[str, Recording], tmp_path: Path, metadata: bool
) -> None:
    bag = bags["mcap-file"]
    files = {**bag.files, "mcap-file.mcap": bags["mcap-none"].files["mcap-none.mcap"]}
    if not metadata:
        del files["metadata.yaml"]
    assert delivered(write_files(tmp_path / "bag", files)) == (bag.images, [])
