"""Which calibration holds for an image, and what there is to say about it."""

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
from feature_frontend.runtime.runs_of_time import RunsOfTime, RunsState
from feature_frontend.types import Features

__all__ = ["NO_CAMERA_INFO", "CalibrationState", "CalibrationWatch"]

NO_CAMERA_INFO = "no camera_info has arrived"

# Changes that are remembered: images may wait in a queue while the camera recalibrates itself.
_HISTORY = 64
_NS_PER_S = 1_000_000_000
_EMPTY = "normalized_keypoints are empty"
_INFOS, _IMAGES = range(2)


@dataclass(frozen=True)
class _Entry:
    """The first of equal messages in a row, in a run of time, where stamps do not go back."""

    run: int
    stamp_ns: int
    calibration: CameraCalibration | None
    problem: str


@dataclass(frozen=True)
class CalibrationState:
    """What a `CalibrationWatch` remembers."""

    history: tuple[_Entry, ...]
    runs: RunsState
    used: CameraCalibration | None
    problem: str
    news: str
    focal_px: float


class CalibrationWatch:
    """Takes `camera_info` and the stamps of images in the executor's thread; normalises keypoints in the worker's.

    What holds for an image is the latest received of those that are of its own run of time (`RunsOfTime`) and stamped
    at or before it, so that an image that has waited is normalised with its own. Where there is none, it is the first
    one of that run; where that run has none, the latest of the runs before; else the oldest known.

    Attributes:
        focal_px: Focal length by which keypoints were last normalised, px; NaN before that.
        intrinsics: By which those of the latest image were; all 0 and empty where they were not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history: deque[_Entry] = deque(maxlen=_HISTORY)
        self._runs = RunsOfTime()
        self._used: CameraCalibration | None = None
        self._problem = ""
        self._news = ""
        self.focal_px = math.nan
        self.intrinsics = Intrinsics()

    def get_state(self) -> CalibrationState:
        """What another one needs to go on."""
        with self._lock:
            history, runs = tuple(self._history), self._runs.state
        return CalibrationState(history, runs, self._used, self._problem, self._news, self.focal_px)

    def set_state(self, state: CalibrationState) -> None:
        """Goes on from the state of another one."""
        with self._lock:
            self._history = deque(state.history, maxlen=_HISTORY)
            self._runs.state = state.runs
        self._used, self._problem, self._news = state.used, state.problem, state.news
        self.focal_px = state.focal_px

    @property
    def state(self) -> str:
        """Whether the latest image has normalised keypoints, and why not, in one line."""
        return self._problem or ("in use" if self._used is not None else "no image yet")

    @property
    def warning(self) -> str:
        """What is wrong with the `camera_info` that came; empty also where none did, for it is optional."""
        return "" if self._problem == NO_CAMERA_INFO else self._problem

    def arrived(self, stamp_ns: int) -> int:
        """Takes note of an image as it arrives, whatever becomes of it; the run of time that it is of."""
        with self._lock:
            return self._runs.note(_IMAGES, stamp_ns)

    def take(self, message: Any, *, again: bool = False) -> None:
        """Takes a message; one that cannot be used is a `warning` once an image wants it.

        Args:
            message: A `sensor_msgs/CameraInfo`, whichever library read it. One without a stamp (0) holds from the one
                before it on.
            again: It may have come already, and later ones too: where it says nothing new, it is no step back in time.
        """
        try:
            calibration, problem = calibration_from_message(message), ""
        except CalibrationError as error:
            calibration, problem = None, f"camera_info is not used: {error}"
        with self._lock:
            state = self._runs.state
            stamp = message.header.stamp
            stamp_ns = int(stamp.sec) * _NS_PER_S + int(stamp.nanosec) or state.stamps_ns[_INFOS] or 0
            known = self._find(stamp_ns, state.runs[_INFOS]) if again else None
            if known is not None and (known.calibration, known.problem) == (calibration, problem):
                return
            entry = _Entry(self._runs.note(_INFOS, stamp_ns), stamp_ns, calibration, problem)
            # Equal ones come by the million.
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
        """Undistorted (x/z, y/z) of an image's keypoints, (N, 2); None where no calibration fits, see `state`.

        Args:
            features: Of the image, on the CPU.
            stamp_ns: Its time.
            run: Of time, from `arrived`.
            rectified: Whether it is rectified already.
            further: (P, 2) points (x, y) px; their rays come behind those of the keypoints.
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
        """What has changed with the latest image, in one line; empty where nothing has. Told once."""
        news, self._news = self._news, ""
        return news

    def at(self, stamp_ns: int, run: int) -> tuple[CameraCalibration | None, str]:
        """The calibration that holds for an image of this stamp in this run of time, or None and why there is none."""
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
