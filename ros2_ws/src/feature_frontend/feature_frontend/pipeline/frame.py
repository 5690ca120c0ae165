"""The input and output of frame processing: decoded images, and the interface that receives results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from feature_frontend.geometry.rays import MatchRays, TrackRays
from feature_frontend.stereo.matching import Disparities, StereoResult
from feature_frontend.types import FrameResult

__all__ = ["FrameImage", "FrameOutput"]

_Rays = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FrameImage:
    """A decoded image.

    Attributes:
        pixels: (H, W) grey or (H, W, 3) RGB, uint8.
        stamp_ns: Its time in ns.
        run: Time segment, from the `CalibrationWatch.arrived` of its camera.
    """

    pixels: npt.NDArray[np.uint8]
    stamp_ns: int
    run: int = 0


class FrameOutput(Protocol):
    """Receives each part of a frame's results as soon as it is known. Rays are (N, 2) undistorted (x/z, y/z)."""

    def features(self, result: FrameResult, rays: _Rays | None) -> None:
        """Features of the image; `rays` of its keypoints are None without a calibration."""

    def right_features(self, result: FrameResult, rays: _Rays | None) -> None:
        """Features of the right image of a stereo pair, as above."""

    def stereo_matches(self, result: FrameResult, found: StereoResult, rays: MatchRays) -> None:
        """Matches between the two images of a stereo pair."""

    def points(self, found: StereoResult) -> None:
        """3-D points of a calibrated stereo pair."""

    def tracks(self, result: FrameResult, rays: TrackRays | None, disparities: Disparities | None) -> None:
        """Tracks; `rays` are None without a calibration, `disparities` if no stereo pair was matched."""

    def matches(self, result: FrameResult, rays: MatchRays) -> None:
        """Matches with the previous image, checked if enabled; called for a first image too, with no matches."""
