"""Reads the front-end's messages from a bag as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.highlevel import AnyReader, AnyReaderError

from feature_frontend.camera.calibration import CameraCalibration, calibration_from_message
from feature_frontend.errors import SourceError

__all__ = [
    "STAGES",
    "STATES",
    "FeaturesRecord",
    "MatchesRecord",
    "Recording",
    "StatusRecord",
    "TracksRecord",
    "read_recording",
]

STAGES = ("conversion", "extraction", "matching", "tracking", "publishing", "latency")
STATES = ("OK", "FIRST", "DEGENERATE", "DROPPED", "ERROR")
PROCESSED = frozenset({"OK", "FIRST", "DEGENERATE"})
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FeaturesRecord:
    """One `Features` message: its stamp in ns, the extractor, and keypoints (N, 2) in px."""

    stamp_ns: int
    extractor: str
    keypoints: FloatArray


@dataclass(frozen=True)
class MatchesRecord:
    """One `Matches` message: the stamps in ns of both images, and the matched keypoints (M, 2) in px."""

    stamp0_ns: int
    stamp1_ns: int
    keypoints0: FloatArray
    keypoints1: FloatArray


@dataclass(frozen=True)
class TracksRecord:
    """One `Tracks` message: its stamp in ns, ids (T,), ages in frames (T,), keypoints (T, 2) in px."""

    stamp_ns: int
    ids: npt.NDArray[np.uint64]
    ages: npt.NDArray[np.uint32]
    keypoints: FloatArray


@dataclass(frozen=True)
class StatusRecord:
    """One `FrameStatus` message: its stamp in ns, one of `STATES`, the reason, and ms by stage (keys: `STAGES`)."""

    stamp_ns: int
    state: str
    reason: str
    milliseconds: dict[str, float]

    @property
    def is_processed(self) -> bool:
        """Whether the frame was processed by the network."""
        return self.state in PROCESSED


@dataclass
class Recording:
    """Contents of a bag, in the order of the stamps.

    Attributes:
        image_count: Number of `Image` messages.
        camera: The last calibration received; None if there is none.
        features: The `Features` messages.
        matches: The `Matches` messages, except those of images without a previous one.
        tracks: The `Tracks` messages.
        status: The `FrameStatus` messages.
    """

    image_count: int = 0
    camera: CameraCalibration | None = None
    features: list[FeaturesRecord] = field(default_factory=list)
    matches: list[MatchesRecord] = field(default_factory=list)
    tracks: list[TracksRecord] = field(default_factory=list)
    status: list[StatusRecord] = field(default_factory=list)


def read_recording(bag: Path) -> Recording:
    """Reads everything except the images' pixels; identifies topics by the last part of their names.

    Raises:
        SourceError: The bag cannot be read.
    """
    recording = Recording()
    try:
        with AnyReader([bag]) as reader:
            names = {connection.id: connection.topic.rpartition("/")[2] for connection in reader.connections}
            recording.image_count = sum(c.msgcount for c in reader.connections if names[c.id] == "image")
            wanted = [c for c in reader.connections if names[c.id] != "image"]
            for connection, _, data in reader.messages(connections=wanted) if wanted else ():
                _add(recording, names[connection.id], reader.deserialize(data, connection.msgtype))
    except (OSError, AnyReaderError) as error:
        raise SourceError(f"the bag {bag} cannot be read: {error}") from error
    recording.features.sort(key=lambda record: record.stamp_ns)
    recording.matches.sort(key=lambda record: record.stamp1_ns)
    recording.tracks.sort(key=lambda record: record.stamp_ns)
    recording.status.sort(key=lambda record: record.stamp_ns)
    return recording


def _add(recording: Recording, topic: str, message: Any) -> None:
    stamp_ns = _nanoseconds(message.header.stamp)
    if topic == "features":
        recording.features.append(FeaturesRecord(stamp_ns, message.extractor, _points(message.keypoints)))
    elif topic == "matches":
        # A sequence's first image has no previous one; bags older than `run_id0` do not contain such messages.
        if getattr(message, "run_id0", message.header) == 0:
            return
        keypoints0, keypoints1 = _points(message.keypoints0), _points(message.keypoints1)
        recording.matches.append(MatchesRecord(_nanoseconds(message.stamp0), stamp_ns, keypoints0, keypoints1))
    elif topic == "tracks":
        recording.tracks.append(TracksRecord(stamp_ns, message.ids, message.ages, _points(message.keypoints)))
    elif topic == "status":
        milliseconds = {stage: float(getattr(message, f"{stage}_ms")) for stage in STAGES}
        state = STATES[message.state] if message.state < len(STATES) else str(message.state)
        recording.status.append(StatusRecord(stamp_ns, state, message.reason, milliseconds))
    elif topic == "camera_info":
        recording.camera = calibration_from_message(message)


def _points(flat: npt.NDArray[np.float32]) -> FloatArray:
    return np.asarray(flat, np.float32).reshape(-1, 2)


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
