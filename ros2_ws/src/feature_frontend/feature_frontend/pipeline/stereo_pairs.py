"""Stereo matching of image pairs: right features, stereo matches, 3-D points, and their state."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.camera.camera_info_history import CalibrationWatch
from feature_frontend.errors import CalibrationError
from feature_frontend.geometry.rays import MatchRays
from feature_frontend.pipeline.frame import FrameImage, FrameOutput
from feature_frontend.runtime.stereo_sync import SIDES
from feature_frontend.settings import Settings
from feature_frontend.stereo.matching import Disparities, match_stereo
from feature_frontend.stereo.rig import StereoRig
from feature_frontend.types import FrameResult

__all__ = ["StereoPairs"]

_MS_PER_S = 1e3
# A camera_info may come later than the first images.
_PATIENCE_S = 5.0
_MISSING = "points need left/camera_info and right/camera_info: publish both, or remap them"


@dataclass(frozen=True)
class _Finding:
    """A text to warn of from `from_s` on (monotonic clock, s); empty for none."""

    text: str = ""
    from_s: float = 0.0


class StereoPairs:
    """Matches stereo pairs. Called by the thread that processes frames, except where noted.

    Args:
        left: Calibrations of the left camera.

    Attributes:
        right: Calibrations of the right camera.
        state: Outcome of the latest pair, and why matches or points are missing, in one line. Any thread may read it.
    """

    def __init__(self, left: CalibrationWatch) -> None:
        self.right = CalibrationWatch()
        self.state = "no pair yet"
        self._left = left
        self._finding = _Finding()

    @property
    def warning(self) -> str:
        """Why there are no points or matches, unless a `camera_info` warning says so. Any thread may read it."""
        finding = self._finding
        is_known = not (self._left.warning or self.right.warning) and time.monotonic() >= finding.from_s
        return finding.text if is_known else ""

    @property
    def outcome(self) -> tuple[str, str]:
        """`warning` and `state`."""
        return self.warning, self.state

    def match(
        self,
        left: FrameImage,
        right: FrameImage,
        result: FrameResult,
        left_rays: npt.NDArray[np.float32] | None,
        output: FrameOutput,
        settings: Settings,
    ) -> tuple[FrameResult, Disparities | None]:
        """Matches a pair and passes the results to `output`.

        Args:
            left: The left image.
            right: The right image.
            result: Of the pair.
            left_rays: (N, 2) undistorted (x/z, y/z) of the left keypoints; None without a calibration.
            output: Receives the parts.
            settings: In force.

        Returns:
            `result` with the elapsed time added to `matching_ms` and changes of state added to its reason, and the
            disparities of the left keypoints; None if the pair cannot be matched.
        """
        start_s = time.perf_counter()
        assert result.right is not None
        rays = self.right.normalize(result.right, right.stamp_ns, right.run, rectified=settings.rectified)
        output.right_features(result, rays)
        state, rig, disparities = "", None, None
        infos = self._left.at(left.stamp_ns, left.run), self.right.at(right.stamp_ns, right.run)
        try:
            rig = _rig(infos, rectified=settings.rectified)
        except CalibrationError as error:
            state = f"no points: {error}"
        try:
            found = match_stereo(result.features, result.right, rig, settings, (left.pixels, right.pixels))
        except CalibrationError as error:
            state = "; ".join(part for part in (state, f"no stereo_matches: {error}") if part)
        else:
            disparities = found.disparities
            output.stereo_matches(result, found, MatchRays.of(found.matches, left_rays, rays))
            if rig is not None:
                output.points(found)
                state = f"points by a baseline of {rig.baseline_m:.4g} m"
        known = [calibration is not None for calibration, _ in infos]
        # Without any calibration the images may be rectified already, and the user may want matches only.
        is_fine = disparities is not None and (rig is not None or not any(known))
        self._find("" if is_fine else state, is_missing=not all(known))
        news = [result.reason, *self._news(state)]
        took_ms = (time.perf_counter() - start_s) * _MS_PER_S
        times = replace(result.times, matching_ms=result.times.matching_ms + took_ms)
        return replace(result, reason="; ".join(part for part in news if part), times=times), disparities

    def _find(self, problem: str, *, is_missing: bool) -> None:
        text = f"{problem}; {_MISSING}" if problem and is_missing else problem
        if text != self._finding.text:
            self._finding = _Finding(text, time.monotonic() + (_PATIENCE_S if is_missing else 0.0))

    def _news(self, state: str) -> Sequence[str]:
        of_right = self.right.news()
        news = [f"right camera: {of_right}" if of_right else "", state if state != self.state else ""]
        self.state = state
        return news


def _rig(infos: Sequence[tuple[CameraCalibration | None, str]], *, rectified: bool) -> StereoRig:
    """Builds the rig from the left and the right calibration; a missing one is None, with the reason."""
    cameras = []
    for name, (calibration, problem) in zip(SIDES, infos, strict=True):
        if calibration is None:
            raise CalibrationError(f"{name} camera: {problem}")
        cameras.append(calibration)
    left, right = cameras
    return StereoRig(left, right, rectified=rectified)
