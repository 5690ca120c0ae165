"""One image of a source, with what the source knows about it."""

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
        samples: (H, W) grey or (H, W, 3) RGB as the source stores them: uint8, or deeper integers or floats.
        index: Position in the source, from 0; positions of unreadable images stay empty.
        name: Name of the image in messages to the user, such as its file name.
        stamp_ns: The source's own time in ns, `None` where it has none.
        frame_id: The source's own coordinate frame, empty where it has none.
        camera: The calibration that came with the image, `None` where none did.
    """

    samples: npt.NDArray[Any]
    index: int
    name: str
    stamp_ns: int | None = None
    frame_id: str = ""
    camera: CameraCalibration | None = None

    @cached_property
    def image(self) -> npt.NDArray[np.uint8]:
        """The samples as grey levels, uint8 in their shape: deeper ones as parameter `intensity_range` has it."""
        return DEFAULT_INTENSITY.to_grey_levels(self.samples)


@dataclass(frozen=True)
class UnreadableFrame:
    """What is known of an image that cannot be read.

    Attributes:
        index: Its position in the source, from 0.
        name: What to call it in messages to the user.
        reason: Why it cannot be read, in one line.
        stamp_ns: The source's own time in ns, `None` where it has none.
        frame_id: The source's own coordinate frame, empty where it has none.
        is_lost: Whether it was whole once; else it is of a kind that is not taken.
    """

    index: int
    name: str
    reason: str
    stamp_ns: int | None = None
    frame_id: str = ""
    is_lost: bool = False


@dataclass
class LostImages:
    """Images that were whole once and cannot be read.

    Attributes:
        count: How many.
        reason: Why the first of them cannot be read.
    """

    count: int = 0
    reason: str = ""

    def note(self, reason: str) -> None:
        """Counts one more."""
        self.count += 1
        self.reason = self.reason or reason

    def told(self, where: str) -> list[str]:
        """It in a sentence, without any in no sentence; `where` names the topic or the folder."""
        if not self.count:
            return []
        return [f"{self.count} image{'' if self.count == 1 else 's'} of {where} cannot be read: {self.reason}"]


StampOrigin = Literal["file name", "file of times", "message header", "container", "capture"]


class Source(Protocol):
    """A sequence of images that can be read from the start any number of times, one image in memory at a time."""

    @property
    def description(self) -> str:
        """What is played, for messages to the user."""

    @property
    def frame_count(self) -> int | None:
        """Number of images, unreadable ones included; `None` where it is not known beforehand."""

    @property
    def stamp_origin(self) -> StampOrigin:
        """Where the stamps of the frames come from, if they have any."""

    @property
    def has_camera(self) -> bool:
        """Whether a calibration comes with the images."""

    @property
    def is_live(self) -> bool:
        """Whether the images are taken now: such a source sets the pace itself and cannot be repeated."""

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The images from position `start` on."""


@dataclass(frozen=True)
class SourceOptions:
    """What the user may say about a source.

    Attributes:
        topic: The image topic to read from a bag; `None` where there is only one.
        rate_hz: Upper bound of the rate of a webcam; `None` or 0 for the camera's own.
        max_image_pixels: Most pixels of an image file that is accepted.
    """

    topic: str | None = None
    rate_hz: float | None = None
    max_image_pixels: int = MAX_IMAGE_PIXELS
