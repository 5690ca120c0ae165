"""Inputs for `process`, and their outputs."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

__all__ = [
    "OPTIONS",
    "SECOND",
    "STORE",
    "TYPES",
    "camera_info",
    "command",
    "files",
    "header",
    "image",
    "messages",
    "moving",
    "write_bag",
]

STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types
SECOND = 1_000_000_000
# A model that comes with the package, on few keypoints, and the tracker that takes less time; the images are small.
OPTIONS = (
    *("--extractor", "silk-vggnp-mu", "--max-num-keypoints", "100"),
    *("--compile", "false", "--device", "cpu", "--tracker", "chain"),
)


def moving(photographs: Sequence[npt.NDArray[np.uint8]], index: int) -> npt.NDArray[np.uint8]:
    """Image `index` of a camera that moves over a photograph, (96, 128, 3) RGB."""
    left, top = 200 + 3 * index, 150 + index
    return np.ascontiguousarray(photographs[0][top : top + 96, left : left + 128])


def header(stamp_ns: int, frame_id: str = "left_optical") -> Any:
    time = TYPES["builtin_interfaces/msg/Time"](stamp_ns // SECOND, stamp_ns % SECOND)
    return TYPES["std_msgs/msg/Header"](time, frame_id)


def image(stamp_ns: int, pixels: npt.NDArray[Any], encoding: str) -> Any:
    """A `sensor_msgs/Image` of the rosbags library."""
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).view(np.uint8).ravel()
    fields = {"height": height, "width": width, "encoding": encoding, "is_bigendian": 0, "step": len(data) // height}
    return TYPES["sensor_msgs/msg/Image"](header=header(stamp_ns), data=data, **fields)


def camera_info(stamp_ns: int, focal_px: float, height: int = 96, width: int = 128) -> Any:
    """A `sensor_msgs/CameraInfo` of the rosbags library, with distortion."""
    matrix = np.array([focal_px, 0, width / 2, 0, focal_px, height / 2, 0, 0, 1], np.float64)
    return TYPES["sensor_msgs/msg/CameraInfo"](
        header(stamp_ns),
        height,
        width,
        "plumb_bob",
        np.array([0.1, -0.05, 0.001, 0.0, 0.0]),
        matrix,
        np.eye(3).ravel(),
        np.zeros(12),
        0,
        0,
        TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    )


def write_bag(path: Path, contents: list[tuple[str, int, Any]], storage: StoragePlugin = StoragePlugin.SQLITE3) -> Path:
    """Writes (topic, time of recording in ns, message) in that order."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections: dict[str, Any] = {}
        for topic, recorded_ns, message in contents:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], recorded_ns, STORE.serialize_cdr(message, kind))
    return path


def messages(bag: Path) -> dict[str, list[tuple[int, bytes]]]:
    """Time in ns and content of each message, by topic."""
    with Reader(bag) as reader:
        found: dict[str, list[tuple[int, bytes]]] = {connection.topic: [] for connection in reader.connections}
        for connection, time_ns, data in reader.messages():
            found[connection.topic].append((time_ns, bytes(data)))
    return found


def files(bag: Path) -> dict[str, str]:
    """SHA-256 of each file of a bag, by its name."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(bag.iterdir())}


def command(*arguments: object) -> subprocess.Popen[str]:
    """The tool in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "feature_frontend", "process", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
