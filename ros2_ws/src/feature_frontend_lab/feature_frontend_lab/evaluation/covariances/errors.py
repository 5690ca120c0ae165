"""Errors of tracked positions on rendered scenes, with the covariances that were reported for them.

A pair is two sightings of one track, some images apart. Its error is the later position minus the projection, by exact
depth and poses, of the earlier one. Both positions contribute: its covariance is C1 + J C0 J', where J is the
derivative of the projection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from feature_frontend.errors import SettingsError
from feature_frontend.types import Tracks
from feature_frontend_lab.evaluation.tracks.baselines import SequenceFrontend
from feature_frontend_lab.rendering.camera import Camera, FloatArray, depth_at, invert_pose, reproject
from feature_frontend_lab.rendering.flights import Flight

__all__ = ["GAPS", "WRONG_PX", "PositionErrors", "TrueFrame", "position_errors"]

GAPS = (1, 2, 5)
WRONG_PX = 3.0
# The truth is not known where another surface is so near that the point may belong to it: at the edge of an object.
_UNSURE_PX = 0.5
_AROUND_PX = 2


@dataclass(frozen=True, eq=False)
class PositionErrors:
    """Errors of P pairs of sightings, without wrong matches and pairs without a truth.

    Attributes:
        errors: (P, 2) px.
        covariances0: (P, 2, 2) px^2 of the earlier position, J C0 J'.
        covariances1: (P, 2, 2) px^2 of the later position.
        gaps: (P,) images from the earlier to the later one.
        ages0: (P,) of the track at the earlier sighting.
        wrong: (W,) gaps of the pairs that are farther than `WRONG_PX` from the truth.
        unknown: (U,) gaps of the pairs without a truth: in the sky, hidden, or at the edge of a near object.
    """

    errors: FloatArray
    covariances0: FloatArray
    covariances1: FloatArray
    gaps: npt.NDArray[np.int64]
    ages0: npt.NDArray[np.int64]
    wrong: npt.NDArray[np.int64]
    unknown: npt.NDArray[np.int64]

    @staticmethod
    def joined(parts: Sequence[PositionErrors]) -> PositionErrors:
        """The pairs of all parts."""
        return PositionErrors(
            *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(PositionErrors))
        )

    @property
    def probabilities(self) -> FloatArray:
        """(P,) of the smallest ellipse that holds each error: uniform in [0, 1] if the covariances are true."""
        solved = np.linalg.solve(self.covariances0 + self.covariances1, self.errors[:, :, None])[:, :, 0]
        return np.asarray(-np.expm1(-(self.errors * solved).sum(axis=1) / 2), np.float64)


@dataclass(frozen=True, eq=False)
class TrueFrame:
    """A rendered image and its truth.

    Attributes:
        image: (H, W) uint8 grey.
        stamp_ns: Its stamp.
        camera: The camera.
        depth: (H, W) float32 m, 0 in the sky.
        pose: (4, 4) camera-to-world.
    """

    image: npt.NDArray[np.uint8]
    stamp_ns: int
    camera: Camera
    depth: npt.NDArray[np.float32]
    pose: FloatArray

    @staticmethod
    def of(flown: Flight, row: int) -> TrueFrame:
        """Renders an image of a flight."""
        stamp_ns = int(flown.stamps_ns[row])
        return TrueFrame(flown.image(row), stamp_ns, flown.camera, flown.depth(row), flown.poses[row])


@dataclass(frozen=True, eq=False)
class _Seen:
    tracks: Tracks
    frame: TrueFrame


def position_errors(
    frontend: SequenceFrontend, frames: Sequence[TrueFrame], on_frame: Callable[[], object] = lambda: None
) -> PositionErrors:
    """Runs a new `frontend` over rendered images, and compares its tracks with the truth.

    Args:
        frontend: Reports covariances.
        frames: The images in order.
        on_frame: Called after each image.

    Raises:
        SettingsError: The front-end reports no covariances, or there are fewer than 2 images.
    """
    latest: deque[_Seen] = deque(maxlen=max(GAPS))
    parts = []
    for frame in frames:
        tracks = frontend.process(frame.image, frame.stamp_ns).tracks
        if tracks.covariances is None:
            raise SettingsError(f"{frontend.identity} reports no covariances; expected a front-end of this project")
        now = _Seen(tracks, frame)
        parts += [_between(latest[-gap], now, gap) for gap in GAPS if gap <= len(latest)]
        latest.append(now)
        on_frame()
    if not parts:
        raise SettingsError(f"{len(frames)} image(s) make no pair; expected at least 2")
    return PositionErrors.joined(parts)


def _between(before: _Seen, now: _Seen, gap: int) -> PositionErrors:
    camera, depth = before.frame.camera, before.frame.depth
    _, rows0, rows1 = np.intersect1d(before.tracks.ids, now.tracks.ids, assume_unique=True, return_indices=True)
    points0 = before.tracks.keypoints[rows0].astype(np.float64)
    expected = reproject(points0, depth, before.frame.pose, now.frame.pose, camera, now.frame.depth)
    errors = now.tracks.keypoints[rows1] - expected.points
    motion = invert_pose(now.frame.pose) @ before.frame.pose
    is_known = expected.visible & (_ambiguity(points0, depth, motion, camera) <= _UNSURE_PX)
    is_wrong = is_known & ~(np.linalg.norm(errors, axis=1) <= WRONG_PX)
    used = is_known & ~is_wrong
    covariances0, covariances1 = (
        _matrices(seen.tracks, rows) for seen, rows in ((before, rows0[used]), (now, rows1[used]))
    )
    turned = _derivative(points0[used], depth, motion, camera)
    gaps = np.full(len(rows0), gap)
    return PositionErrors(
        errors=errors[used],
        covariances0=turned @ covariances0 @ turned.transpose(0, 2, 1),
        covariances1=covariances1,
        gaps=gaps[used],
        ages0=before.tracks.ages[rows0[used]].astype(np.int64),
        wrong=gaps[is_wrong],
        unknown=gaps[~is_known],
    )


def _matrices(tracks: Tracks, rows: npt.NDArray[np.int64]) -> FloatArray:
    """(P, 2, 2) covariances of the tracks in these rows."""
    assert tracks.covariances is not None
    return tracks.covariances[rows].astype(np.float64)[:, [[0, 1], [1, 2]]]


def _moved(points: FloatArray, inverse_depths: FloatArray, motion: FloatArray, camera: Camera) -> FloatArray:
    """(P, 2) px where (P, 2) points with (P,) inverse depths, 1/m, are after a motion (4, 4)."""
    return camera.project(camera.rays(points) @ motion[:3, :3].T + inverse_depths[:, None] * motion[:3, 3])


def _inverse_depths(points: FloatArray, depth: npt.NDArray[np.float32]) -> FloatArray:
    """(P,) 1/m; 0 in the sky."""
    depths = depth_at(points, depth)
    return np.where(depths > 0, 1 / np.where(depths > 0, depths, 1), 0)


def _derivative(points: FloatArray, depth: npt.NDArray[np.float32], motion: FloatArray, camera: Camera) -> FloatArray:
    """(P, 2, 2) of where points of plane surfaces move, by their position."""
    ends = [
        _moved(points + step, _inverse_depths(points + step, depth), motion, camera)
        for step in (*np.eye(2) / 2, *-np.eye(2) / 2)
    ]
    return np.stack([ends[0] - ends[2], ends[1] - ends[3]], axis=2)


def _ambiguity(points: FloatArray, depth: npt.NDArray[np.float32], motion: FloatArray, camera: Camera) -> FloatArray:
    """(P,) px by which the point moves otherwise if the surface around it is not a plane: if an edge is near.

    On a plane, inverse depth is linear in the image: compares the centre with the mean of opposite pixels.
    """
    x, y = np.rint(points).astype(np.int64).T
    height, width = depth.shape
    x, y = x.clip(_AROUND_PX, width - 1 - _AROUND_PX), y.clip(_AROUND_PX, height - 1 - _AROUND_PX)
    reach = np.arange(-_AROUND_PX, _AROUND_PX + 1)
    around = depth[(y[:, None] + reach)[:, :, None], (x[:, None] + reach)[:, None, :]].reshape(len(points), -1)
    inverse = np.where(around > 0, 1 / np.where(around > 0, around, 1), 0).astype(np.float64)
    middle = inverse[:, inverse.shape[1] // 2]
    bend = np.abs((inverse + inverse[:, ::-1]) / 2 - middle[:, None]).max(axis=1)
    moved = _moved(points, middle + bend, motion, camera) - _moved(points, middle, motion, camera)
    return np.asarray(np.linalg.norm(moved, axis=1), np.float64)
