"""A frame on its way in and out: decoded images, and who takes what becomes of them."""

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
        run: Of time, from its camera's `CalibrationWatch.arrived`.
    """

    pixels: npt.NDArray[np.uint8]
    stamp_ns: int
    run: int = 0


class FrameOutput(Protocol):
    """Takes what a frame gives, each part as soon as it is known. Rays are (N, 2) undistorted (x/z, y/z)."""

    def features(self, result: FrameResult, rays: _Rays | None) -> None:
        """Features of the image, with the rays of its keypoints; None without a calibration."""

    def right_features(self, result: FrameResult, rays: _Rays | None) -> None:
        """Features of the right image of a stereo pair, likewise."""

    def stereo_matches(self, result: FrameResult, found: StereoResult, rays: MatchRays) -> None:
        """Matches between the two images of a stereo pair."""

    def points(self, found: StereoResult) -> None:
        """Points of a stereo pair whose rig is known."""

    def tracks(self, result: FrameResult, rays: TrackRays | None, disparities: Disparities | None) -> None:
        """Tracks; without rays where there is no calibration, without disparities where no pair was matched."""

    def matches(self, result: FrameResult, rays: MatchRays) -> None:
        """Matches with the image before, checked where that is wanted; those of a first image, too: none."""
