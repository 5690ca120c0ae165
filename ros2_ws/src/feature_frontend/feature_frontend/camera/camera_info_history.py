"""Finds the calibration that is valid for an image, and reports problems and changes."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import (
    CameraCalibration,
    Intrinsics,
    calibration_from_message,
    normalize_points,
)
from feature_frontend.errors import CalibrationError
from feature_frontend.runtime.time_segments import TimeSegments, TimeSegmentsState
from feature_frontend.types import Features

__all__ = ["NO_CAMERA_INFO", "CalibrationState", "CalibrationWatch"]

NO_CAMERA_INFO = "no camera_info has arrived"

# Number of changes remembered: images may wait in a queue while the camera recalibrates itself.
_HISTORY = 64
_NS_PER_S = 1_000_000_000
_EMPTY = "normalized_keypoints are empty"
_INFOS, _IMAGES = range(2)


@dataclass(frozen=True)
class _Entry:
    """The first of consecutive equal messages within a time segment."""

    run: int
    stamp_ns: int
    calibration: CameraCalibration | None
    problem: str


@dataclass(frozen=True)
class CalibrationState:
    """State of a `CalibrationWatch`."""

    history: tuple[_Entry, ...]
    runs: TimeSegmentsState
    used: CameraCalibration | None
    problem: str
    news: str
    focal_px: float


class CalibrationWatch:
    """Receives `camera_info` and image stamps in the executor's thread; normalises keypoints in the worker's thread.

    The calibration for an image is the latest received message in the image's time segment (`TimeSegments`) with a
    stamp at or before the image's, so that an image that has waited uses its own calibration. If there is none, it is
    the first message of that segment; if the segment has none, the latest of earlier ones; otherwise the oldest known.

    Attributes:
        focal_px: Focal length used for the latest normalised keypoints, px; NaN before that.
        intrinsics: Intrinsics used for the latest image; all 0 and empty if its keypoints were not normalised.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history: deque[_Entry] = deque(maxlen=_HISTORY)
        self._segments = TimeSegments()
        self._used: CameraCalibration | None = None
        self._problem = ""
        self._news = ""
        self.focal_px = math.nan
        self.intrinsics = Intrinsics()

    def get_state(self) -> CalibrationState:
        """The state that another object needs to continue."""
        with self._lock:
            history, runs = tuple(self._history), self._segments.state
        return CalibrationState(history, runs, self._used, self._problem, self._news, self.focal_px)

    def set_state(self, state: CalibrationState) -> None:
        """Continues from another object's state."""
        with self._lock:
            self._history = deque(state.history, maxlen=_HISTORY)
            self._segments.state = state.runs
        self._used, self._problem, self._news = state.used, state.problem, state.news
        self.focal_px = state.focal_px

    @property
    def state(self) -> str:
        """Whether the latest image has normalised keypoints, or why not, in one line."""
        return self._problem or ("in use" if self._used is not None else "no image yet")

    @property
    def warning(self) -> str:
        """What is wrong with the received `camera_info`; also empty if none was received, as it is optional."""
        return "" if self._problem == NO_CAMERA_INFO else self._problem

    def arrived(self, stamp_ns: int) -> int:
        """Records an image on arrival, even if it is not processed later. Returns its time segment."""
        with self._lock:
            return self._segments.note(_IMAGES, stamp_ns)

    def take(self, message: Any, *, again: bool = False) -> None:
        """Adds a message; an unusable one leads to a `warning` once an image needs it.

        Args:
            message: A `sensor_msgs/CameraInfo`, read by any library. Without a stamp (0) it is valid from the previous
                message on.
            again: Whether it may repeat an older message: if it contains nothing new, it is no step back in time.
        """
        try:
            calibration, problem = calibration_from_message(message), ""
        except CalibrationError as error:
            calibration, problem = None, f"camera_info is not used: {error}"
        with self._lock:
            state = self._segments.state
            stamp = message.header.stamp
            stamp_ns = int(stamp.sec) * _NS_PER_S + int(stamp.nanosec) or state.stamps_ns[_INFOS] or 0
            known = self._find(stamp_ns, state.runs[_INFOS]) if again else None
            if known is not None and (known.calibration, known.problem) == (calibration, problem):
                return
            entry = _Entry(self._segments.note(_INFOS, stamp_ns), stamp_ns, calibration, problem)
            # Equal messages arrive by the million.
            if not self._history or replace(self._history[-1], stamp_ns=stamp_ns) != entry:
                self._history.append(entry)

    def normalize(
        self,
        features: Features,
        stamp_ns: int,
        run: int,
        *,
        rectified: bool,
        further: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32] | None:
        """Undistorted (x/z, y/z) of an image's keypoints, (N, 2); None if no calibration fits, see `state`.

        Args:
            features: Of the image, on the CPU.
            stamp_ns: Stamp of the image.
            run: Time segment, from `arrived`.
            rectified: Whether the image is already rectified.
            further: (P, 2) further points (x, y) px; their rays are appended to those of the keypoints.
        """
        calibration, problem = self.at(stamp_ns, run)
        normalized, self.intrinsics = None, Intrinsics()
        points = features.keypoints.numpy()
        points = points if further is None or not len(further) else np.concatenate([points, further])
        if calibration is not None:
            try:
                calibration.check_image(features.height, features.width, "the image")
                normalized = normalize_points(calibration, points, rectified=rectified)
                self.focal_px = calibration.focal_px(rectified=rectified)
                self.intrinsics = calibration.intrinsics(rectified=rectified)
            except CalibrationError as error:
                calibration, problem = None, f"camera_info does not fit: {error}"
        self._note(calibration, problem)
        return normalized

    def news(self) -> str:
        """What has changed with the latest image, in one line; empty if nothing has. Reports each change once."""
        news, self._news = self._news, ""
        return news

    def at(self, stamp_ns: int, run: int) -> tuple[CameraCalibration | None, str]:
        """The calibration for an image with this stamp in this time segment, or None and the reason."""
        with self._lock:
            entry = self._find(stamp_ns, run)
        return (None, NO_CAMERA_INFO) if entry is None else (entry.calibration, entry.problem)

    def _find(self, stamp_ns: int, run: int) -> _Entry | None:
        own = [entry for entry in self._history if entry.run == run]
        if own:
            return next((entry for entry in reversed(own) if entry.stamp_ns <= stamp_ns), own[0])
        return next((entry for entry in reversed(self._history) if entry.run < run), next(iter(self._history), None))

    def _note(self, calibration: CameraCalibration | None, problem: str) -> None:
        if problem:
            if problem != self._problem:
                self._news = f"{problem}; {_EMPTY}"
        elif self._problem:
            self._news = "camera_info is in use: normalized_keypoints are filled"
        elif self._used not in {None, calibration}:
            self._news = "camera_info has changed: the new calibration is in use"
        self._problem = problem
        self._used = calibration or self._used
