"""Which calibration holds for an image, and what there is to say about it."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CameraInfo

from feature_frontend.calibration import CameraCalibration, Intrinsics, calibration_from_message, normalize_points
from feature_frontend.errors import CalibrationError
from feature_frontend.ros.message_encoding import stamp_to_ns
from feature_frontend.types import Features

__all__ = ["NO_CAMERA_INFO", "CalibrationState", "CalibrationWatch"]

NO_CAMERA_INFO = "no camera_info has arrived"

# Changes that are remembered: images may wait in a queue while the camera recalibrates itself.
_HISTORY = 64
_EMPTY = "normalized_keypoints are empty"


@dataclass(frozen=True)
class _Entry:
    stamp_ns: int
    calibration: CameraCalibration | None
    problem: str


@dataclass(frozen=True)
class CalibrationState:
    """What a `CalibrationWatch` remembers, but for what it has told the log."""

    history: tuple[_Entry, ...]
    used: CameraCalibration | None
    problem: str
    news: str
    focal_px: float


class CalibrationWatch:
    """Takes `camera_info` in the executor's thread; normalises keypoints in the worker's.

    A calibration holds from its stamp until the stamp of the next different one, so that an image that has waited is
    normalised with its own. One without an earlier calibration gets the oldest known.

    Attributes:
        focal_px: Focal length by which keypoints were last normalised, px; NaN before that.
        intrinsics: By which those of the latest image were; all 0 and empty where they were not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history: deque[_Entry] = deque(maxlen=_HISTORY)
        self._used: CameraCalibration | None = None
        self._problem = ""
        self._news = ""
        self._last_told = ""
        self.focal_px = math.nan
        self.intrinsics = Intrinsics()

    def get_state(self) -> CalibrationState:
        """What another one needs to go on."""
        with self._lock:
            return CalibrationState(tuple(self._history), self._used, self._problem, self._news, self.focal_px)

    def set_state(self, state: CalibrationState) -> None:
        """Goes on from the state of another one."""
        with self._lock:
            self._history = deque(state.history, maxlen=_HISTORY)
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

    def take(self, message: CameraInfo) -> str:
        """Takes a message; returns why it cannot be used if that is new, for the log, else an empty text."""
        try:
            calibration, problem = calibration_from_message(message), ""
        except CalibrationError as error:
            calibration, problem = None, f"camera_info is not used: {error}"
        with self._lock:
            latest = self._history[-1] if self._history else None
            if latest is not None and (latest.calibration, latest.problem) == (calibration, problem):
                return ""
            self._history.append(_Entry(stamp_to_ns(message.header.stamp), calibration, problem))
        # A driver that sends good and bad ones by turns shall not fill the log.
        is_new = problem not in {"", self._last_told}
        self._last_told = problem or self._last_told
        return problem if is_new else ""

    def normalize(
        self,
        features: Features,
        stamp_ns: int,
        *,
        rectified: bool,
        further: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32] | None:
        """Undistorted (x/z, y/z) of an image's keypoints, (N, 2); None where no calibration fits, see `state`.

        Args:
            features: Of the image, on the CPU.
            stamp_ns: Its time.
            rectified: Whether it is rectified already.
            further: (P, 2) points (x, y) px; their rays come behind those of the keypoints.
        """
        calibration, problem = self.at(stamp_ns)
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

    def at(self, stamp_ns: int) -> tuple[CameraCalibration | None, str]:
        """The calibration that holds for an image of this stamp, or None and why there is none."""
        with self._lock:
            if not self._history:
                return None, NO_CAMERA_INFO
            # The latest received first: after a jump back in time the stamps of before are in the history, too.
            entry = next((e for e in reversed(self._history) if e.stamp_ns <= stamp_ns), self._history[0])
        return entry.calibration, entry.problem

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
