"""The images of a rosbag2 (sqlite3 or mcap) or a ROS 1 bag, read without ROS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from feature_frontend.calibration import CameraCalibration, calibration_from_message
from feature_frontend.compressed_image import compressed_image_samples
from feature_frontend.encodings import ENCODINGS, image_samples
from feature_frontend.errors import CalibrationError, FeatureFrontendError, ImageError, SourceError
from feature_frontend.media.frame import Frame, UnreadableFrame

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection

    from feature_frontend.media.source import StampOrigin

__all__ = ["BAG_SUFFIXES", "BagImage", "BagSource", "camera_info_topic", "is_bag"]

BAG_SUFFIXES = (".mcap", ".db3", ".bag")

_DECODERS: dict[str, Callable[[Any], npt.NDArray[Any]]] = {
    "sensor_msgs/msg/Image": image_samples,
    "sensor_msgs/msg/CompressedImage": compressed_image_samples,
}
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_METADATA_KEY = b"rosbag2_bagfile_information"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class BagImage:
    """An image message as it is in a bag.

    Attributes:
        index: Position among the images of its topic, from 0.
        name: What to call it in messages to the user.
        type_name: "sensor_msgs/msg/Image" or "sensor_msgs/msg/CompressedImage".
        message: The message, with the fields of its type.
        stamp_ns: Of its header, ns; the time of recording where that is 0.
    """

    index: int
    name: str
    type_name: str
    message: Any
    stamp_ns: int


def is_bag(path: Path) -> bool:
    """Whether `path` is a bag file, or a folder with the metadata or the storage of a rosbag2 in it."""
    if path.is_dir():
        return bool(_storage_files(path)) or _METADATA_KEY in _metadata_text(path)
    return path.is_file() and path.suffix.lower() in BAG_SUFFIXES


def camera_info_topic(image_topic: str, candidates: list[str]) -> str | None:
    """The one of the CameraInfo topics `candidates` that belongs to an image topic.

    The sibling called `camera_info`, as image_transport has it: "/cam/image_raw", and also "/cam/image_raw/compressed",
    go with "/cam/camera_info".
    """
    parent = image_topic.rpartition("/")[0]
    for namespace in (parent, parent.rpartition("/")[0]):
        if f"{namespace}/camera_info" in candidates:
            return f"{namespace}/camera_info"
    return None


class BagSource:
    """One image topic of a bag, stamped with the message headers (with the time of recording where those are 0).

    The CameraInfo topic that belongs to it, if there is one, gives the calibration: the first one of the bag from the
    first image on, later ones from where they were recorded.
    """

    stamp_origin: StampOrigin = "message header"
    is_live = False

    def __init__(self, path: Path, topic: str | None = None) -> None:
        """Opens the bag once and chooses the topic.

        Args:
            path: A rosbag2 folder, or a .mcap, .db3 or .bag file.
            topic: The image topic to read; needed where there are several.

        Raises:
            SourceError: The bag cannot be read, or it has no images, no such topic, or several and none was chosen.
        """
        self._path = path
        with self._reader() as reader:
            images = {c.topic: c for c in reader.connections if c.msgtype in _DECODERS and c.msgcount}
            self._topic = self._choose(topic, images, reader)
            chosen = [c for c in reader.connections if c.topic == self._topic]
            self._frame_count = sum(c.msgcount for c in chosen)
            infos = [c.topic for c in reader.connections if c.msgtype == _CAMERA_INFO and c.msgcount]
            self._info_topic = camera_info_topic(self._topic, infos)
            if self._info_topic is None and len(images) == 1 and len(set(infos)) == 1:
                self._info_topic = infos[0]

    @property
    def description(self) -> str:
        """Bag, topic and number of images."""
        count = self._frame_count
        return f"{count} image{'' if count == 1 else 's'} of topic {self._topic} from {self._path}"

    @property
    def frame_count(self) -> int:
        """Number of messages of the topic."""
        return self._frame_count

    @property
    def has_camera(self) -> bool:
        """Whether a CameraInfo topic belongs to the images."""
        return self._info_topic is not None

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The images from position `start` on, in the order of recording.

        Raises:
            SourceError: The bag is damaged, or its images are in an encoding that cannot be played.
        """
        with self._reader() as reader:
            camera = self._first_camera(reader)
            if camera is None and self._info_topic is not None:
                _logger.warning("topic %s of %s holds no calibration; it is not played", self._info_topic, self._path)
            wanted = [c for c in reader.connections if c.topic in {self._topic, self._info_topic}]
            index = 0
            readable = 0
            for connection, recorded_ns, data in reader.messages(connections=wanted):
                if connection.topic == self._info_topic:
                    camera = _camera(reader.deserialize(data, connection.msgtype))
                    continue
                if index >= start:
                    found = self._image(index, connection, recorded_ns, reader.deserialize(data, connection.msgtype))
                    self._check_encoding(found.message)
                    try:
                        image = _DECODERS[found.type_name](found.message)
                    except ImageError as error:
                        _logger.warning("skipped %s: %s", found.name, error)
                    else:
                        readable += 1
                        if readable == 1 and camera is not None:
                            _warn_of_size(camera, image.shape[0], image.shape[1], found.name)
                        yield Frame(image, index, found.name, found.stamp_ns, found.message.header.frame_id, camera)
                index += 1
            if not readable and index > start:
                msg = f"none of the {index - start} images of {self._topic} in {self._path} can be read"
                raise SourceError(msg)

    def messages(
        self, start: int = 0, *, with_earlier_infos: bool = True
    ) -> Iterator[tuple[BagImage | UnreadableFrame, list[Any]]]:
        """The images from position `start` on, undecoded, each with the CameraInfo messages that came with it.

        These are the ones recorded between it and the next image. A message that is damaged is in its place among the
        images.

        Args:
            start: Position of the first image.
            with_earlier_infos: Whether that one comes with all CameraInfo messages recorded before it, too, or, where
                there are none, with the first one of the bag.

        Raises:
            SourceError: The bag is damaged.
        """
        with self._reader() as reader:
            wanted = [c for c in reader.connections if c.topic in {self._topic, self._info_topic}]
            waiting: BagImage | UnreadableFrame | None = None
            infos: list[Any] = []
            index = 0
            for connection, recorded_ns, data in reader.messages(connections=wanted):
                if connection.topic == self._info_topic:
                    if index > start or with_earlier_infos:
                        infos += self._camera_info(reader, connection, data)
                    continue
                if waiting is not None:
                    yield waiting, infos
                    waiting, infos = None, []
                if index >= start:
                    if index == start and with_earlier_infos and not infos:
                        infos = self._first_camera_info(reader)
                    try:
                        message = reader.deserialize(data, connection.msgtype)
                        waiting = self._image(index, connection, recorded_ns, message)
                    except Exception as error:
                        reason = f"the message is damaged: {type(error).__name__}: {error}"
                        waiting = UnreadableFrame(index, f"image {index} of {self._topic}", reason, recorded_ns)
                index += 1
            if waiting is not None:
                yield waiting, infos

    def _image(self, index: int, connection: Connection, recorded_ns: int, message: Any) -> BagImage:
        stamp = message.header.stamp
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        name = f"image {index} of {self._topic}"
        return BagImage(index, name, connection.msgtype, message, stamp_ns or recorded_ns)

    def _camera_info(self, reader: AnyReader, connection: Connection, data: bytes) -> list[Any]:
        try:
            return [reader.deserialize(data, connection.msgtype)]
        except Exception as error:
            _logger.warning("skipped a damaged message of %s: %s: %s", connection.topic, type(error).__name__, error)
            return []

    def _first_camera_info(self, reader: AnyReader) -> list[Any]:
        connections = [c for c in reader.connections if c.topic == self._info_topic]
        for connection, _, data in reader.messages(connections=connections) if connections else ():
            return self._camera_info(reader, connection, data)
        return []

    def _check_encoding(self, message: Any) -> None:
        encoding = getattr(message, "encoding", None)
        if encoding is not None and encoding not in ENCODINGS:
            msg = (
                f"the images of {self._topic} in {self._path} have encoding {encoding!r}, which cannot be played; "
                f"expected one of {', '.join(ENCODINGS)}"
            )
            raise SourceError(msg)

    def _choose(self, topic: str | None, images: dict[str, Connection], reader: AnyReader) -> str:
        listed = "".join(f"\n  {c.topic}  {c.msgtype}  {c.msgcount} messages" for c in images.values())
        if not images:
            others = "".join(f"\n  {c.topic}  {c.msgtype}  {c.msgcount} messages" for c in reader.connections)
            msg = (
                f"bag {self._path} has no images; expected sensor_msgs Image or CompressedImage, found:{others or ' -'}"
            )
            raise SourceError(msg)
        if topic is not None:
            for name in (topic, f"/{topic}"):
                if name in images:
                    return name
            msg = f"bag {self._path} has no images on topic {topic!r}; expected one of:{listed}"
            raise SourceError(msg)
        if len(images) > 1:
            msg = f"bag {self._path} has {len(images)} image topics; choose one with --topic NAME:{listed}"
            raise SourceError(msg)
        return next(iter(images))

    def _first_camera(self, reader: AnyReader) -> CameraCalibration | None:
        return next(map(_camera, self._first_camera_info(reader)), None)

    @contextmanager
    def _reader(self) -> Iterator[AnyReader]:
        try:
            from rosbags.highlevel import AnyReader
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            msg = f"reading bag {self._path} needs the Python package rosbags: pip install rosbags"
            raise SourceError(msg) from error
        path = self._path
        if path.is_dir() and not (path / "metadata.yaml").is_file():
            files = _storage_files(path)
            if len(files) > 1:
                msg = (
                    f"bag {path} has no metadata.yaml and {len(files)} storage files; play one of these, or reindex it"
                )
                raise SourceError(msg)
            path = files[0]
        try:
            # sqlite3 bags from before Iron carry no message definitions; those of sensor_msgs are the same ever since.
            with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
                yield reader
        except FeatureFrontendError:
            raise
        except Exception as error:
            # Damaged files make the storage layers raise anything from struct.error to sqlite3.DatabaseError.
            msg = f"bag {self._path} cannot be read: {type(error).__name__}: {error}"
            raise SourceError(msg) from error


def _warn_of_size(camera: CameraCalibration, height: int, width: int, name: str) -> None:
    try:
        camera.check_image(height, width, name)
    except CalibrationError as error:
        _logger.warning("%s", error)


def _storage_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in {".mcap", ".db3"})


def _metadata_text(folder: Path) -> bytes:
    """That of a rosbag2, or of another program that calls a file so; empty where there is none."""
    try:
        return (folder / "metadata.yaml").read_bytes()
    except OSError:
        return b""


def _camera(info: Any) -> CameraCalibration | None:
    try:
        return calibration_from_message(info)
    except CalibrationError as error:
        _logger.debug("the CameraInfo of the bag is not a calibration: %s", error)
        return None
