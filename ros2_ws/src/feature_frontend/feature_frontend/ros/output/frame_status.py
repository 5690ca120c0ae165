"""The status of each frame: counters, input rate and the message."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass

from feature_frontend_msgs.msg import FrameStatus
from std_msgs.msg import Header

from feature_frontend.pipeline.process_frame import FrameReport
from feature_frontend.types import FrameState

__all__ = ["FrameStatistics", "StatisticsState", "fate"]

_RATE_WINDOW = 30  # images; one second of a typical camera
_MS_PER_S = 1e3


@dataclass(frozen=True)
class StatisticsState:
    """The state of `FrameStatistics`; arrivals in s on the clock of the frames."""

    processed: int
    dropped: int
    refused: int
    arrivals: tuple[float, ...]


def fate(status: FrameStatus) -> str:
    """A log line for a frame: its stamp, its state, its results and how long it took."""
    stamp, state = status.header.stamp, FrameState(status.state)
    text = f"image {stamp.sec}.{stamp.nanosec:09d}: {state.name}"
    if state not in {FrameState.DROPPED, FrameState.ERROR}:
        text += f", {status.keypoints} keypoints, {status.matches} matches, {status.tracks} tracks"
    return f"{text}, {status.latency_ms:.1f} ms" + (f": {status.reason}" if status.reason else "")


class FrameStatistics:
    """Counts frames by outcome and creates their status messages. A frame counts once its outcome is known.

    Not thread-safe: the node calls it under its lock.
    """

    def __init__(self) -> None:
        self._processed = 0
        self._dropped = 0
        self._refused = 0
        self._arrivals: deque[float] = deque(maxlen=_RATE_WINDOW)

    def get_state(self) -> StatisticsState:
        """The state that another instance needs to continue."""
        return StatisticsState(self._processed, self._dropped, self._refused, tuple(self._arrivals))

    def set_state(self, state: StatisticsState) -> None:
        """Continues from the state of another instance."""
        self._processed, self._dropped, self._refused = state.processed, state.dropped, state.refused
        self._arrivals = deque(state.arrivals, maxlen=_RATE_WINDOW)

    def note_arrival(self, received_s: float) -> None:
        """Records an image that arrived at `received_s` on the monotonic clock, s."""
        self._arrivals.append(received_s)

    def processed(self, header: Header, received_s: float, report: FrameReport, conversion_ms: float) -> FrameStatus:
        """The status of a frame whose results were published; `conversion_ms` is the time from message to pixels."""
        self._processed += 1
        result, intrinsics = report.result, report.intrinsics
        reason = "; ".join(part for part in (result.reason, report.news) if part)
        message = self._status(header, received_s, result.state, reason)
        message.keypoints = len(result.features)
        message.matches = len(result.matches)
        message.tracks = len(result.tracks)
        message.inlier_ratio = result.check.ratio
        message.conversion_ms = conversion_ms
        message.extraction_ms = result.times.extraction_ms
        message.matching_ms = result.times.matching_ms
        message.tracking_ms = result.times.tracking_ms
        message.publishing_ms = report.publishing_ms
        message.tracks_lost = result.change.lost
        message.survival = result.change.survival
        message.parallax_px = result.change.parallax_px
        message.fx, message.fy, message.cx, message.cy = intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy
        message.distortion_model = intrinsics.distortion_model
        message.distortion_coefficients.extend(intrinsics.distortion_coefficients)
        return message

    def dropped(self, header: Header, received_s: float, reason: str) -> FrameStatus:
        """The status of a frame that was dropped while it waited."""
        self._dropped += 1
        return self._status(header, received_s, FrameState.DROPPED, reason)

    def refused(self, header: Header, received_s: float, reason: str) -> FrameStatus:
        """The status of a frame that could not be processed."""
        self._refused += 1
        return self._status(header, received_s, FrameState.ERROR, reason)

    def _status(self, header: Header, received_s: float, state: FrameState, reason: str) -> FrameStatus:
        message = FrameStatus()
        message.header = header
        message.state = int(state)
        message.reason = reason
        message.inlier_ratio = message.survival = message.parallax_px = math.nan
        message.latency_ms = (time.monotonic() - received_s) * _MS_PER_S
        message.frames_received = self._processed + self._dropped + self._refused
        message.frames_processed = self._processed
        message.frames_dropped = self._dropped
        message.frames_refused = self._refused
        message.input_rate_hz = self._input_rate_hz()
        return message

    def _input_rate_hz(self) -> float:
        if len(self._arrivals) < 2:
            return 0.0
        elapsed_s = self._arrivals[-1] - self._arrivals[0]
        return (len(self._arrivals) - 1) / elapsed_s if elapsed_s > 0 else 0.0
