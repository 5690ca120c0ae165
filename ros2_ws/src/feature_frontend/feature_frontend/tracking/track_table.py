"""Track ids: assigns persistent ids to the points of a sequence from frame-to-frame associations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_frontend.runtime.snapshot import require
from feature_frontend.types import Features, Matches, TrackChange, Tracks

__all__ = ["TrackAssociation", "TrackTable", "TrackerState", "compare_tracks"]

_NS_PER_S = 1e9
_FEWEST_FOR_ZOOM = 16


@dataclass(frozen=True)
class TrackAssociation:
    """The (P,) tracked points after an image, visible in it or missed.

    Attributes:
        origins: (P,) int64, row of each point in the previous association; -1 for a new point.
        rows: (P,) int64, its row in the image's features; -1 if it is not seen.
        quality: (P,) float32, as in `Tracks`, of points that continue and are seen.
    """

    origins: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    quality: npt.NDArray[np.float32]

    @staticmethod
    def empty() -> TrackAssociation:
        """No points."""
        return TrackAssociation(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def compare_tracks(before: Tracks, now: Tracks) -> TrackChange:
    """Compares the tracks of two images."""
    if not len(before):
        return TrackChange()
    _, rows0, rows1 = np.intersect1d(before.ids, now.ids, assume_unique=True, return_indices=True)
    moved_px = np.linalg.norm(now.keypoints[rows1] - before.keypoints[rows0], axis=1)
    return TrackChange(
        lost=len(before) - len(rows0),
        survival=len(rows0) / len(before),
        parallax_px=float(np.median(moved_px)) if len(rows0) else math.nan,
    )


@dataclass(frozen=True)
class _Points:
    """The tracked points, (P,) rows; keypoints and stamps are those of the last sighting."""

    ids: npt.NDArray[np.uint64]
    ages: npt.NDArray[np.uint32]
    gaps: npt.NDArray[np.uint32]
    keypoints: npt.NDArray[np.float32]
    stamps_ns: npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrackerState:
    """What a `TrackTable` remembers: the id of the next point, and the points."""

    next_id: int
    points: _Points


def _log_zoom(points0: npt.NDArray[np.float32], points1: npt.NDArray[np.float32]) -> float:
    """Logarithm of how much wider (N, 2) points are spread in this image than in the previous one; 0 for few points."""
    if len(points0) < _FEWEST_FOR_ZOOM:
        return 0.0
    spreads = [points.std(axis=0, dtype=np.float64).prod() for points in (points0, points1)]
    return math.log(spreads[1] / spreads[0]) / 2 if min(spreads) > 0 else 0.0


def _no_points() -> _Points:
    none = Tracks.empty()
    return _Points(none.ids, none.ages, none.gaps, none.keypoints, np.zeros(0, np.int64))


class TrackTable:
    """Assigns every keypoint an id that it keeps as long as it is tracked.

    Every keypoint of a frame has a track (a new one of age 1 if it continues none), so row i of `Tracks` is row i of
    `Features`. Ids start at 1 and are never reused, not even after `reset`.
    """

    def __init__(self) -> None:
        self._next_id = 1
        self._points = _no_points()

    def reset(self) -> None:
        """Discards all tracks; ids continue."""
        self._points = _no_points()

    def get_state(self) -> TrackerState:
        """The state that another instance needs to continue; the arrays are not copied."""
        return TrackerState(self._next_id, self._points)

    def set_state(self, state: TrackerState) -> None:
        """Continues from the state of another instance.

        Raises:
            SnapshotError: The state is invalid.
        """
        points, rows = state.points, state.points.ids.shape[:1]
        is_whole = all(array.shape == rows for array in (points.ids, points.ages, points.gaps, points.stamps_ns))
        is_whole = is_whole and points.keypoints.shape == (*rows, 2)
        require(is_whole and state.next_id > 0, "arrays of equal length")
        self._next_id, self._points = state.next_id, points

    def update(self, features: Features, matches: Matches, stamp_ns: int, zoom_factor: float = 0.0) -> Tracks:
        """Tracks of the current image; a track without a match ends.

        Args:
            features: Of the current image.
            matches: From the image of the previous call to this one; empty for the first.
            stamp_ns: The image's time in ns. If it does not advance, velocities are zero.
            zoom_factor: As in `PositionNoise`.
        """
        origins = np.full(len(features), -1, np.int64)
        quality = np.full(len(features), np.nan, np.float32)
        rows = matches.indices1.cpu().numpy()
        origins[rows] = matches.indices0.cpu().numpy()
        quality[rows] = matches.similarity.cpu().numpy()
        continuation = TrackAssociation(origins, np.arange(len(features), dtype=np.int64), quality)
        return self.follow(features, continuation, stamp_ns, zoom_factor)

    def follow(
        self, features: Features, continuation: TrackAssociation, stamp_ns: int, zoom_factor: float = 0.0
    ) -> Tracks:
        """Tracks of the current image; points may be missed and seen again later.

        Args:
            features: Of the current image.
            continuation: Origins refer to the previous call; contains every row of the features exactly once.
            stamp_ns: The image's time in ns. If it does not advance, velocities are zero.
            zoom_factor: As in `PositionNoise`.
        """
        before, origins, rows = self._points, continuation.origins, continuation.rows
        keypoints = features.keypoints.detach().cpu().numpy().astype(np.float32, copy=False)
        is_continued, is_seen = origins >= 0, rows >= 0
        old = origins[is_continued]
        count = len(origins)
        points = _Points(
            ids=np.zeros(count, np.uint64),
            ages=is_seen.astype(np.uint32),
            gaps=(~is_seen).astype(np.uint32),
            keypoints=np.zeros((count, 2), np.float32),
            stamps_ns=np.full(count, stamp_ns, np.int64),
        )
        points.ids[is_continued] = before.ids[old]
        points.ids[~is_continued] = self._issue_ids(count - len(old))
        points.ages[is_continued] += before.ages[old]
        points.gaps[is_continued] += before.gaps[old]
        points.keypoints[is_continued] = before.keypoints[old]
        points.stamps_ns[is_continued] = before.stamps_ns[old]

        elapsed_s = ((stamp_ns - points.stamps_ns) / _NS_PER_S).astype(np.float32)
        velocities = np.zeros((count, 2), np.float32)
        moves = is_seen & is_continued & (elapsed_s > 0)
        velocities[moves] = (keypoints[rows[moves]] - points.keypoints[moves]) / elapsed_s[moves, None]
        moved = is_continued & is_seen
        zoom = _log_zoom(points.keypoints[moved], keypoints[rows[moved]])
        points.keypoints[is_seen] = keypoints[rows[is_seen]]
        points.stamps_ns[is_seen] = stamp_ns
        self._points = points

        seen = np.flatnonzero(is_seen)
        seen = seen[np.argsort(rows[seen])]
        covariances = None
        if features.covariances is not None:
            covariances = features.covariances.cpu().numpy()[rows[seen]] * np.float32(1 + zoom_factor * zoom**2)
        return Tracks(
            ids=points.ids[seen],
            ages=points.ages[seen],
            gaps=points.gaps[seen],
            feature_indices=rows[seen].astype(np.uint32),
            keypoints=points.keypoints[seen],
            velocities=velocities[seen],
            elapsed_s=elapsed_s[seen],
            quality=np.where(is_continued, continuation.quality, np.float32(np.nan))[seen],
            covariances=covariances,
        )

    def _issue_ids(self, count: int) -> npt.NDArray[np.uint64]:
        first = self._next_id
        self._next_id += count
        return np.arange(first, self._next_id, dtype=np.uint64)
