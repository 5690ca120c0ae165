"""Video files, with the times of their container."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from feature_frontend.errors import SourceError
from feature_frontend.image.encodings import to_rgb
from feature_frontend.sources.base import Frame, LostImages, StampOrigin, UnreadableFrame
from feature_frontend.system.files import path_for_c_library, readable_name

__all__ = ["VIDEO_SUFFIXES", "VideoSource", "is_video"]

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".mjpeg")

# For a raw stream, which does not contain its rate.
_FALLBACK_RATE_HZ = 25.0
# FFmpeg's code for one channel of 16 bits, which OpenCV returns unchanged if asked not to convert to colour.
_GREY_16 = int.from_bytes(b"Y1\0\x10", "little")

_logger = logging.getLogger(__name__)


def is_video(path: Path) -> bool:
    """Whether `path` is a file with a video suffix."""
    return path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES


class VideoSource:
    """The frames of a video file, stamped with their presentation time from the start of the file.

    8-bit (H, W, 3) RGB, or 16-bit (H, W) if the video has one such channel. Pixels are read as stored: a rotation in
    the metadata is not applied.

    Attributes:
        lost: Damaged frames of `frames` read so far.
        storage_missing: What is lost from the file, in one sentence; known once all frames have been read.
    """

    stamp_origin: StampOrigin = "container"
    has_camera = False
    is_live = False

    def __init__(self, path: Path) -> None:
        """Opens the file once, to check that it can be decoded.

        Raises:
            SourceError: No frame of it can be decoded.
        """
        self._path = path
        self._rotation_deg = 0
        self._has_warned = False
        self.lost = LostImages()
        self.storage_missing: list[str] = []
        capture = self._open()
        try:
            # Some containers do not know their length and report zero or less.
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            self._frame_count = count if count > 0 else None
            rate_hz = float(capture.get(cv2.CAP_PROP_FPS))
            self._rate_hz = rate_hz if 0 < rate_hz < 1000 else None
            self._rotation_deg = int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360
            if not capture.grab():
                raise SourceError(f"video {readable_name(path)} opens but not one frame of it can be decoded")
        finally:
            capture.release()

    @property
    def description(self) -> str:
        """File, number of frames and nominal rate."""
        count = f"{self._frame_count} frames" if self._frame_count else "frames"
        rate = f" at {self._rate_hz:g} Hz" if self._rate_hz else ""
        return f"{count}{rate} from {readable_name(self._path)}"

    @property
    def images_of(self) -> str:
        """What the images belong to, for messages to the user."""
        return readable_name(self._path)

    @property
    def frame_count(self) -> int | None:
        """Number of frames according to the container; may be an estimate."""
        return self._frame_count

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The frames from position `start` on; earlier ones are skipped without conversion."""
        for frame in self.attempts(start):
            if isinstance(frame, UnreadableFrame):
                self.lost.note(f"{frame.name}: {frame.reason}")
                _logger.warning("skipped frame %d of %s: %s", frame.index, readable_name(self._path), frame.reason)
            else:
                yield frame

    def attempts(self, start: int = 0) -> Iterator[Frame | UnreadableFrame]:
        """The frames from position `start` on, including those that cannot be decoded."""
        if self._rotation_deg and not self._has_warned:
            self._has_warned = True
            _logger.warning(
                "%s has a rotation of %d degrees in its metadata, which is not applied: pixels are taken as stored, as "
                "calibrations are of the sensor",
                readable_name(self._path.name),
                self._rotation_deg,
            )
        capture = self._open()
        try:
            index = 0
            previous_ns: int | None = None
            while capture.grab():
                stamp_ns = self._stamp(capture, previous_ns)
                previous_ns = stamp_ns
                if index >= start:
                    decoded, image = capture.retrieve()
                    name = f"frame {index} of {readable_name(self._path.name)}"
                    if decoded:
                        samples = np.array(image) if image.ndim == 2 else to_rgb(image, cv2.COLOR_BGR2RGB)
                        yield Frame(samples, index, name, stamp_ns)
                    else:
                        yield UnreadableFrame(index, name, "it cannot be decoded", stamp_ns, is_lost=True)
                index += 1
            self._note_end(index, previous_ns or 0)
        finally:
            capture.release()

    def _note_end(self, count: int, last_ns: int) -> None:
        """Checks whether the file ends before the length in its container, as a truncated one does.

        The frame count alone may be an estimate from duration and a variable rate; then the last frame is on time.
        """
        if self._frame_count is None or self._rate_hz is None or self.storage_missing:
            return
        if count < self._frame_count - 1 and last_ns < (self._frame_count - 2) / self._rate_hz * 1e9:
            text = (
                f"{readable_name(self._path)} announces {self._frame_count} frames and ends after {count}, at "
                f"{last_ns / 1e9:g} s: it is cut off, or damaged"
            )
            self.storage_missing.append(text)
            _logger.warning("%s", text)

    def _stamp(self, capture: cv2.VideoCapture, previous_ns: int | None) -> int:
        stamp_ns = max(round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6), 0)
        if previous_ns is None or stamp_ns > previous_ns:
            return stamp_ns
        # Raw streams have no times, or the same for all frames: fall back to the nominal rate.
        return previous_ns + round(1e9 / (self._rate_hz or _FALLBACK_RATE_HZ))

    def _open(self) -> cv2.VideoCapture:
        try:
            with path_for_c_library(self._path) as path:
                capture = cv2.VideoCapture(path)
        except OSError as error:
            raise SourceError(f"video {readable_name(self._path)} cannot be opened: {error}; rename it") from error
        if not capture.isOpened():
            raise SourceError(
                f"video {readable_name(self._path)} cannot be decoded: it is damaged, or in a format that this OpenCV "
                "does not know; convert it, for instance with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4"
            )
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        if int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) == _GREY_16:
            capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        return capture
