"""Where a pixel of one rendered image lies in another: the ground truth of correspondence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering.camera import Camera, FloatArray, invert_pose

__all__ = ["Reprojection", "depth_at", "reproject"]

# Two depths of neighbouring pixels that differ by more than this share lie on different surfaces.
SURFACE_TOLERANCE = 0.02


@dataclass(frozen=True)
class Reprojection:
    """Points of an image 0 as image 1 sees them.

    Attributes:
        points: (N, 2) float64, (x, y) px in image 1; NaN where the point has no depth or is behind camera 1.
        visible: (N,) bool, in the image and, if the depth of image 1 was given, not hidden.
    """

    points: FloatArray
    visible: npt.NDArray[np.bool_]


def reproject(
    points_px: npt.NDArray[np.floating],
    depth0: npt.NDArray[np.float32],
    pose0: FloatArray,
    pose1: FloatArray,
    camera: Camera,
    depth1: npt.NDArray[np.float32] | None = None,
) -> Reprojection:
    """Moves points of image 0 to image 1, exactly up to the interpolation of the depth.

    Args:
        points_px: (N, 2), (x, y) px in image 0.
        depth0: (H, W) float32 m of image 0, 0 where there is no surface.
        pose0: (4, 4) camera-to-world of image 0.
        pose1: (4, 4) camera-to-world of image 1.
        camera: The camera of both.
        depth1: (H, W) float32 m of image 1, to find out what is hidden there; None counts nothing as hidden.
    """
    points = np.asarray(points_px, np.float64).reshape(-1, 2)
    distance = depth_at(points, depth0)
    motion = invert_pose(pose1) @ pose0
    moved = (camera.rays(points) * distance[:, None]) @ motion[:3, :3].T + motion[:3, 3]
    projected = camera.project(np.where(distance[:, None] > 0, moved, np.nan))
    visible = camera.contains(projected)
    if depth1 is not None:
        seen = depth_at(np.where(visible[:, None], projected, 0), depth1)
        with np.errstate(invalid="ignore"):
            visible &= np.abs(seen - moved[:, 2]) < SURFACE_TOLERANCE * seen
    return Reprojection(projected, visible)


def depth_at(points_px: npt.NDArray[np.floating], depth: npt.NDArray[np.float32]) -> FloatArray:
    """(N,) depth in m at `points_px` (N, 2); 0 outside the image and where the nearest pixel sees no surface.

    Within a surface the inverse depth is interpolated, which is exact on a plane; at an edge the nearest pixel counts.
    """
    height, width = depth.shape
    x, y = np.asarray(points_px, np.float64).reshape(-1, 2).T
    with np.errstate(invalid="ignore"):
        inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    x, y = np.where(inside, x, 0), np.where(inside, y, 0)
    nearest = depth[np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)].astype(np.float64)
    left = np.clip(np.floor(x).astype(np.int64), 0, max(width - 2, 0))
    top = np.clip(np.floor(y).astype(np.int64), 0, max(height - 2, 0))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    around = np.stack([depth[top, left], depth[top, right], depth[bottom, left], depth[bottom, right]]).astype(
        np.float64
    )
    across, down = x - left, y - top
    weights = np.stack([(1 - across) * (1 - down), across * (1 - down), (1 - across) * down, across * down])
    one_surface = (around > 0).all(axis=0)
    one_surface &= around.max(axis=0) - around.min(axis=0) <= SURFACE_TOLERANCE * around.max(axis=0)
    inverse = (weights / np.where(around > 0, around, 1)).sum(axis=0)
    interpolated = np.where(one_surface, 1 / np.where(one_surface, inverse, 1), nearest)
    return np.where(inside, interpolated, 0)
