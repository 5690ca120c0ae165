"""Monocular visual odometry from tracks alone. NumPy and OpenCV only, no ROS.

Two views give the first motion (essential matrix) and the first points (triangulation). Each later view is localised by
its tracks with known points (PnP), and each keyframe triangulates further tracks. There is no bundle adjustment and no
loop closure: this is an example of using tracks, not a SLAM system.

Poses are 4x4 camera-to-world; the world frame is the first camera's optical frame (x right, y down, z forward). A
single camera does not determine scale: the first baseline is given, and all other lengths follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Options", "Step", "View", "VisualOdometry"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_EYE = np.eye(3)


@dataclass(frozen=True)
class Options:
    """Thresholds of the odometry.

    Attributes:
        baseline: Length given to the first motion.
        threshold_px: Maximum reprojection error.
        min_points: Minimum number of points for a pose.
        start_points: Minimum number of points triangulated from the first two views.
        start_shift_px: Median movement of the tracks before the first motion is computed.
        keyframe_shift_px: Median movement of the tracks that makes a view a keyframe.
        min_parallax_deg: Minimum angle between two rays for triangulation.
        keyframes: Number of latest keyframes kept.
        patience: Number of consecutive views without a pose before restarting.
        start_patience: Like `patience`, for views with enough movement for the first motion that give none.
    """

    baseline: float = 1.0
    threshold_px: float = 2.0
    min_points: int = 20
    start_points: int = 60
    start_shift_px: float = 20.0
    keyframe_shift_px: float = 15.0
    min_parallax_deg: float = 0.5
    keyframes: int = 8
    patience: int = 3
    start_patience: int = 15


@dataclass(frozen=True)
class View:
    """The tracks seen in one image.

    Attributes:
        ids: (T,) their ids.
        rays: (T, 2) undistorted (x/z, y/z).
        pose: (4, 4) camera-to-world; the identity if unknown.
    """

    ids: IntArray
    rays: FloatArray
    pose: FloatArray

    @staticmethod
    def of(ids: npt.NDArray[np.integer], rays: npt.NDArray[np.floating]) -> View:
        """Creates a view with unknown pose from the tracks that have a ray; removes duplicate ids."""
        has_ray = np.isfinite(rays).all(axis=1)
        unique, rows = np.unique(np.asarray(ids, np.int64)[has_ray], return_index=True)
        return View(unique, np.asarray(rays, np.float64)[has_ray][rows], np.eye(4))

    def at(self, pose: FloatArray) -> View:
        """A copy of the view with `pose`."""
        return View(self.ids, self.rays, pose)


@dataclass(frozen=True)
class Step:
    """Result for one view.

    Attributes:
        pose: (4, 4) camera-to-world; None if unknown.
        begins: Whether this view starts a new initialisation.
        first_pose: Only with the first `pose` after that: the pose of the view that started it; else None.
        note: One line for the user; usually empty.
    """

    pose: FloatArray | None
    begins: bool = False
    first_pose: FloatArray | None = None
    note: str = ""


class VisualOdometry:
    """Processes one view after another."""

    def __init__(self, options: Options | None = None) -> None:
        self._options = options or Options()
        self._points: dict[int, FloatArray] = {}
        self._keyframes: list[View] = []
        self._last = np.eye(4)
        self._motion: FloatArray | None = None
        self._start: View | None = None
        self._views_since_start = 0
        self._failures = 0

    def update(self, view: View, px: float) -> Step:
        """Processes the next view.

        Args:
            view: The view; its pose is ignored.
            px: Size of a pixel on the plane of `rays`: 1 / focal length.
        """
        if self._start is None:
            return self._begin(view, "")
        self._views_since_start += 1
        return self._follow(view, px) if self._keyframes else self._initialise(view, px)

    def forget_tracks(self) -> None:
        """Restarts with the next view as the first of new tracks; keeps scale and heading."""
        self._start = None
        self._points, self._keyframes = {}, []

    def _begin(self, view: View, note: str) -> Step:
        """Waits for a second view; earlier motion, if any, is extrapolated."""
        self._start = view.at(self._last)
        self._views_since_start = self._failures = 0
        self._points, self._keyframes = {}, []
        return Step(None, begins=True, note=note)

    def _fail(self, view: View, patience: int, note: str) -> Step:
        self._failures += 1
        return self._begin(view, f"{note}: it restarts") if self._failures > patience else Step(None, note=note)

    def _initialise(self, view: View, px: float) -> Step:
        start, options = self._start, self._options
        assert start is not None
        rows0, rows1 = _common(start, view)
        if len(rows0) < options.min_points:
            return self._begin(view, f"{len(rows0)} tracks left of the first view: it restarts")
        rays0, rays1 = start.rays[rows0], view.rays[rows1]
        if _shift(rays0, rays1) < options.start_shift_px * px:
            return Step(None)
        cv2.setRNGSeed(0)
        essential, mask = cv2.findEssentialMat(
            rays0, rays1, _EYE, method=cv2.USAC_DEFAULT, prob=0.9999, threshold=options.threshold_px * px
        )
        if essential is None or essential.shape != (3, 3):
            return self._fail(view, options.start_patience, "")
        _, rotation, direction, _ = cv2.recoverPose(essential, rays0, rays1, _EYE, mask=mask)
        baseline = options.baseline
        if self._motion is not None:
            baseline = max(self._views_since_start * float(np.linalg.norm(self._motion[:3, 3])), 1e-9)
        view = view.at(start.pose @ _inverse(_pose(rotation, baseline * np.asarray(direction))))
        self._make_points(start, view, px)
        if len(self._points) < options.start_points:  # pure rotation without a baseline gives hardly any
            self._points = {}
            return self._fail(view, options.start_patience, "")
        self._keyframes, self._failures = [start, view], 0
        self._last, self._motion = view.pose, _root(_inverse(start.pose) @ view.pose, self._views_since_start)
        return Step(view.pose, first_pose=start.pose)

    def _follow(self, view: View, px: float) -> Step:
        assert self._motion is not None
        known = np.array([number in self._points for number in view.ids.tolist()], np.bool_)
        placed = self._place(view, known, px)
        if placed is None:
            self._last = self._last @ self._motion
            return self._fail(
                view, self._options.patience, f"no pose fits {np.count_nonzero(known)} tracks with points"
            )
        view, fits = placed
        for number in view.ids[known][~fits].tolist():
            del self._points[number]
        if not self._failures:
            self._motion = _inverse(self._last) @ view.pose
        self._last, self._failures = view.pose, 0
        rows0, rows1 = _common(self._keyframes[-1], view)
        if len(rows0) < 0.6 * len(view.ids) or (
            _shift(self._keyframes[-1].rays[rows0], view.rays[rows1]) > self._options.keyframe_shift_px * px
        ):
            self._add_keyframe(view, px)
        return Step(view.pose)

    def _place(self, view: View, known: npt.NDArray[np.bool_], px: float) -> tuple[View, npt.NDArray[np.bool_]] | None:
        """The view at its pose, and which of its known points fit it; None if too few do."""
        options = self._options
        if np.count_nonzero(known) < options.min_points:
            return None
        points = np.array([self._points[number] for number in view.ids[known].tolist()])
        rays, threshold = view.rays[known], options.threshold_px * px
        # P3P: the default samples five points for EPnP, which older OpenCV fails to solve with outliers.
        cv2.setRNGSeed(0)
        ok, turn, shift, inliers = cv2.solvePnPRansac(
            points,
            rays,
            _EYE,
            None,
            iterationsCount=200,
            reprojectionError=threshold,
            confidence=0.999,
            flags=cv2.SOLVEPNP_AP3P,
        )
        if not ok or inliers is None or len(inliers) < options.min_points:
            return None
        chosen = inliers.ravel()
        turn, shift = cv2.solvePnPRefineLM(points[chosen], rays[chosen], _EYE, None, turn, shift)
        pose = _inverse(_pose(cv2.Rodrigues(turn)[0], shift))
        if not np.isfinite(pose).all():
            return None
        fits = _distances(pose, points, rays) < threshold
        return (view.at(pose), fits) if np.count_nonzero(fits) >= options.min_points else None

    def _add_keyframe(self, view: View, px: float) -> None:
        # Oldest first: the longest baseline gives the best points, which also replace existing ones.
        for keyframe in reversed(self._keyframes):
            self._make_points(keyframe, view, px)
        self._keyframes = [*self._keyframes[1 - self._options.keyframes :], view]
        seen = set(np.concatenate([keyframe.ids for keyframe in self._keyframes]).tolist())
        self._points = {number: point for number, point in self._points.items() if number in seen}

    def _make_points(self, view0: View, view1: View, px: float) -> None:
        """Triangulates the tracks of two views; keeps well-determined points in front of both."""
        rows0, rows1 = _common(view0, view1)
        if not len(rows0):
            return
        rays0, rays1 = view0.rays[rows0], view1.rays[rows1]
        cameras = [_inverse(view.pose)[:3] for view in (view0, view1)]
        homogeneous = np.asarray(cv2.triangulatePoints(cameras[0], cameras[1], rays0.T, rays1.T))
        with np.errstate(all="ignore"):
            points = (homogeneous[:3] / homogeneous[3]).T
            error = np.maximum(_distances(view0.pose, points, rays0), _distances(view1.pose, points, rays1))
            to0, to1 = (points - view.pose[:3, 3] for view in (view0, view1))
            cosine = (to0 * to1).sum(axis=1) / np.linalg.norm(to0, axis=1) / np.linalg.norm(to1, axis=1)
        is_good = (error < self._options.threshold_px * px) & (
            cosine < np.cos(np.radians(self._options.min_parallax_deg))
        )
        self._points.update(zip(view0.ids[rows0][is_good].tolist(), points[is_good], strict=True))


def _common(view0: View, view1: View) -> tuple[IntArray, IntArray]:
    """Rows of the tracks that both views contain."""
    _, rows0, rows1 = np.intersect1d(view0.ids, view1.ids, assume_unique=True, return_indices=True)
    return rows0, rows1


def _shift(rays0: FloatArray, rays1: FloatArray) -> float:
    return float(np.median(np.linalg.norm(rays1 - rays0, axis=1))) if len(rays0) else 0.0


def _distances(pose: FloatArray, points: FloatArray, rays: FloatArray) -> FloatArray:
    """(N,) error of `points` (N, 3), seen from `pose`, against `rays`; infinite for points not in front of it."""
    local = points @ _inverse(pose)[:3, :3].T + _inverse(pose)[:3, 3]
    is_ahead = local[:, 2] > 0
    depth = np.where(is_ahead, local[:, 2], 1.0)[:, None]
    distances: FloatArray = np.linalg.norm(local[:, :2] / depth - rays, axis=1)
    return np.where(is_ahead, distances, np.inf)


def _pose(rotation: npt.ArrayLike, translation: npt.ArrayLike) -> FloatArray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, np.ravel(translation)
    return pose


def _inverse(pose: FloatArray) -> FloatArray:
    rotation = pose[:3, :3].T
    return _pose(rotation, -rotation @ pose[:3, 3])


def _root(motion: FloatArray, count: int) -> FloatArray:
    """Approximately the motion that gives `motion` when applied `count` times."""
    turn = cv2.Rodrigues(motion[:3, :3])[0]
    return _pose(cv2.Rodrigues(turn / count)[0], motion[:3, 3] / count)
