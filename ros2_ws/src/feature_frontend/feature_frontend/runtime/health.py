"""Health of the front-end: statistics of the latest frames, findings derived from them, and their severity."""

from __future__ import annotations

import enum
import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from feature_frontend.types import FrameState

__all__ = ["Finding", "FrameFacts", "Health", "HealthWindow", "Level", "assess", "findings_of"]

WINDOW_S = 10.0
# Limits memory; ten seconds at 400 Hz.
_MOST_FRAMES = 4096
_CLOCK_SLACK_S = 1e-3  # between two readings of the clock for one arrival
SILENCE_S = 5.0
DROPPED_WARN = 0.5
REFUSED_ERROR = 0.5
BLANK_WARN, BLANK_ERROR = 0.1, 0.5
# Fraction of the keypoints; below it the camera turns too fast for its rate, or the image is blurred.
MATCHED_WARN = 0.1
# The essential matrix needs five matches, a robust estimate a few more.
MATCHES_ERROR = 8
INLIER_WARN = 0.3

# Kinds of findings that are unknown while no frame is finished.
_OF_FRAMES = frozenset({"refused", "blank", "dropped", "too few matches", "few matches", "inliers", "pairs"})
_LOOK_AT = "is the camera running, and are topic and QoS right?"
_PROCESSED = (FrameState.OK, FrameState.FIRST, FrameState.DEGENERATE)


class Level(enum.IntEnum):
    """Levels of `diagnostic_msgs/DiagnosticStatus`, with its values."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Finding:
    """An observation to report on `/diagnostics` and in the log.

    Attributes:
        kind: What it is about; stays the same while the text changes.
        level: Severity; OK for information that only the log gets.
        text: One line; empty if nothing of this kind is wrong.
        over: Text for when it is over; empty for a phrase derived from `text`.
        lasted_s: How long it has already lasted, if known.
        hides: Kinds of findings that are unknown while this lasts.
        is_logged: Whether to log it; False if the finder logs it.
    """

    kind: str
    level: Level
    text: str
    over: str = ""
    lasted_s: float = 0.0
    hides: frozenset[str] = frozenset()
    is_logged: bool = True


@dataclass(frozen=True)
class FrameFacts:
    """The facts about one finished frame from which the health is computed.

    Attributes:
        time_s: When its status was decided, s on the monotonic clock.
        state: Its status.
        reason: Why, as in `status`.
        keypoints: Number of keypoints.
        matches: Number of matches.
        inlier_ratio: [0, 1]; NaN if unknown.
        latency_ms: From the arrival of the image to its results.
    """

    time_s: float
    state: FrameState
    reason: str
    keypoints: int
    matches: int
    inlier_ratio: float
    latency_ms: float


@dataclass(frozen=True)
class Health:
    """A summary of the latest frames.

    Counts cover the window; medians and percentiles are NaN if the window contains no such frame.

    Attributes:
        silence_s: Time since an image last arrived or was finished, or since the start if none has.
        has_seen_images: Whether any image has arrived.
        stalled_s: Time since an image was last finished, if images have arrived after that; otherwise 0.
        received: Frames in the window.
        processed: Of these, with results.
        dropped: Of these, dropped.
        refused: Of these, unusable or failed.
        blank: Of the processed frames, those without keypoints.
        input_rate_hz: Arrival rate of images.
        output_rate_hz: Rate of processed frames.
        latency_ms: 50th, 95th and 99th percentile over the processed frames.
        keypoints: Median over the processed frames.
        matches: Median over the frames that had an earlier frame and keypoints.
        inlier_ratio: Median over the frames for which it is known.
        last_refusal: Reason of the last refused frame in the window; empty if there is none.
        last_drop: Reason of the last dropped frame in the window; empty if there is none.
    """

    silence_s: float
    has_seen_images: bool
    stalled_s: float = 0.0
    received: int = 0
    processed: int = 0
    dropped: int = 0
    refused: int = 0
    blank: int = 0
    input_rate_hz: float = 0.0
    output_rate_hz: float = 0.0
    latency_ms: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    keypoints: float = math.nan
    matches: float = math.nan
    inlier_ratio: float = math.nan
    last_refusal: str = ""
    last_drop: str = ""


class HealthWindow:
    """The frames of the last `WINDOW_S` seconds. Not thread-safe.

    Args:
        start_s: Current time, s on the monotonic clock.
    """

    def __init__(self, start_s: float) -> None:
        self._last_sign_s = start_s
        self._last_arrival_s: float | None = None
        self._waiting_since_s: float | None = None
        self._arrivals: deque[float] = deque(maxlen=_MOST_FRAMES)
        self._frames: deque[FrameFacts] = deque(maxlen=_MOST_FRAMES)

    def arrived(self, time_s: float) -> None:
        """Records an image that arrived at `time_s` on the monotonic clock."""
        self._last_arrival_s = self._last_sign_s = time_s
        self._arrivals.append(time_s)
        if self._waiting_since_s is None:
            self._waiting_since_s = time_s

    def add(self, frame: FrameFacts) -> None:
        """Records a finished frame; call in the order of `time_s`."""
        self._frames.append(frame)
        self._last_sign_s = frame.time_s
        arrived_s = frame.time_s - frame.latency_ms / 1e3
        if self._last_arrival_s is None or self._last_arrival_s <= arrived_s + _CLOCK_SLACK_S:
            self._waiting_since_s = None
        elif frame.state != FrameState.DROPPED:  # the queue drops images even if processing is stuck
            self._waiting_since_s = frame.time_s

    def summary(self, now_s: float) -> Health:
        """The health at `now_s` on the monotonic clock."""
        while self._frames and self._frames[0].time_s < now_s - WINDOW_S:
            self._frames.popleft()
        while self._arrivals and self._arrivals[0] < now_s - WINDOW_S:
            self._arrivals.popleft()
        frames = list(self._frames)
        processed = [frame for frame in frames if frame.state in _PROCESSED]
        refused = [frame for frame in frames if frame.state == FrameState.ERROR]
        matched = [frame.matches for frame in processed if frame.state == FrameState.OK]
        latencies = [frame.latency_ms for frame in processed]
        return Health(
            silence_s=now_s - self._last_sign_s,
            has_seen_images=self._last_arrival_s is not None,
            stalled_s=0.0 if self._waiting_since_s is None else now_s - self._waiting_since_s,
            received=len(frames),
            processed=len(processed),
            dropped=sum(frame.state == FrameState.DROPPED for frame in frames),
            refused=len(refused),
            blank=sum(frame.state == FrameState.DEGENERATE for frame in processed),
            input_rate_hz=_rate_hz(list(self._arrivals)),
            output_rate_hz=_rate_hz([frame.time_s for frame in processed]),
            latency_ms=_percentiles(latencies),
            keypoints=_median([frame.keypoints for frame in processed]),
            matches=_median(matched),
            inlier_ratio=_median([f.inlier_ratio for f in processed if not math.isnan(f.inlier_ratio)]),
            last_refusal=refused[-1].reason if refused else "",
            last_drop=next((f.reason for f in reversed(frames) if f.state == FrameState.DROPPED), ""),
        )


def findings_of(
    health: Health, warnings: Sequence[Finding] = (), why_silent: Callable[[], str] = lambda: _LOOK_AT
) -> list[Finding]:
    """All findings, the worst first.

    Args:
        health: Of the latest frames.
        warnings: Other findings; those without text are left out.
        why_silent: Called if no image arrives; returns the likely cause and what to do.
    """
    if health.silence_s > SILENCE_S and not health.stalled_s:
        what = "no image" if health.has_seen_images else "no image yet"
        text = f"{what} for {health.silence_s:.0f} s: {why_silent()}"
        over = "images arrive again" if health.has_seen_images else "images arrive"
        of_frames = [Finding("silence", Level.STALE, text, over, health.silence_s, _OF_FRAMES)]
    else:
        of_frames = _of_frames(health)
    found = [*of_frames, *(warning for warning in warnings if warning.text)]
    return sorted(found, key=lambda finding: -finding.level)


def assess(health: Health, findings: Sequence[Finding]) -> tuple[Level, str]:
    """The level for `/diagnostics`, and one line that says why.

    Args:
        health: Of the latest frames.
        findings: The result of `findings_of`.
    """
    bad = [finding for finding in findings if finding.level > Level.OK]
    if not bad:
        return Level.OK, _summary_line(health)
    return bad[0].level, "; ".join(finding.text for finding in bad)


def _of_frames(health: Health) -> list[Finding]:
    found: list[Finding] = []
    received, processed = health.received, health.processed
    if health.stalled_s > SILENCE_S:
        text = f"images arrive, but none has been done with for {health.stalled_s:.0f} s"
        found.append(Finding("stalled", Level.ERROR, text, "images are processed again", health.stalled_s, _OF_FRAMES))
    if health.refused:
        level = Level.ERROR if health.refused > REFUSED_ERROR * received else Level.WARN
        text = f"{health.refused} of {received} images refused: {health.last_refusal}"
        found.append(Finding("refused", level, text, "no more images are refused"))
    if processed and health.blank > BLANK_WARN * processed:
        level = Level.ERROR if health.blank > BLANK_ERROR * processed else Level.WARN
        text = f"{health.blank} of {processed} images without keypoints: covered lens, darkness?"
        found.append(Finding("blank", level, text, "images have keypoints again"))
    if received and health.dropped > DROPPED_WARN * received:
        text = f"{health.dropped} of {received} images dropped: {health.last_drop}"
        found.append(Finding("dropped", Level.WARN, text, "most images are processed again"))
    if health.matches < MATCHES_ERROR:
        text = f"{health.matches:.0f} matches (median): too few for a pose"
        found.append(Finding("too few matches", Level.ERROR, text, "there are matches enough for a pose again"))
    elif health.matches < MATCHED_WARN * health.keypoints:
        text = f"{health.matches:.0f} matches of {health.keypoints:.0f} keypoints (medians)"
        found.append(Finding("few matches", Level.WARN, text, "keypoints match again"))
    if health.inlier_ratio < INLIER_WARN:
        text = f"{health.inlier_ratio:.0%} of the matches fit a motion (median)"
        found.append(Finding("inliers", Level.WARN, text, "the matches fit a motion again"))
    return found


def _summary_line(health: Health) -> str:
    if not health.processed:
        return "waiting for images"
    return f"{health.output_rate_hz:.1f} Hz, {health.keypoints:.0f} keypoints, {health.latency_ms[0]:.0f} ms"


def _rate_hz(times_s: Sequence[float]) -> float:
    elapsed_s = times_s[-1] - times_s[0] if len(times_s) > 1 else 0.0
    return (len(times_s) - 1) / elapsed_s if elapsed_s > 0 else 0.0


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else math.nan


def _percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    if not values:
        return math.nan, math.nan, math.nan
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return float(p50), float(p95), float(p99)
