"""What a stereo pair gives beside the left image's results: right features, stereo matches, points, and their state."""

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
    """What deserves a warning from a time on, on the monotonic clock, s; empty for nothing."""

    text: str = ""
    from_s: float = 0.0


class StereoPairs:
    """Matches pairs. The thread that processes frames calls it, but for what says otherwise.

    Args:
        left: Calibrations of the left camera.

    Attributes:
        right: Calibrations of the right camera.
        state: What the latest pair gave, or why it gave less, in one line. Any thread may ask.
    """

    def __init__(self, left: CalibrationWatch) -> None:
        self.right = CalibrationWatch()
        self.state = "no pair yet"
        self._left = left
        self._finding = _Finding()

    @property
    def warning(self) -> str:
        """Why there are no points or matches, but for what is wrong with a `camera_info`. Any thread may ask."""
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
        """Matches a pair and hands on what came of it.

        Args:
            left: The left image.
            right: The right image.
            result: Of the pair.
            left_rays: (N, 2) undistorted (x/z, y/z) of the left keypoints; None without a calibration.
            output: Takes the parts.
            settings: In force.

        Returns:
            `result` with the time that this took added to `matching_ms`, and what has changed in its reason. The
            disparities of the left keypoints; None where the pair cannot be matched.
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
        # Matches alone may be what is wanted of rectified images: whoever wants points has published a calibration.
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
    """Of the left and the right calibration, each None with the reason where there is none."""
    cameras = []
    for name, (calibration, problem) in zip(SIDES, infos, strict=True):
        if calibration is None:
            msg = f"{name} camera: {problem}"
            raise CalibrationError(msg)
        cameras.append(calibration)
    left, right = cameras
    return StereoRig(left, right, rectified=rectified)
