"""A pinhole camera, its poses, and the reprojection of pixels from one rendered image to another.

Convention: a pose is a 4x4 camera-to-world matrix, metres; the camera frame is the optical frame (x right, y down,
z forward). Points are (x, y) px, pixel centres at integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "Camera",
    "Reprojection",
    "default_trajectory",
    "depth_at",
    "invert_pose",
    "look_at",
    "quaternion",
    "reproject",
    "smooth_path",
]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    Attributes:
        matrix: (3, 3) float64, px: focal lengths and principal point as in OpenCV and ROS.
        height: Image height in px.
        width: Image width in px.
    """

    matrix: FloatArray
    height: int
    width: int

    @staticmethod
    def with_field_of_view(horizontal_deg: float, height: int, width: int) -> Camera:
        """A camera with square pixels and its principal point at the image centre."""
        focal_px = width / 2 / np.tan(np.radians(horizontal_deg) / 2)
        matrix = np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1]])
        return Camera(matrix, height, width)

    def rays(self, points_px: npt.NDArray[np.floating]) -> FloatArray:
        """(N, 3) directions of the pixels `points_px` (N, 2) in the camera frame, with z = 1."""
        points = np.asarray(points_px, np.float64).reshape(-1, 2)
        return np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(self.matrix).T

    def project(self, points: npt.NDArray[np.floating]) -> FloatArray:
        """(N, 2) pixels of `points` (N, 3), metres in the camera frame; NaN for points not in front of it."""
        projected = np.asarray(points, np.float64).reshape(-1, 3) @ self.matrix.T
        depth = np.where(projected[:, 2:] > 0, projected[:, 2:], np.nan)
        return projected[:, :2] / depth

    def as_yaml(self) -> str:
        """The calibration in the format of ROS's `camera_calibration`."""

        def row(matrix: FloatArray) -> str:
            return ", ".join(repr(float(value)) for value in matrix.ravel())

        projection = np.column_stack([self.matrix, np.zeros(3)])
        return (
            f"image_width: {self.width}\n"
            f"image_height: {self.height}\n"
            "camera_name: rendered\n"
            f"camera_matrix: {{rows: 3, cols: 3, data: [{row(self.matrix)}]}}\n"
            "distortion_model: plumb_bob\n"
            "distortion_coefficients: {rows: 1, cols: 5, data: [0.0, 0.0, 0.0, 0.0, 0.0]}\n"
            f"rectification_matrix: {{rows: 3, cols: 3, data: [{row(np.eye(3))}]}}\n"
            f"projection_matrix: {{rows: 3, cols: 4, data: [{row(projection)}]}}\n"
        )

    def contains(self, points_px: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
        """(N,) whether each of `points_px` (N, 2) lies inside the image, including the centres of the border pixels."""
        x, y = np.asarray(points_px, np.float64).reshape(-1, 2).T
        return (x >= 0) & (x <= self.width - 1) & (y >= 0) & (y <= self.height - 1)


def look_at(position: Sequence[float], target: Sequence[float], up: Sequence[float] = (0.0, 0.0, 1.0)) -> FloatArray:
    """The pose (4, 4) of an upright camera at `position` that looks at `target`, world coordinates in metres.

    Raises:
        ValueError: The camera would look along `up`, or `target` is `position`.
    """
    origin = np.asarray(position, np.float64)
    forward = np.asarray(target, np.float64) - origin
    right = np.cross(forward, np.asarray(up, np.float64))
    if np.linalg.norm(right) < 1e-9 * max(float(np.linalg.norm(forward)), 1e-9):
        raise ValueError(
            f"a camera at {list(position)} cannot look at {list(target)} with {list(up)} as up; expected another target"
        )
    forward = forward / np.linalg.norm(forward)
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = origin
    return pose


def invert_pose(pose: FloatArray) -> FloatArray:
    """The inverse of a rigid motion (4, 4)."""
    rotation, translation = pose[:3, :3], pose[:3, 3]
    inverse = np.eye(4)
    inverse[:3, :3] = rotation.T
    inverse[:3, 3] = -rotation.T @ translation
    return inverse


def quaternion(rotation: FloatArray) -> FloatArray:
    """(4,) x, y, z, w of a rotation (3, 3), with w at least 0."""
    axis = cv2.Rodrigues(rotation)[0].ravel()
    angle = max(float(np.linalg.norm(axis)), 1e-12)
    return np.array([*(np.sin(angle / 2) * axis / angle), np.cos(angle / 2)])


# Camera positions and target points, metres in the hall, for a flight of 60 frames.
POSITIONS = (
    (1.2, -1.6, 1.3), (2.7, -0.9, 1.5), (4.4, 0.2, 1.75), (6.0, 0.5, 1.9), (7.6, 0.0, 1.75),
    (9.1, -0.7, 1.5), (10.5, -1.3, 1.4), (11.9, -2.3, 1.6), (13.4, -2.1, 1.8),
)  # fmt: skip
TARGETS = (
    (8.0, 1.8, 1.3), (9.5, 1.6, 1.4), (11.0, 0.2, 1.5), (12.6, -1.2, 1.4), (14.5, -1.6, 1.3),
    (16.5, -0.6, 1.5), (18.0, 1.0, 1.6), (19.0, 1.6, 1.5), (20.0, 1.2, 1.6),
)  # fmt: skip


def smooth_path(points: npt.NDArray[np.floating], count: int) -> FloatArray:
    """(count, D) points on a natural cubic spline through `points` (K, D), equally spaced in the parameter.

    Raises:
        ValueError: Fewer than 3 points are given, or fewer than 1 is requested.
    """
    knots = np.asarray(points, np.float64)
    if len(knots) < 3 or count < 1:
        raise ValueError(
            f"{count} points on a path through {len(knots)} points; expected at least 1 through at least 3"
        )
    # Second derivatives of a spline with unit knot distance: M[i-1] + 4 M[i] + M[i+1] = 6 (second difference).
    inner = len(knots) - 2
    system = 4 * np.eye(inner) + np.eye(inner, k=1) + np.eye(inner, k=-1)
    bends = np.zeros_like(knots)
    bends[1:-1] = np.linalg.solve(system, 6 * (knots[:-2] - 2 * knots[1:-1] + knots[2:]))
    at = np.linspace(0, len(knots) - 1, count)
    left = np.minimum(at.astype(np.int64), len(knots) - 2)
    b = (at - left)[:, None]
    a = 1 - b
    chord = a * knots[left] + b * knots[left + 1]
    bend = (a**3 - a) * bends[left] + (b**3 - b) * bends[left + 1]
    return np.asarray(chord + bend / 6, np.float64)


def default_trajectory(count: int = 60) -> list[FloatArray]:
    """`count` poses (4, 4 camera-to-world) along the flight, for 60 frames about 0.2 m and 1.5 degrees apart.

    More frames fly the same path more slowly; fewer than 60 fly only its beginning, so that the steps stay as small.
    """
    total = max(count, 60)
    positions = smooth_path(np.asarray(POSITIONS), total)[:count]
    targets = smooth_path(np.asarray(TARGETS), total)[:count]
    return [look_at(position, target) for position, target in zip(positions, targets, strict=True)]


# A relative depth difference of neighbouring pixels above this is an edge between surfaces.
SURFACE_TOLERANCE = 0.02


@dataclass(frozen=True)
class Reprojection:
    """Points of image 0 reprojected into image 1.

    Attributes:
        points: (N, 2) float64, (x, y) px in image 1; NaN if the point has no depth or is behind camera 1.
        visible: (N,) bool, whether it is in the image and, if the depth of image 1 was given, not hidden.
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
    """Maps points of image 0 to image 1; exact up to the interpolation of the depth.

    Args:
        points_px: (N, 2), (x, y) px in image 0.
        depth0: (H, W) float32 m of image 0, 0 without a surface.
        pose0: (4, 4) camera-to-world of image 0.
        pose1: (4, 4) camera-to-world of image 1.
        camera: The camera of both images.
        depth1: (H, W) float32 m of image 1, to detect hidden points; None treats no point as hidden.
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
    """(N,) depth in m at `points_px` (N, 2); 0 outside the image and where the nearest pixel shows no surface.

    Within a surface, the inverse depth is interpolated, which is exact on a plane; at an edge, the nearest pixel is
    used.
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
