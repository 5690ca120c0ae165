"""The features and tracks that a bag holds, as the front-end had them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rosbags.highlevel import AnyReader

from feature_frontend.calibration import CameraCalibration, calibration_from_message
from feature_frontend.errors import CalibrationError, FeatureFrontendError, SourceError
from feature_frontend.media.bag import is_bag
from feature_frontend.tools.bag_writer import typestore_with
from feature_frontend.types import Features

__all__ = ["FeaturesRecord", "has_features", "read_features"]

_FEATURES, _TRACKS = "feature_frontend_msgs/msg/Features", "feature_frontend_msgs/msg/Tracks"
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_ELEMENTS = {0: "<f4", 1: "<f2"}


@dataclass(frozen=True)
class FeaturesRecord:
    """What a bag holds of one image.

    Attributes:
        stamp_ns: The image's time.
        features: On the CPU; with 0 columns of descriptors where those were not published.
        track_ids: (T,) of the tracks with the same stamp.
        track_rows: (T,) rows of `features`.
        camera: The first calibration of the camera in the bag; None without one.
    """

    stamp_ns: int
    features: Features
    track_ids: npt.NDArray[np.uint64]
    track_rows: npt.NDArray[np.uint32]
    camera: CameraCalibration | None


def has_features(path: Path) -> bool:
    """Whether `path` is a bag with recorded features.

    Raises:
        SourceError: It is a bag that cannot be read.
    """
    if not is_bag(path):
        return False
    with _reader(path) as reader:
        return any(c.msgtype == _FEATURES and c.msgcount for c in reader.connections)


def read_features(path: Path, topic: str | None = None) -> tuple[int, Iterator[FeaturesRecord]]:
    """The number of recorded `Features`, and these in the order of recording, with their tracks.

    Tracks and calibration are those of the topics `tracks` and `camera_info` beside the topic of the features.

    Args:
        path: A rosbag2 or a file of one.
        topic: Of the features; needed where there are several.

    Raises:
        SourceError: The bag cannot be read, or it has no such topic, or several and none was chosen.
    """
    with _reader(path) as reader:
        counts = {c.topic: c.msgcount for c in reader.connections if c.msgtype == _FEATURES and c.msgcount}
    names = [name for name in counts if topic in {None, name, name.lstrip("/")}]
    if len(names) != 1:
        asked = "" if topic is None else f", not {topic!r}"
        msg = f"bag {path} has features on {', '.join(counts)}{asked}; choose one of them with --topic"
        raise SourceError(msg)
    return counts[names[0]], _records(path, names[0])


def _records(path: Path, topic: str) -> Iterator[FeaturesRecord]:
    beside = topic.rpartition("/")[0]
    with _reader(path) as reader:
        camera = _first_camera(reader, f"{beside}/camera_info")
        tracks = {
            _stamp_ns(message): (message.ids, message.feature_indices)
            for message in _messages(reader, f"{beside}/tracks", _TRACKS)
        }
        nothing = np.zeros(0, np.uint64), np.zeros(0, np.uint32)
        for message in _messages(reader, topic, _FEATURES):
            stamp_ns = _stamp_ns(message)
            yield FeaturesRecord(stamp_ns, _features(message), *tracks.get(stamp_ns, nothing), camera)


def _messages(reader: AnyReader, topic: str, kind: str) -> Iterator[Any]:
    wanted = [c for c in reader.connections if (c.topic, c.msgtype) == (topic, kind)]
    for connection, _, data in reader.messages(connections=wanted) if wanted else ():
        yield reader.deserialize(data, connection.msgtype)


def _first_camera(reader: AnyReader, topic: str) -> CameraCalibration | None:
    for message in _messages(reader, topic, _CAMERA_INFO):
        with suppress(CalibrationError):
            return calibration_from_message(message)
    return None


def _features(message: Any) -> Features:
    element = _ELEMENTS[message.descriptor_type]
    descriptors = message.descriptors.view(element).reshape(message.count, -1) if message.count else np.zeros((0, 0))
    return Features(
        keypoints=torch.from_numpy(message.keypoints.reshape(-1, 2).astype(np.float32)),
        scores=torch.from_numpy(message.scores.astype(np.float32)),
        descriptors=torch.from_numpy(descriptors.astype(np.float32)),
        height=int(message.height),
        width=int(message.width),
        extractor=message.extractor,
    )


def _stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


@contextmanager
def _reader(path: Path) -> Iterator[AnyReader]:
    typestore = None
    # sqlite3 bags from before Iron carry no message definitions; those installed are taken for theirs.
    with suppress(ImportError, FeatureFrontendError):
        from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

        with suppress(PackageNotFoundError):
            typestore = typestore_with({_FEATURES, _TRACKS}, get_package_share_directory)
    try:
        with AnyReader([path], default_typestore=typestore) as reader:
            yield reader
    except FeatureFrontendError:
        raise
    except Exception as error:
        # Damaged files make the storage layers raise anything from struct.error to sqlite3.DatabaseError.
        msg = f"bag {path} cannot be read: {type(error).__name__}: {error}"
        raise SourceError(msg) from error
