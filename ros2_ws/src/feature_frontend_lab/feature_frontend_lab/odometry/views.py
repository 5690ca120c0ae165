"""The tracks of one image, as odometry takes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["TrackedView", "common_rows", "median_shift_px", "pixel_size"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TrackedView:
    """The tracks seen in one image.

    Attributes:
        stamp_ns: Stamp of the image, on the clock of the IMU.
        ids: (T,) ids, each once.
        rays: (T, 2) undistorted (x/z, y/z) in the camera's optical frame.
        px: Size of a pixel on the plane of `rays`: 1 / focal length.
    """

    stamp_ns: int
    ids: IntArray
    rays: FloatArray
    px: float

    @staticmethod
    def of(stamp_ns: int, ids: npt.NDArray[np.integer], rays: npt.NDArray[np.floating], px: float) -> TrackedView:
        """Creates a view from the tracks that have a ray; of an id that is there twice, the first is taken."""
        has_ray = np.isfinite(rays).all(axis=1)
        unique, rows = np.unique(np.asarray(ids, np.int64)[has_ray], return_index=True)
        return TrackedView(stamp_ns, unique, np.asarray(rays, np.float64)[has_ray][rows], px)


def common_rows(view0: TrackedView, view1: TrackedView) -> tuple[IntArray, IntArray]:
    """Rows of the tracks that both views contain."""
    _, rows0, rows1 = np.intersect1d(view0.ids, view1.ids, assume_unique=True, return_indices=True)
    return rows0, rows1


def median_shift_px(view0: TrackedView, view1: TrackedView) -> float:
    """How far the tracks that both views contain have moved; NaN if there is none."""
    rows0, rows1 = common_rows(view0, view1)
    if not len(rows0):
        return float("nan")
    return float(np.median(np.linalg.norm(view1.rays[rows1] - view0.rays[rows0], axis=1))) / view1.px


def pixel_size(keypoints: FloatArray, rays: FloatArray) -> float:
    """Size of a pixel in the middle of the image on the plane of rays: 1 / focal length.

    Args:
        keypoints: (T, 2) px.
        rays: (T, 2) (x/z, y/z); undistorted, and so compared near the middle only.
    """
    off_axis = np.linalg.norm(rays, axis=1)
    is_known = np.isfinite(off_axis) & np.isfinite(keypoints).all(axis=1)
    if not is_known.any():
        return 1e-3
    is_near = is_known & (off_axis <= np.median(off_axis[is_known]))
    spreads = [np.ptp(np.quantile(points[is_near], (0.1, 0.9), axis=0), axis=0).sum() for points in (rays, keypoints)]
    return float(spreads[0] / spreads[1]) if min(spreads) > 1e-6 else 1e-3
