"""Playback schedule of a source's IMU: its measurements between the frames, on the same time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from feature_frontend.sources.image_files import ImageFilesSource
from feature_frontend.sources.imu import ImuMeasurements
from feature_frontend.sources.playback import PlaybackSettings, ScheduledFrame

__all__ = ["ScheduledMeasurement", "with_imu"]


@dataclass(frozen=True)
class ScheduledMeasurement:
    """A measurement of the IMU with its schedule.

    Attributes:
        index: Its position in `ImuMeasurements`.
        due_s: When to publish it, s after the first frame; negative before it.
        stamp_ns: Its stamp in ns.
    """

    index: int
    due_s: float
    stamp_ns: int


def with_imu(
    frames: Iterator[ScheduledFrame], source: ImageFilesSource, imu: ImuMeasurements, settings: PlaybackSettings
) -> Iterator[ScheduledFrame | ScheduledMeasurement]:
    """The frames of `schedule` with the measurements between them, in the order of their stamps.

    A measurement with the stamp of a frame comes before it. The first image of the source is preceded by all earlier
    measurements, a later one that `settings.start` selects by those since the image before it, and the first of a new
    round of a loop by those of one mean interval. Measurements after the last image are only played if neither
    `settings.loop` nor `settings.count` ends the playback there. Reads no more than one frame ahead.

    Args:
        frames: From `schedule`, with the stamps of the source.
        source: Of the frames; has stamps.
        imu: Of the source.
        settings: As for `schedule`.
    """
    scale = _time_scale(source, settings)
    stamps_ns = source.stamps_ns or ()
    sent_ns = stamps_ns[settings.start - 1] if 0 < settings.start <= len(stamps_ns) else None
    sent_s: float | None = None
    shift_ns = 0
    for scheduled in frames:
        assert scheduled.stamp_ns is not None
        assert scheduled.frame.stamp_ns is not None
        shift_ns = scheduled.stamp_ns - scheduled.frame.stamp_ns
        for measurement in _between(imu, sent_ns, scheduled.stamp_ns, shift_ns):
            due_s = scheduled.due_s - (scheduled.stamp_ns - measurement[1]) / 1e9 * scale
            yield ScheduledMeasurement(measurement[0], due_s if sent_s is None else max(due_s, sent_s), measurement[1])
        yield scheduled
        sent_ns, sent_s = scheduled.stamp_ns, scheduled.due_s
    if settings.count is None and sent_ns is not None and sent_s is not None:
        for index, stamp_ns in _between(imu, sent_ns, None, shift_ns):
            yield ScheduledMeasurement(index, sent_s + (stamp_ns - sent_ns) / 1e9 * scale, stamp_ns)


def _between(
    imu: ImuMeasurements, after_ns: int | None, until_ns: int | None, shift_ns: int
) -> Iterator[tuple[int, int]]:
    """Index and shifted stamp of the measurements after the one stamp and up to the other; None for no limit."""
    begin = 0 if after_ns is None else int(np.searchsorted(imu.stamps_ns, after_ns - shift_ns, side="right"))
    end = len(imu.stamps_ns)
    if until_ns is not None:
        end = int(np.searchsorted(imu.stamps_ns, until_ns - shift_ns, side="right"))
    for index in range(begin, end):
        yield index, int(imu.stamps_ns[index]) + shift_ns


def _time_scale(source: ImageFilesSource, settings: PlaybackSettings) -> float:
    """Seconds of playback in a second of the source."""
    stamps_ns = source.stamps_ns or ()
    if settings.rate_hz == 0:
        return 0.0
    if settings.rate_hz is None or len(stamps_ns) < 2:
        return 1.0
    return (len(stamps_ns) - 1) / (settings.rate_hz * (stamps_ns[-1] - stamps_ns[0]) / 1e9)
