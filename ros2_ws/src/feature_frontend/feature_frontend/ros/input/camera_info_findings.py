"""Findings about a camera's `camera_info`: missing, in use, not usable, changed, no longer sent."""

from __future__ import annotations

import statistics
from collections import deque
from itertools import pairwise

from feature_frontend.camera.camera_info_history import NO_CAMERA_INFO, CalibrationWatch
from feature_frontend.runtime.health import SILENCE_S, Finding, Level

__all__ = ["CameraInfoFindings"]

_MISSING_S = 3.0
# A stream is regular once it has arrived in this many different seconds; a latched one arrives now and then.
_SECONDS, _SECOND_S = 5, 1.0
_STOPPED_S, _STOPPED_INTERVALS = 5.0, 5


class CameraInfoFindings:
    """Compares when images and `camera_info` arrive; times are s on the monotonic clock. Not thread-safe.

    Args:
        calibrations: Receives the messages.
        topic: Full name.
        side: A value of `SIDES` in stereo; empty for the only camera.
    """

    def __init__(self, calibrations: CalibrationWatch, topic: str, side: str = "") -> None:
        self._calibrations, self._topic = calibrations, topic
        self._name = f"{side} camera_info".strip()
        self._camera = f"{side} camera: " if side else ""
        self._first_image_s: float | None = None
        self._last_image_s = self._last_info_s = 0.0
        self._run_s = 0.0
        self._has_stopped = False
        self._seconds: deque[float] = deque(maxlen=_SECONDS)

    def note_image(self, now_s: float) -> None:
        """Records the arrival of an image."""
        if self._first_image_s is None:
            self._first_image_s = now_s
        if now_s - self._last_image_s > SILENCE_S:
            # Give a camera that has returned time to send both.
            self._run_s = now_s
        self._last_image_s = now_s

    def note_info(self, now_s: float) -> None:
        """Records the arrival of a `camera_info`."""
        self._last_info_s, self._has_stopped = now_s, False
        if not self._seconds or now_s - self._seconds[-1] >= _SECOND_S:
            self._seconds.append(now_s)

    def findings(self, now_s: float) -> list[Finding]:
        """The current findings."""
        level, text = self._state(now_s)
        text = f"{self._camera}{text}" if text else ""
        return [Finding(self._name, level, text), self._stopped()]

    def _state(self, now_s: float) -> tuple[Level, str]:
        watch = self._calibrations
        if watch.warning:
            return Level.WARN, watch.warning
        used = watch.intrinsics
        if used.fx:
            centre = f"cx {used.cx:.4g}, cy {used.cy:.4g} px"
            lens = used.distortion_model or "no distortion"
            return Level.OK, f"camera_info is in use: fx {used.fx:.4g}, fy {used.fy:.4g}, {centre}, {lens}"
        has_images = self._first_image_s is not None and now_s - self._first_image_s > _MISSING_S
        if has_images and watch.state == NO_CAMERA_INFO and not self._seconds:
            return Level.OK, f"no camera_info on {self._topic}: normalized_keypoints stay empty"
        return Level.OK, ""

    def _stopped(self) -> Finding:
        if len(self._seconds) == _SECONDS:
            interval_s = statistics.median(later - earlier for earlier, later in pairwise(self._seconds))
            missing_s = self._last_image_s - max(self._last_info_s, self._run_s)
            self._has_stopped |= missing_s > max(_STOPPED_S, _STOPPED_INTERVALS * interval_s)
        since_s, text = self._last_image_s - self._last_info_s, ""
        if self._has_stopped:
            held = "the last one stays in force"
            text = f"{self._camera}no camera_info for {since_s:.0f} s, though images arrive: {held}"
        over = f"{self._camera}camera_info arrives again"
        return Finding(f"{self._name} stopped", Level.WARN, text, over, since_s)
