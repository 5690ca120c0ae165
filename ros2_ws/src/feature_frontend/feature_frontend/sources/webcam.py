"""Cameras that OpenCV can open, such as V4L2 devices."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import cv2
import numpy as np

from feature_frontend.errors import SourceError
from feature_frontend.image.encodings import to_rgb
from feature_frontend.sources.base import Frame, StampOrigin
from feature_frontend.system.text import quoted

__all__ = ["WebcamSource", "is_webcam"]

_LOCATION = re.compile(r"webcam:(?P<number>[0-9]{1,4})|/dev/video[0-9]{1,4}")


def is_webcam(location: str) -> bool:
    """Whether `location` names a camera: "webcam:0" or "/dev/video0"."""
    return location.startswith("webcam:") or _LOCATION.fullmatch(location) is not None


class WebcamSource:
    """The images of a camera as (H, W, 3) RGB (or (H, W) from a grey camera), stamped on arrival."""

    stamp_origin: StampOrigin = "capture"
    has_camera = False
    is_live = True
    frame_count = None

    def __init__(self, location: str, max_rate_hz: float = 0.0) -> None:
        """Opens the camera once, to check that it exists.

        Args:
            location: "webcam:N" for camera number N, or a device path.
            max_rate_hz: Images that arrive faster than this are dropped; 0 keeps all.

        Raises:
            SourceError: The location is malformed, or the camera cannot be opened.
        """
        self._location = location
        self._period_ns = round(1e9 / max_rate_hz) if max_rate_hz > 0 else 0
        match = _LOCATION.fullmatch(location)
        if match is None and location.startswith("webcam:"):
            raise SourceError(
                f"camera {quoted(location)} is not known; expected webcam:N, such as webcam:0, or /dev/videoN"
            )
        self._device: int | str = int(match["number"]) if match and match["number"] else location
        self._open().release()

    @property
    def description(self) -> str:
        """The camera."""
        return f"camera {self._location}"

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """An endless stream of images, without the first `start`, such as while the exposure settles.

        Raises:
            SourceError: The camera stops delivering.
        """
        capture = self._open()
        try:
            index = 0
            due_ns: int | None = None
            while True:
                arrived, image = capture.read()
                stamp_ns = time.time_ns()
                if not arrived:
                    raise SourceError(
                        f"camera {self._location} delivers no more pictures after {index}; is it still connected?"
                    )
                # Cameras jitter by a tenth of the period; without this tolerance, 30 Hz from a 30 Hz camera becomes 15.
                due_ns = stamp_ns if due_ns is None else due_ns
                if index >= start and stamp_ns >= due_ns - self._period_ns // 10:
                    due_ns = max(due_ns, stamp_ns - self._period_ns) + self._period_ns
                    samples = np.asarray(image) if image.ndim == 2 else to_rgb(image, cv2.COLOR_BGR2RGB)
                    yield Frame(samples, index, f"picture {index}", stamp_ns)
                index += 1
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self._device)
        if not capture.isOpened():
            raise SourceError(
                f"camera {self._location} cannot be opened: check that it is connected (ls /dev/video*), that no other "
                "program uses it, and that you may read it (group video)"
            )
        return capture
