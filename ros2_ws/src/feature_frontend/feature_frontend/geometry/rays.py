"""Rays of matches and tracks, selected from the rays of keypoints: undistorted (x/z, y/z), float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_frontend.types import FrameResult, Matches

__all__ = ["MatchRays", "MissedTracks", "RayMemory", "RayState", "TrackRays", "rays_of_tracks"]

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MatchRays:
    """Rays of an image's matches, (M, 2) each; None for an image without a calibration."""

    normalized0: FloatArray | None = None
    normalized1: FloatArray | None = None

    @staticmethod
    def of(matches: Matches, keypoints0: FloatArray | None, keypoints1: FloatArray | None) -> MatchRays:
        """Selects the rays of matches from those of two images' keypoints, (N0, 2) and (N1, 2)."""
        return MatchRays(
            None if keypoints0 is None else keypoints0[matches.indices0.numpy()],
            None if keypoints1 is None else keypoints1[matches.indices1.numpy()],
        )


@dataclass(frozen=True)
class TrackRays:
    """Rays of an image's tracks.

    Attributes:
        normalized: (T, 2).
        velocities: (T, 2), 1/s since the previous sighting; 0 at age 1 and if time does not advance. NaN if one of the
            sightings has no ray, or the previous image had no calibration.
    """

    normalized: FloatArray
    velocities: FloatArray


@dataclass(frozen=True)
class RayState:
    """The state of a `RayMemory`.

    Attributes:
        normalized: (N, 2) of the keypoints of the previous image; None without a calibration.
        stamp_ns: Its time; None before the first image.
    """

    normalized: FloatArray | None = None
    stamp_ns: int | None = None


class RayMemory:
    """Remembers the rays of the previous image.

    Attributes:
        state: Can be saved and restored.
    """

    def __init__(self) -> None:
        self.state = RayState()

    def of_matches(self, result: FrameResult, normalized: FloatArray | None, stamp_ns: int) -> MatchRays:
        """The rays of a frame's matches; call it for every frame.

        Args:
            result: Of the frame.
            normalized: (N, 2) of its keypoints; None without a calibration.
            stamp_ns: Its time in ns.
        """
        # The previous frame may have failed after matching, before it got here.
        before = self.state.normalized if result.stamp0_ns == self.state.stamp_ns else None
        self.state = RayState(normalized, stamp_ns)
        return MatchRays.of(result.matches, before, normalized)


@dataclass(frozen=True)
class MissedTracks:
    """The tracks of an image that were missed in the previous image, but seen earlier.

    Attributes:
        rows: (P,) int64, of `Tracks`.
        points: (P, 2) (x, y) px of the last sighting.
    """

    rows: npt.NDArray[np.int64]
    points: FloatArray

    @staticmethod
    def of(result: FrameResult) -> MissedTracks:
        """The missed tracks of a frame."""
        tracks = result.tracks
        is_known = np.zeros(len(result.features), np.bool_)
        is_known[result.matches.indices1.numpy()] = True
        rows = np.flatnonzero((tracks.elapsed_s > 0) & ~is_known[tracks.feature_indices])
        way_px = tracks.velocities[rows] * tracks.elapsed_s[rows, None]
        return MissedTracks(rows, tracks.keypoints[rows] - way_px)


def rays_of_tracks(
    result: FrameResult, normalized: FloatArray | None, of_matches: MatchRays, missed: MissedTracks
) -> TrackRays | None:
    """The rays of a frame's tracks; None without a calibration.

    Args:
        result: Of the frame.
        normalized: (N + P, 2) of its keypoints, then of the points of `missed`; None without a calibration.
        of_matches: Of its matches.
        missed: Of the frame.
    """
    if normalized is None:
        return None
    tracks = result.tracks
    rays, before = normalized[tracks.feature_indices], np.full_like(normalized, np.nan)
    if of_matches.normalized0 is not None:
        before[result.matches.indices1.numpy()] = of_matches.normalized0
    before = before[tracks.feature_indices]
    before[missed.rows] = normalized[len(result.features) :]
    moves = tracks.elapsed_s > 0
    velocities = np.zeros_like(rays)
    velocities[moves] = (rays[moves] - before[moves]) / tracks.elapsed_s[moves, None]
    velocities[np.isnan(rays).any(axis=1)] = np.nan
    return TrackRays(rays, velocities)
