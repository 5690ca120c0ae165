"""Reads the front-end's features and tracks from a bag."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from feature_frontend.camera.calibration import CameraCalibration, calibration_from_message
from feature_frontend.errors import CalibrationError, FeatureFrontendError, SourceError
from feature_frontend.sources.bags.files import is_bag
from feature_frontend.sources.bags.messages import MessageReader
from feature_frontend.sources.bags.sequence import Bag
from feature_frontend.sources.bags.stamps import stamp_ns
from feature_frontend.sources.bags.storage import BagMessage
from feature_frontend.tools.common.bag_writer import typestore_with
from feature_frontend.types import Features

__all__ = ["FeaturesRecord", "has_features", "read_features"]

_FEATURES, _TRACKS = "feature_frontend_msgs/msg/Features", "feature_frontend_msgs/msg/Tracks"
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_ELEMENTS = {0: "<f4", 1: "<f2"}
_IDS_A_RUN = 1 << 40

# A child of the logger whose messages the tools print.
_logger = logging.getLogger(f"feature_frontend.{__name__}")


@dataclass(frozen=True)
class FeaturesRecord:
    """The recorded data of one image.

    Attributes:
        stamp_ns: Stamp of the image.
        features: On the CPU; with 0 descriptor columns if descriptors were not published.
        track_ids: (T,) ids of the image's tracks, unique over all runs of the front-end in the bag.
        track_rows: (T,) their indices in `features`.
        camera: The first calibration of the camera in the bag; None if there is none.
    """

    stamp_ns: int
    features: Features
    track_ids: npt.NDArray[np.uint64]
    track_rows: npt.NDArray[np.uint32]
    camera: CameraCalibration | None


def has_features(path: Path) -> bool:
    """Whether `path` is a bag with recorded features.

    Raises:
        SourceError: The bag cannot be read.
    """
    return is_bag(path) and any(topic.type_name == _FEATURES and topic.count for topic in Bag(path).topics)


def read_features(path: Path, topic: str | None, missing: list[str]) -> tuple[int, Iterator[FeaturesRecord]]:
    """Returns the number of recorded `Features`, and an iterator over them with their tracks, in recorded order.

    Tracks and calibration come from the topics `tracks` and `camera_info` next to the topic of the features. Losses of
    a damaged bag are logged as warnings.

    Args:
        path: A rosbag2 or one of its files.
        topic: Topic of the features; required if there are several.
        missing: Receives known losses of the bag, one sentence each, after the last record.

    Raises:
        SourceError: The bag cannot be read, has no such topic, or has several and none was chosen.
    """
    bag = Bag(path)
    counts = {found.name: found.count for found in bag.topics if found.type_name == _FEATURES and found.count}
    names = [name for name in counts if topic in {None, name, name.lstrip("/")}]
    if len(names) != 1:
        asked = "" if topic is None else f", not {topic!r}"
        raise SourceError(f"bag {path} has features on {', '.join(counts)}{asked}; choose one of them with --topic")
    return counts[names[0]], _records(bag, names[0], missing)


def _records(bag: Bag, topic: str, missing: list[str]) -> Iterator[FeaturesRecord]:
    beside = topic.rpartition("/")[0]
    reader = _Reader()
    camera = _first_camera(bag, reader, f"{beside}/camera_info")
    tracks: dict[tuple[int, int, int], tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]] = {}
    runs: dict[int, int] = {}
    for message in _messages(bag, reader, f"{beside}/tracks", _TRACKS):
        image = _image_of(message)
        run = runs.setdefault(image[0], len(runs))
        tracks[image] = (message.ids + np.uint64(run * _IDS_A_RUN), message.feature_indices)
    nothing = np.zeros(0, np.uint64), np.zeros(0, np.uint32)
    for message in _messages(bag, reader, topic, _FEATURES):
        image = _image_of(message)
        yield FeaturesRecord(image[-1], _features(message), *tracks.get(image, nothing), camera)
    for text in (*bag.losses.notes, *bag.losses.missing):
        _logger.warning("%s", text)
    missing += bag.losses.missing


def _image_of(message: Any) -> tuple[int, int, int]:
    """Run, number of resets and stamp in ns, which identify an image; older bags without runs contain a single one."""
    return getattr(message, "run_id", 0), getattr(message, "resets", 0), stamp_ns(message.header)


class _Reader:
    """Reads messages by the definitions in the bag. sqlite3 bags from before Iron contain none.

    For these, it uses the installed definitions, or the older ones without the run id, which differ only by the fields
    at their end.
    """

    def __init__(self) -> None:
        self._reader = MessageReader(_installed)
        self._earlier = MessageReader(_installed_before_runs)

    def read(self, message: BagMessage) -> Any:
        """As `MessageReader.read`."""
        try:
            return self._reader.read(message)
        except ValueError as error:
            try:
                return self._earlier.read(message)
            except ValueError:
                raise error from None


def _messages(bag: Bag, reader: _Reader, topic: str, kind: str) -> Iterator[Any]:
    for message in bag.messages({topic}):
        if message.topic.type_name != kind:
            continue
        try:
            yield reader.read(message)
        except ValueError as error:
            _logger.warning("skipped a message of %s: %s", topic, error)


def _first_camera(bag: Bag, reader: _Reader, topic: str) -> CameraCalibration | None:
    for message in _messages(bag, reader, topic, _CAMERA_INFO):
        with suppress(CalibrationError):
            return calibration_from_message(message)
    return None


def _installed(type_name: str) -> Typestore | None:
    with suppress(ImportError, FeatureFrontendError):
        from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

        with suppress(PackageNotFoundError):
            return typestore_with({type_name}, get_package_share_directory)
    return None


def _installed_before_runs(type_name: str) -> Typestore | None:
    store = _installed(type_name)
    if store is None or type_name in get_typestore(Stores.ROS2_JAZZY).fielddefs:
        return None
    constants, fields = store.fielddefs[type_name]
    names = [name for name, _ in fields]
    if "run_id" not in names:
        return None
    earlier = get_typestore(Stores.ROS2_JAZZY)
    earlier.register({type_name: (constants, fields[: names.index("run_id")])})
    return earlier


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
