"""Bags and ways to damage them, with a format-independent oracle: which images in a file are intact.

An image is intact if its bytes, and those directly before them, which identify it, are at their original place.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from tests.core.mcap_writer import mcap

__all__ = ["Recording", "damage", "recordings", "whole_images", "write_files"]

STORE = get_typestore(Stores.ROS2_JAZZY)
STORE1 = get_typestore(Stores.ROS1_NOETIC)
IMAGE, CAMERA_INFO, STRING = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo", "std_msgs/msg/String"
SECOND = 1_000_000_000
# Enough of what lies before a message to hold its head in each format.
_HEAD_BYTES = 24
_WINDOW_BYTES = 256
_PIECE_BYTES = 16

Files = dict[str, bytes]

MCAP_OPTIONS: dict[str, dict[str, Any]] = {
    # As rosbag2 writes by default, with its preset zstd_fast, and with the preset fastwrite, which has no chunks.
    "checksums": {"checksums": True},
    "zstd": {"checksums": True, "compression": "zstd"},
    "lz4": {"checksums": True, "compression": "lz4"},
    "unchunked": {"chunk_messages": 0},
    "without_index": {"index": False},
    "without_message_index": {"message_index": False, "checksums": True},
}


@dataclass(frozen=True)
class Recording:
    """A bag as it should be.

    Attributes:
        name: Of its kind.
        files: Content of each file, by its name; one of them alone is read as a file, several as a folder.
        images: Serialized images, in their order.
        places: Of each image, where its bytes are: file, begin, end.
    """

    name: str
    files: Files
    images: list[bytes]
    places: list[list[tuple[str, int, int]]]


def recording(name: str, files: Files, images: list[bytes]) -> Recording:
    """A bag, whose bytes are searched for those of its images."""
    is_compressed = any(word in name for word in ("file", "storage", "message", "zstd", "lz4", "bz2"))
    return Recording(name, files, images, [_places(files, data, is_compressed=is_compressed) for data in images])


def _find(files: Files, piece: bytes, name: str, at: int) -> tuple[str, int] | None:
    # Most often right behind the last one.
    near = files[name].find(piece, at, at + 20_000)
    if near >= 0:
        return name, near
    return next(((found, far) for found, content in files.items() if (far := content.find(piece)) >= 0), None)


def _places(files: Files, data: bytes, *, is_compressed: bool) -> list[tuple[str, int, int]]:
    # The bytes before 64 are alike in all images, and those of a window may be in two pages of a database.
    starts = [*range(64, len(data) - _WINDOW_BYTES, _WINDOW_BYTES), max(len(data) - _WINDOW_BYTES, 64)]
    places: list[tuple[str, int, int]] = []
    name, at = next(iter(files)), 0
    for start in starts:
        window = data[start : start + _WINDOW_BYTES]
        # One that is in two pages of a database is found in small pieces, but for the one at the border itself.
        small = [(n, window[n : n + _PIECE_BYTES]) for n in range(0, len(window), _PIECE_BYTES)]
        found = False
        for pieces in ([(0, window)], small):
            for offset, piece in pieces:
                place = _find(files, piece, name, at)
                if place is None:
                    continue
                found = True
                name, at = place
                begin = max(at - 64 - _HEAD_BYTES, 0) if (start, offset) == (starts[0], 0) else at
                if places and places[-1][0] == name and 0 <= begin - places[-1][2] <= _WINDOW_BYTES:
                    # What lies in between, such as where a database says which page is the next one, belongs to it.
                    begin = places[-1][2]
                places.append((name, begin, at + len(piece)))
            if found:
                break
        if not found:
            # Compressed: it is whole where nothing is changed.
            return [(name, 0, len(content)) for name, content in files.items()]
    last_name, begin, end = places[-1]
    if not files[last_name][:end].endswith(data[-_PIECE_BYTES:]):
        places[-1] = last_name, begin, min(end + 2 * _PIECE_BYTES, len(files[last_name]))
    if is_compressed and any(name.endswith(".zstd") for name in files):
        # Where a page of a database ends within it is not known.
        return [(name, 0, len(content)) for name, content in files.items()]
    if is_compressed:
        # What comes after depends on all that was before.
        ends = {name: max(end for found, _, end in places if found == name) for name, *_ in places}
        return [(name, 0, end) for name, end in ends.items()]
    return places


def image(store: Any, stamp_ns: int, pixels: bytes, seq: int | None = None) -> Any:
    """A grey image of one row."""
    types = store.types
    stamp = types["builtin_interfaces/msg/Time"](stamp_ns // SECOND, stamp_ns % SECOND)
    head = types["std_msgs/msg/Header"](*([] if seq is None else [seq]), stamp, "camera")
    data = np.frombuffer(pixels, np.uint8)
    return types[IMAGE](head, 1, len(data), "mono8", 0, len(data), data)


def recordings(folder: Path, images: int, size: int, chance: random.Random) -> list[Recording]:
    """The same images, of random bytes, with another topic between them, in each storage and state."""
    pixels = [chance.randbytes(size) for _ in range(images)]
    text = bytes(STORE.serialize_cdr(STORE.types[STRING]("between"), STRING))
    messages = [
        bytes(STORE.serialize_cdr(image(STORE, (100 + n) * SECOND, data), IMAGE)) for n, data in enumerate(pixels)
    ]
    found = []
    for plugin in (StoragePlugin.SQLITE3, StoragePlugin.MCAP):
        for mode in (CompressionMode.NONE, CompressionMode.FILE, CompressionMode.MESSAGE, CompressionMode.STORAGE):
            if (plugin, mode) == (StoragePlugin.SQLITE3, CompressionMode.STORAGE):
                continue
            name = f"{plugin.name}-{mode.name}".lower()
            writer = Writer(folder / name, version=9, storage_plugin=plugin)
            if mode != CompressionMode.NONE:
                writer.set_compression(mode, CompressionFormat.ZSTD)
            with writer:
                pictures = writer.add_connection("/cam/image_raw", IMAGE, typestore=STORE)
                others = writer.add_connection("/chatter", STRING, typestore=STORE)
                for n, data in enumerate(messages):
                    writer.write(pictures, (100 + n) * SECOND, data)
                    writer.write(others, (100 + n) * SECOND + 1, text)
            found.append(recording(name, _files(folder / name), messages))
    found.append(_killed(folder, found[0]))
    found += [_split(folder, plugin, messages) for plugin in (StoragePlugin.SQLITE3, StoragePlugin.MCAP)]
    # bz2 takes a second for a megabyte.
    compressions = [None, Rosbag1Writer.CompressionFormat.LZ4]
    compressions += [Rosbag1Writer.CompressionFormat.BZ2] if images * size < 100_000 else []
    found += [_ros1(folder, pixels, compression) for compression in compressions]
    found += [
        recording(f"mcap-{name}", {f"{name}.mcap": mcap(messages, IMAGE, "/cam/image_raw", **options)}, messages)
        for name, options in MCAP_OPTIONS.items()
    ]
    return found


def whole_images(recorded: Recording, damaged: Files) -> set[int]:
    """Numbers of the images that are whole in `damaged`."""
    return {
        number
        for number, places in enumerate(recorded.places)
        if all(
            damaged.get(name, b"")[begin:end] == recorded.files[name][begin:end] and len(damaged.get(name, b"")) >= end
            for name, begin, end in places
        )
    }


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Writes them into a new folder; returns what a user would name, the file of a single one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder if len(files) > 1 else folder / next(iter(files))


def damage(recorded: Recording, chance: random.Random) -> tuple[str, Files]:
    """What happened, and the files after it."""
    files = dict(recorded.files)
    name = chance.choice(sorted(files))
    content = files[name]
    kinds: dict[str, Callable[[], None]] = {
        "cut": lambda: files.update({name: content[: chance.randrange(len(content) + 1)]}),
        "cut near its end": lambda: files.update({name: content[: -chance.randrange(1, min(len(content), 400) + 1)]}),
        "a bit": lambda: files.update({name: _flipped(content, chance, 1)}),
        "bits": lambda: files.update({name: _flipped(content, chance, chance.randrange(2, 20))}),
        "zeros": lambda: files.update({name: _zeroed(content, chance)}),
        "missing": lambda: files.pop(name),
        "inside out": lambda: files.update({name: _without_a_piece(content, chance)}),
    }
    if len(files) == 1:
        del kinds["missing"]
    kind = chance.choice(sorted(kinds))
    if content:
        kinds[kind]()
    return f"{kind} of {name}", files


def _flipped(content: bytes, chance: random.Random, count: int) -> bytes:
    changed = bytearray(content)
    for _ in range(count):
        # Half of them where the structure of a file is.
        near = chance.choice((len(content), min(len(content), 2000)))
        at = chance.choice((chance.randrange(near), len(content) - 1 - chance.randrange(near)))
        changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _zeroed(content: bytes, chance: random.Random) -> bytes:
    begin = chance.randrange(len(content))
    end = min(begin + chance.choice((16, 512, 4096)), len(content))
    return content[:begin] + bytes(end - begin) + content[end:]


def _without_a_piece(content: bytes, chance: random.Random) -> bytes:
    begin = chance.randrange(len(content))
    return content[:begin] + content[begin + chance.choice((1, 16, 512, 4096)) :]


def _files(folder: Path) -> Files:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def _killed(folder: Path, whole: Recording) -> Recording:
    """The recorder of rosbag2 keeps a write-ahead log; killed, it leaves what came last there, and no metadata."""
    path = write_files(folder / "killed", {"bag_0.db3": whole.files["sqlite3-none.db3"]})
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    rows = database.execute("SELECT id, topic_id, timestamp, data FROM messages ORDER BY id").fetchall()
    kept = len(rows) // 3
    database.execute("DELETE FROM messages WHERE id > ?", (kept,))
    database.execute("VACUUM")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for row in rows[kept:]:
        database.execute("INSERT INTO messages(id, topic_id, timestamp, data) VALUES (?, ?, ?, ?)", row)
    files = {name: content for name, content in _files(path.parent).items() if not name.endswith("-shm")}
    database.close()
    assert len(files) == 2
    return recording("sqlite3-killed", files, whole.images)


def _split(folder: Path, plugin: StoragePlugin, messages: list[bytes]) -> Recording:
    suffix = "db3" if plugin == StoragePlugin.SQLITE3 else "mcap"
    files: Files = {}
    part = (len(messages) + 2) // 3
    for number in range(3):
        path = folder / f"split-{suffix}-{number}"
        with Writer(path, version=9, storage_plugin=plugin) as writer:
            pictures = writer.add_connection("/cam/image_raw", IMAGE, typestore=STORE)
            for n in range(number * part, min((number + 1) * part, len(messages))):
                writer.write(pictures, (100 + n) * SECOND, messages[n])
        files[f"bag_{number}.{suffix}"] = (path / f"{path.name}.{suffix}").read_bytes()
    counts = [min(part, len(messages) - number * part) for number in range(3)]
    listed = "".join(f"    - {name}\n" for name in files)
    per_file = "".join(
        f"    - path: {name}\n      message_count: {count}\n" for name, count in zip(files, counts, strict=True)
    )
    files["metadata.yaml"] = (
        "rosbag2_bagfile_information:\n  version: 9\n"
        f"  storage_identifier: {'mcap' if suffix == 'mcap' else 'sqlite3'}\n  relative_file_paths:\n{listed}"
        f"  message_count: {len(messages)}\n  topics_with_message_count:\n    - topic_metadata:\n"
        f"        name: /cam/image_raw\n        type: {IMAGE}\n        serialization_format: cdr\n"
        f"      message_count: {len(messages)}\n  files:\n{per_file}"
    ).encode()
    return recording(f"{suffix}-split", files, messages)


def _ros1(folder: Path, pixels: list[bytes], compression: Any) -> Recording:
    name = f"ros1-{'none' if compression is None else compression.name.lower()}"
    path = folder / f"{name}.bag"
    writer = Rosbag1Writer(path)
    if compression is not None:
        writer.set_compression(compression)
    images = [
        bytes(STORE1.serialize_ros1(image(STORE1, (100 + n) * SECOND, data, n), IMAGE)) for n, data in enumerate(pixels)
    ]
    text = STORE1.serialize_ros1(STORE1.types[STRING]("between"), STRING)
    with writer:
        pictures = writer.add_connection("/cam/image_raw", IMAGE, typestore=STORE1)
        others = writer.add_connection("/chatter", STRING, typestore=STORE1)
        for n, data in enumerate(images):
            writer.write(pictures, (100 + n) * SECOND, data)
            writer.write(others, (100 + n) * SECOND + 1, text)
    return recording(name, {path.name: path.read_bytes()}, images)
