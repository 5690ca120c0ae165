"""The way along which a street or a corridor is built: a plane curve with a left and a right."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from feature_frontend_lab.rendering.camera import FloatArray

__all__ = ["Course"]

_STEP_M = 0.5
_OVERLAP_M = 0.05
_SMOOTHED_M = 3.0
# The steepest turn within one piece of the ground, and the longest piece.
_MOST_TURN, _MOST_M = np.radians(6.0), 10.0


class Course:
    """A curve beside a path, extended in a straight line beyond both of its ends.

    Args:
        path: (N, 2 or more) positions in m, in the order in which they are passed; only x and y count.
        left_m: Distance of the curve from the path, to the left.
        before_m: Length of the extension before the path.
        after_m: Length of the extension after it.
    """

    def __init__(self, path: FloatArray, left_m: float, before_m: float, after_m: float) -> None:
        points = path[:, :2]
        first, last = points[1] - points[0], points[-1] - points[-2]
        before = points[0] - before_m * first / np.linalg.norm(first)
        after = points[-1] + after_m * last / np.linalg.norm(last)
        extended = np.vstack([before, points, after])
        s = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(extended, axis=0), axis=1))])
        self._s = np.arange(0, s[-1], _STEP_M)
        even = np.column_stack([np.interp(self._s, s, extended[:, axis]) for axis in (0, 1)])
        heading = np.unwrap(np.arctan2(*np.gradient(even, axis=0).T[::-1]))
        window = round(_SMOOTHED_M / _STEP_M) | 1
        heading = np.convolve(np.pad(heading, window // 2, mode="edge"), np.full(window, 1 / window), mode="valid")
        self._heading = heading
        self._points = even + left_m * np.column_stack([-np.sin(heading), np.cos(heading)])

    @property
    def length_m(self) -> float:
        """Length of the path and its extensions; `s` runs from 0 to it."""
        return float(self._s[-1])

    def heading(self, s: float) -> float:
        """Direction in rad at `s`, counter-clockwise from x; not wrapped."""
        return float(np.interp(s, self._s, self._heading))

    def at(self, s: float, left_m: float) -> FloatArray:
        """(2,) the point at `s`, this far to the left of the curve."""
        heading = self.heading(s)
        point = np.array([np.interp(s, self._s, self._points[:, axis]) for axis in (0, 1)])
        return np.asarray(point + left_m * np.array([-np.sin(heading), np.cos(heading)]), np.float64)

    def after(self, s: float, left_m: float, width_m: float) -> float:
        """The first `s` whose point this far to the left is `width_m` away from that of the given one."""
        start, reached = self.at(s, left_m), s
        while reached < self.length_m and np.linalg.norm(self.at(reached, left_m) - start) < width_m:
            reached += 0.1
        return reached

    def strip(
        self, start: float, end: float, left_m: float, right_m: float, height_m: float
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """A flat piece that overlaps the next one: its corner (at `start`, left), edge along and edge across."""
        heading = self.heading((start + end) / 2)
        forward, leftward = np.array([np.cos(heading), np.sin(heading)]), np.array([-np.sin(heading), np.cos(heading)])
        ends = [self.at(s, offset) for s in (start, end) for offset in (left_m, right_m)]
        middle = self.at((start + end) / 2, (left_m + right_m) / 2)
        reach = [float((point - middle) @ forward) for point in ends]
        first, last = min(reach) - _OVERLAP_M, max(reach) + _OVERLAP_M
        corner = middle + first * forward + (left_m - right_m) / 2 * leftward
        return (
            np.array([*corner, height_m]),
            np.array([*(last - first) * forward, 0.0]),
            np.array([*(right_m - left_m) * leftward, 0.0]),
        )

    def pieces(self) -> Iterator[tuple[float, float]]:
        """Pieces (from s, to s) that are nearly straight."""
        start = 0.0
        while start < self.length_m:
            end = min(start + _MOST_M, self.length_m)
            while abs(self.heading(end) - self.heading(start)) > _MOST_TURN and end - start > 1:
                end -= 0.5
            yield start, end
            start = end
