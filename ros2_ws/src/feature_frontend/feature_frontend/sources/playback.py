"""Playback schedule: order, repetition, pace and stamps of a source's frames, without a clock or ROS."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from feature_frontend.errors import SourceError
from feature_frontend.sources.base import Frame, UnreadableFrame

if TYPE_CHECKING:
    from feature_frontend.sources.bag import BagImage
    from feature_frontend.sources.base import Source

__all__ = [
    "DEFAULT_RATE_HZ",
    "STAMP_POLICIES",
    "PlaybackSettings",
    "ScheduledFrame",
    "StampPolicy",
    "Stamps",
    "schedule",
]

_logger = logging.getLogger(__name__)

DEFAULT_RATE_HZ = 10.0
"""Rate of a source without frame times."""

StampPolicy = Literal["auto", "name", "source", "index", "clock"]
STAMP_POLICIES: tuple[StampPolicy, ...] = ("auto", "name", "source", "index", "clock")


@dataclass(frozen=True)
class PlaybackSettings:
    """How to play a source.

    Attributes:
        rate_hz: Frames per second; 0 for as fast as possible, None for the times of the source or `DEFAULT_RATE_HZ`.
        loop: Repeat endlessly.
        start: Number of frames to skip at the beginning.
        count: Number of frames to play from there (in each round of a loop); None for all.
        stamps: "source": the source's times; "name": the same, but only from file names; "index": position divided by
            the rate, from 0; "clock": the time of publishing; "auto": "source" if it has times, else "index".
    """

    rate_hz: float | None = None
    loop: bool = False
    start: int = 0
    count: int | None = None
    stamps: StampPolicy = "auto"


@dataclass(frozen=True, eq=False)
class ScheduledFrame:
    """A frame with its schedule.

    Attributes:
        frame: The frame.
        due_s: When to publish it, s after the first frame; never decreases.
        stamp_ns: Its stamp in ns; None for the time of publishing.
    """

    frame: Frame
    due_s: float
    stamp_ns: int | None


def schedule(source: Source, settings: PlaybackSettings) -> Iterator[ScheduledFrame]:
    """The frames of `source` in playback order; does not read ahead of the frame that it yields.

    In a loop, the stamps of each round continue one mean frame interval after the last one, so that they always
    increase.

    Raises:
        SourceError: The frames have no stamps of the requested kind, there is no frame after `start`, or `loop` is set
            for a live source.
    """
    _check(source, settings)
    index_rate_hz = settings.rate_hz or DEFAULT_RATE_HZ
    stamps = Stamps(source, settings)
    shift_ns = 0
    published = 0
    due_s = 0.0
    origin_ns: int | None = None
    while True:
        first_ns = last_ns = None
        round_count = 0
        for frame in itertools.islice(source.frames(settings.start), settings.count):
            time_ns = stamps.of(frame) + shift_ns
            origin_ns = time_ns if origin_ns is None else origin_ns
            first_ns = time_ns if first_ns is None else first_ns
            last_ns = time_ns
            if source.is_live:
                due_s = 0.0
            elif settings.rate_hz:
                due_s = published / settings.rate_hz
            elif settings.rate_hz is None:
                due_s = max(due_s, (time_ns - origin_ns) / 1e9)
            yield ScheduledFrame(frame, due_s, None if settings.stamps == "clock" else time_ns)
            round_count += 1
            published += 1
        if first_ns is None or last_ns is None:
            count = "" if source.frame_count is None else f" of {source.frame_count} images"
            raise SourceError(f"there is nothing to play from image {settings.start}{count} on; choose a smaller start")
        if not settings.loop:
            return
        interval_ns = (last_ns - first_ns) / (round_count - 1) if round_count > 1 else 1e9 / index_rate_hz
        shift_ns += last_ns - first_ns + max(round(interval_ns), 1)


class Stamps:
    """The stamps of the frames of `source`; logs once if it assumes a rate for them."""

    def __init__(self, source: Source, settings: PlaybackSettings) -> None:
        self._source = source
        self._settings = settings
        self._has_warned = settings.rate_hz is not None or settings.stamps != "auto" or source.frame_count == 1

    def of(self, frame: BagImage | Frame | UnreadableFrame) -> int:
        """The stamp of a frame in ns; not for the stamps "clock".

        Raises:
            SourceError: The frame has no stamp of the requested kind.
        """
        settings = self._settings
        if frame.stamp_ns is not None and settings.stamps != "index":
            return frame.stamp_ns
        if settings.stamps in {"name", "source"}:
            raise SourceError(
                f"{frame.name} carries no time; expected names in seconds, such as 1311868169.163498.png, or of 19, 16 "
                "or 13 digits (ns, us, ms), all of them different; or choose the stamps index or clock"
            )
        if not self._has_warned:
            self._has_warned = True
            _logger.warning(
                "%s: no times are known, so %g Hz are assumed; give --rate HZ, names that are times such as "
                "1311868169.163498.png, or a times.txt next to the images with the seconds of each",
                self._source.description,
                DEFAULT_RATE_HZ,
            )
        return round((frame.index - settings.start) * 1e9 / (settings.rate_hz or DEFAULT_RATE_HZ))


def _check(source: Source, settings: PlaybackSettings) -> None:
    if settings.loop and source.is_live:
        raise SourceError(f"{source.description} has no end and cannot be played in a loop")
    if settings.stamps == "name" and source.stamp_origin != "file name":
        raise SourceError(
            f"stamps from file names are for folders of images; the stamps of {source.description} come from its "
            f"{source.stamp_origin}: choose source, index or clock"
        )
