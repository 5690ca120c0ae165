"""The images of a bag, a video or a folder, each with the header for its results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.errors import DamagedImageError, ImageError, SourceError
from feature_frontend.image.compressed import decode_compressed_image
from feature_frontend.image.limits import MAX_IMAGE_PIXELS, check_image_size
from feature_frontend.ros.input.camera_info import camera_info_message
from feature_frontend.ros.input.image_conversion import image_to_array
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.settings import Settings
from feature_frontend.sources import PlaybackSettings, Source, SourceOptions, open_source
from feature_frontend.sources.bag import BagImage, BagSource
from feature_frontend.sources.base import Frame, UnreadableFrame
from feature_frontend.sources.datasets.base import DatasetSource
from feature_frontend.sources.image_files import ImageFilesSource
from feature_frontend.sources.playback import Stamps
from feature_frontend.sources.video import VideoSource
from feature_frontend.sources.webcam import is_webcam
from feature_frontend.system.files import open_regular_file
from feature_frontend.tools.process.request import Part

__all__ = ["InputFrame", "describe_content", "describe_files", "image_count", "input_frames", "open_input"]

_DEFAULT_FRAME_ID = "camera"
_BEGINNING_BYTES = 1 << 20
# builtin_interfaces/Time holds the seconds in an int32; a damaged header may hold more nanoseconds than a second has.
_LAST_STAMP_NS = 2**31 * 1_000_000_000 - 1


@dataclass(frozen=True, eq=False)
class InputFrame:
    """One image of an input.

    Attributes:
        found: As in its source.
        stamp_ns: Its time in ns.
        header: The header for its results.
        camera_infos: CameraInfo messages that belong to it, in order.
    """

    found: BagImage | Frame | UnreadableFrame
    stamp_ns: int
    header: Header
    camera_infos: list[Any]

    def pixels(self, settings: Settings) -> npt.NDArray[np.uint8]:
        """(H, W) grey or (H, W, 3) RGB uint8, decoded as in the node.

        Raises:
            ImageError: The image cannot be decoded; a `DamagedImageError` unless its kind is not supported.
        """
        found, max_pixels = self.found, settings.max_image_pixels
        if isinstance(found, UnreadableFrame):
            kind_of_error = DamagedImageError if found.is_lost else ImageError
            raise kind_of_error(f"{found.name}: {found.reason}")
        if isinstance(found, Frame):
            height, width = found.samples.shape[:2]
            check_image_size(height, width, max_pixels)
            return settings.intensity.to_grey_levels(np.ascontiguousarray(found.samples))
        if found.type_name == "sensor_msgs/msg/CompressedImage":
            return decode_compressed_image(found.message, settings.intensity, max_pixels)
        return image_to_array(found.message, settings.intensity, max_pixels)


def open_input(location: str, topic: str | None, max_image_pixels: int = MAX_IMAGE_PIXELS) -> Source:
    """Opens a bag, a video or a folder of images, these of at most `max_image_pixels` each.

    Raises:
        SourceError: There is no such input at that location, or it is a camera.
    """
    if is_webcam(location):
        raise SourceError(
            f"{location} is a camera; expected a bag, a video or a folder of images (the node processes cameras)"
        )
    return open_source(location, SourceOptions(topic=topic, max_image_pixels=max_image_pixels))


def image_count(source: Source, playback: PlaybackSettings) -> int | None:
    """How many images `playback` selects; None if a video does not know its length."""
    if source.frame_count is None:
        return None
    rest = max(source.frame_count - playback.start, 0)
    return rest if playback.count is None else min(rest, playback.count)


def input_frames(
    source: Source,
    playback: PlaybackSettings,
    frame_id: str | None,
    next_index: int | None,
    part: Part | None = None,
) -> Iterator[InputFrame]:
    """The images that `playback` selects, in the order of the source.

    Args:
        source: From `open_input`.
        playback: Selects images and stamps.
        frame_id: Frame of the headers; None for the source's own, or "camera".
        next_index: Position of the first image to process when resuming; None for the beginning.
        part: Of these images; None for all.

    Raises:
        SourceError: The source is damaged, or its images have no stamps of the requested kind.
    """
    first = playback.start if part is None else part.first
    start = first if next_index is None else next_index
    stamps = Stamps(source, playback)
    end = None if playback.count is None else playback.start + playback.count
    if part is not None and part.end is not None:
        end = part.end
    for found, camera_infos in _found(source, start, is_beginning=next_index is None):
        if end is not None and found.index >= end:
            return
        own = found.message.header.frame_id if isinstance(found, BagImage) else found.frame_id
        stamp_ns = min(stamps.of(found), _LAST_STAMP_NS)
        header = Header(stamp=stamp_from_ns(stamp_ns), frame_id=frame_id or str(own) or _DEFAULT_FRAME_ID)
        yield InputFrame(found, stamp_ns, header, camera_infos)


def describe_files(location: str, source: Source) -> dict[str, object]:
    """Identifies an input and its version: path, number of files, their names and times."""
    path, files = _files(location, source)
    listing = [(name, file.stat().st_size, file.stat().st_mtime_ns) for name, file in files.items()]
    return {
        "path": str(path),
        "files": len(files),
        "bytes": sum(size for _, size, _ in listing),
        "listing_sha256": hashlib.sha256(json.dumps(listing).encode()).hexdigest(),
    }


def describe_content(location: str, source: Source) -> str:
    """Identifies the content of an input, equal for copies elsewhere: names, sizes, and the first bytes."""
    _, files = _files(location, source)
    digest = hashlib.sha256(json.dumps([(name, file.stat().st_size) for name, file in files.items()]).encode())
    for file in list(files.values())[:1]:
        with suppress(OSError), open_regular_file(file) as opened:
            digest.update(opened.read(_BEGINNING_BYTES))
    return digest.hexdigest()


def _files(location: str, source: Source) -> tuple[Path, dict[str, Path]]:
    """The path of an input and the files that it consists of, by their names."""
    path = Path(location).resolve()
    if isinstance(source, DatasetSource):
        # They lie in several folders, beside those of other sensors.
        names = {f"{source.folder.name}/{file.name}": file for file in (*source.tables.values(), *source.files)}
        return path, {name: file for name, file in sorted(names.items()) if file.is_file()}
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return path, {file.name: file for file in files}


def _found(
    source: Source, start: int, *, is_beginning: bool
) -> Iterator[tuple[BagImage | Frame | UnreadableFrame, list[Any]]]:
    if isinstance(source, BagSource):
        yield from source.messages(start, with_earlier_infos=is_beginning)
        return
    assert isinstance(source, (ImageFilesSource, VideoSource))
    for frame in source.attempts(start):
        camera = frame.camera if isinstance(frame, Frame) else None
        yield frame, [] if camera is None else [_camera_info(camera, frame)]


def _camera_info(camera: CameraCalibration, frame: Frame | UnreadableFrame) -> CameraInfo:
    return camera_info_message(camera, stamp_from_ns(frame.stamp_ns or 0), frame.frame_id)
