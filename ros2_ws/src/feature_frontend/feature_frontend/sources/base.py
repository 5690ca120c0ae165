"""The interface of image sources, and their frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.image.intensity import DEFAULT_INTENSITY
from feature_frontend.image.limits import MAX_IMAGE_PIXELS

__all__ = ["Frame", "LostImages", "UnreadableFrame"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One image.

    Attributes:
        samples: (H, W) grey or (H, W, 3) RGB as stored in the source: uint8, or deeper integers or floats.
        index: Position in the source, from 0; unreadable images keep their positions.
        name: Name of the image in messages to the user, such as its file name.
        stamp_ns: Time in the source in ns; None if it has none.
        frame_id: Coordinate frame in the source; empty if it has none.
        camera: The calibration that belongs to the image; None without one.
    """

    samples: npt.NDArray[Any]
    index: int
    name: str
    stamp_ns: int | None = None
    frame_id: str = ""
    camera: CameraCalibration | None = None

    @cached_property
    def image(self) -> npt.NDArray[np.uint8]:
        """The samples as uint8 of the same shape; deeper ones are converted by the default `intensity_range`."""
        return DEFAULT_INTENSITY.to_grey_levels(self.samples)


@dataclass(frozen=True)
class UnreadableFrame:
    """An image that cannot be read.

    Attributes:
        index: Its position in the source, from 0.
        name: Its name in messages to the user.
        reason: Why it cannot be read, in one line.
        stamp_ns: Time in the source in ns; None if it has none.
        frame_id: Coordinate frame in the source; empty if it has none.
        is_lost: Whether it was once intact; False if its kind is not supported.
    """

    index: int
    name: str
    reason: str
    stamp_ns: int | None = None
    frame_id: str = ""
    is_lost: bool = False


@dataclass
class LostImages:
    """Images that were once intact and cannot be read.

    Attributes:
        count: Their number.
        reason: Why the first of them cannot be read.
    """

    count: int = 0
    reason: str = ""

    def note(self, reason: str) -> None:
        """Counts one more image."""
        self.count += 1
        self.reason = self.reason or reason

    def sentences(self, where: str) -> list[str]:
        """One sentence about the images, or none if no image is lost; `where` names the topic or the folder."""
        if not self.count:
            return []
        return [f"{self.count} image{'' if self.count == 1 else 's'} of {where} cannot be read: {self.reason}"]


StampOrigin = Literal["file name", "file of times", "message header", "container", "capture"]


class Source(Protocol):
    """A sequence of images, read one at a time; can be read from the start any number of times."""

    @property
    def description(self) -> str:
        """Description for messages to the user."""

    @property
    def frame_count(self) -> int | None:
        """Number of images, including unreadable ones; None if not known in advance."""

    @property
    def stamp_origin(self) -> StampOrigin:
        """Origin of the frames' stamps, if they have any."""

    @property
    def has_camera(self) -> bool:
        """Whether the source contains a calibration."""

    @property
    def is_live(self) -> bool:
        """Whether the source is a live camera, which sets the pace and cannot be repeated."""

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The images from position `start` on."""


@dataclass(frozen=True)
class SourceOptions:
    """User options of a source.

    Attributes:
        topic: The image topic of a bag; None if there is only one.
        rate_hz: Maximum rate of a webcam; None or 0 for the camera's own.
        max_image_pixels: Maximum number of pixels of an accepted image file.
    """

    topic: str | None = None
    rate_hz: float | None = None
    max_image_pixels: int = MAX_IMAGE_PIXELS
