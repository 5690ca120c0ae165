"""The images of a rosbag2 (sqlite3 or mcap) or a ROS 1 bag, read without ROS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from feature_frontend.camera.calibration import CameraCalibration, calibration_from_message
from feature_frontend.errors import CalibrationError, DamagedImageError, ImageError, SourceError
from feature_frontend.image.compressed import compressed_image_samples
from feature_frontend.image.encodings import ENCODINGS, image_samples
from feature_frontend.sources.bags.messages import ENCODINGS as SERIALIZATIONS
from feature_frontend.sources.bags.messages import MessageReader
from feature_frontend.sources.bags.sequence import Bag
from feature_frontend.sources.bags.stamps import header_stamp_ns, stamp_ns, uses_recording_times
from feature_frontend.sources.bags.storage import BagMessage, BagTopic
from feature_frontend.sources.base import Frame, LostImages, StampOrigin, UnreadableFrame

__all__ = ["BagImage", "BagSource", "camera_info_topic"]

_DECODERS: dict[str, Callable[[Any], npt.NDArray[Any]]] = {
    "sensor_msgs/msg/Image": image_samples,
    "sensor_msgs/msg/CompressedImage": compressed_image_samples,
}
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class BagImage:
    """An image message of a bag.

    Attributes:
        index: Position among the images of its topic, from 0.
        name: Its name in messages to the user.
        type_name: "sensor_msgs/msg/Image" or "sensor_msgs/msg/CompressedImage".
        message: The message, with the fields of its type.
        stamp_ns: Of its header, ns; the recording time if all stamps of the topic are 0.
    """

    index: int
    name: str
    type_name: str
    message: Any
    stamp_ns: int


def camera_info_topic(image_topic: str, candidates: list[str]) -> str | None:
    """The CameraInfo topic among `candidates` that belongs to an image topic.

    The sibling `camera_info`, as in image_transport: "/cam/image_raw" and "/cam/image_raw/compressed" belong to
    "/cam/camera_info".
    """
    parent = image_topic.rpartition("/")[0]
    for namespace in (parent, parent.rpartition("/")[0]):
        if f"{namespace}/camera_info" in candidates:
            return f"{namespace}/camera_info"
    return None


class BagSource:
    """One image topic of a bag, stamped by the message headers (by the recording times if all those are 0).

    Its CameraInfo topic, if any, provides the calibration: the bag's first message applies from the first image on,
    later ones from where they were recorded. Reads the intact parts of a damaged bag, or of one whose recorder was
    killed, and warns of losses.

    Attributes:
        lost: Damaged images of `frames` read so far.
    """

    stamp_origin: StampOrigin = "message header"
    is_live = False

    def __init__(self, path: Path, topic: str | None = None) -> None:
        """Opens the bag and chooses the topic.

        Args:
            path: A rosbag2 folder, or a .mcap, .db3 or .bag file.
            topic: The image topic to read; required if there are several.

        Raises:
            SourceError: The bag cannot be read, or it has no images, no such topic, or several and none was chosen.
        """
        self._path = path
        self._bag = Bag(path)
        self._reader = MessageReader()
        self._said: set[str] = set()
        self.lost = LostImages()
        self._uses_recording_times: bool | None = None
        filled = [found for found in self._bag.topics if found.count and found.encoding in SERIALIZATIONS]
        images = {found.name: found for found in filled if found.type_name in _DECODERS}
        self._topic = self._choose(topic, images)
        self._frame_count = sum(found.count for found in self._bag.topics if found.name == self._topic)
        infos = [found.name for found in filled if found.type_name == _CAMERA_INFO]
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

    @property
    def images_of(self) -> str:
        """The topic, for messages to the user."""
        return self._topic

    @property
    def storage_missing(self) -> list[str]:
        """Known losses in the bag's files, one sentence each; complete once all images have been read."""
        return self._bag.losses.missing

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The images from position `start` on, in the order of recording.

        Raises:
            SourceError: None of them can be read, or their encoding is not supported.
        """
        self._warn_of_losses()
        camera = self._first_camera()
        if camera is None and self._info_topic is not None:
            _logger.warning("topic %s of %s holds no calibration; it is not played", self._info_topic, self._path)
        index = readable = 0
        for message in self._wanted():
            if message.topic.name == self._info_topic:
                infos = self._camera_info(message)
                camera = _camera(infos[0]) if infos else camera
                continue
            if index >= start:
                found = self._image(index, message)
                image = self._decoded(found)
                if image is not None:
                    assert isinstance(found, BagImage)
                    readable += 1
                    if readable == 1 and camera is not None:
                        _warn_of_size(camera, image.shape[0], image.shape[1], found.name)
                    yield Frame(image, index, found.name, found.stamp_ns, found.message.header.frame_id, camera)
            index += 1
        if not readable and index > start:
            raise SourceError(f"none of the {index - start} images of {self._topic} in {self._path} can be read")

    def messages(
        self, start: int = 0, *, with_earlier_infos: bool = True
    ) -> Iterator[tuple[BagImage | UnreadableFrame, list[Any]]]:
        """The images from position `start` on, undecoded, each with its CameraInfo messages.

        These are the ones recorded between it and the next image. A damaged message keeps its position.

        Args:
            start: Position of the first image.
            with_earlier_infos: Whether to return all CameraInfo messages recorded before the first image with it, or,
                if there are none, the first one of the bag.

        Raises:
            SourceError: The bag cannot be read any further.
        """
        self._warn_of_losses()
        waiting: BagImage | UnreadableFrame | None = None
        infos: list[Any] = []
        index = 0
        for message in self._wanted():
            if message.topic.name == self._info_topic:
                if index > start or with_earlier_infos:
                    infos += self._camera_info(message)
                continue
            if waiting is not None:
                yield waiting, infos
                waiting, infos = None, []
            if index >= start:
                if index == start and with_earlier_infos and not infos:
                    infos = self._first_camera_info()
                waiting = self._image(index, message)
            index += 1
        if waiting is not None:
            yield waiting, infos

    def stamps_ns(self) -> Iterator[int]:
        """The stamps of all images in ns, in the order of recording, without decoding the images."""
        for message in self._bag.messages({self._topic}):
            yield self._stamp(message)

    def _wanted(self) -> Iterator[BagMessage]:
        try:
            yield from self._bag.messages({self._topic, self._info_topic or self._topic})
        finally:
            self._warn_of_losses()

    def _image(self, index: int, message: BagMessage) -> BagImage | UnreadableFrame:
        name = f"image {index} of {self._topic}"
        try:
            read = self._reader.read(message)
        except ValueError as error:
            return UnreadableFrame(index, name, str(error), self._stamp(message), is_lost=True)
        taken_ns = message.time_ns if self._takes_recording_times() else stamp_ns(read.header)
        return BagImage(index, name, message.topic.type_name, read, taken_ns)

    def _stamp(self, message: BagMessage) -> int:
        """The stamp of an image, damaged or not: of its header; the recording time if that cannot be read."""
        if not message.problem and not self._takes_recording_times():
            with suppress(ValueError):
                return header_stamp_ns(message.data, message.topic.encoding)
        return message.time_ns

    def _takes_recording_times(self) -> bool:
        if self._uses_recording_times is None:
            self._uses_recording_times = uses_recording_times(self._header_stamps())
        return self._uses_recording_times

    def _header_stamps(self) -> Iterator[int]:
        for message in self._bag.messages({self._topic}):
            # A message too short for a stamp is damaged, which is reported at its position.
            with suppress(ValueError):
                yield header_stamp_ns(message.data, message.topic.encoding)

    def _decoded(self, found: BagImage | UnreadableFrame) -> npt.NDArray[Any] | None:
        if isinstance(found, UnreadableFrame):
            self.lost.note(found.reason)
            _logger.warning("skipped %s: %s", found.name, found.reason)
            return None
        self._check_encoding(found.message)
        try:
            return _DECODERS[found.type_name](found.message)
        except ImageError as error:
            if isinstance(error, DamagedImageError):
                self.lost.note(str(error))
            _logger.warning("skipped %s: %s", found.name, error)
            return None

    def _camera_info(self, message: BagMessage) -> list[Any]:
        try:
            return [self._reader.read(message)]
        except ValueError as error:
            _logger.warning("skipped a message of %s: %s", message.topic.name, error)
            return []

    def _first_camera_info(self) -> list[Any]:
        if self._info_topic is None:
            return []
        for message in self._bag.messages({self._info_topic}):
            return self._camera_info(message)
        return []

    def _first_camera(self) -> CameraCalibration | None:
        return next(map(_camera, self._first_camera_info()), None)

    def _warn_of_losses(self) -> None:
        losses = self._bag.losses
        for text in (*losses.notes, *losses.missing):
            if text not in self._said:
                self._said.add(text)
                _logger.warning("%s", text)

    def _check_encoding(self, message: Any) -> None:
        encoding = getattr(message, "encoding", None)
        if encoding is not None and encoding not in ENCODINGS:
            raise SourceError(
                f"the images of {self._topic} in {self._path} have encoding {encoding!r}, which cannot be played; "
                f"expected one of {', '.join(ENCODINGS)}"
            )

    def _choose(self, topic: str | None, images: dict[str, BagTopic]) -> str:
        listed = "".join(_line(found) for found in images.values())
        if not images:
            others = "".join(_line(found) for found in self._bag.topics)
            lost = "".join(f"; {text}" for text in self.storage_missing)
            raise SourceError(
                f"bag {self._path} has no images; expected sensor_msgs Image or CompressedImage, "
                f"found:{others or ' -'}{lost}"
            )
        if topic is not None:
            for name in (topic, f"/{topic}"):
                if name in images:
                    return name
            raise SourceError(f"bag {self._path} has no images on topic {topic!r}; expected one of:{listed}")
        if len(images) > 1:
            raise SourceError(f"bag {self._path} has {len(images)} image topics; choose one with --topic NAME:{listed}")
        return next(iter(images))


def _line(topic: BagTopic) -> str:
    encoding = "" if topic.encoding in SERIALIZATIONS else f" in {topic.encoding}"
    return f"\n  {topic.name}  {topic.type_name or '(no type)'}{encoding}  {topic.count} messages"


def _warn_of_size(camera: CameraCalibration, height: int, width: int, name: str) -> None:
    try:
        camera.check_image(height, width, name)
    except CalibrationError as error:
        _logger.warning("%s", error)


def _camera(info: Any) -> CameraCalibration | None:
    try:
        return calibration_from_message(info)
    except CalibrationError as error:
        _logger.debug("the CameraInfo of the bag is not a calibration: %s", error)
        return None
