"""Renders a scene with exact depth.

A plane's inverse depth, and the texture coordinates times the inverse depth, are affine in the pixel coordinates: ray
casting takes three multiply-adds per pixel and quad, and the depth is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering.camera import Camera, FloatArray, invert_pose
from feature_frontend_lab.rendering.scene import Quad, Scene
from feature_frontend_lab.rendering.textures import Texture

__all__ = ["RenderedFrame", "View", "depth_of", "image_bounds", "nearest", "nearest_of", "render", "render_depth"]

NEAR_M = 0.05
# Maximum aspect ratio of a pixel's footprint on a surface; above it, the texture is also blurred across.
MAX_ANISOTROPY = 2.0


@dataclass(frozen=True)
class RenderedFrame:
    """A rendered image and its depth.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) float32, metres along the optical axis at the pixel's centre; 0 without a surface.
    """

    image: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """A quad as seen from one pose.

    `affine` (3, 3) maps the pixel (x, y, 1) to (horizontal * w, vertical * w, w), where w is the inverse depth and
    horizontal, vertical in [0, 1] are the position on the quad. `bounds` are its x0, y0, x1, y1 in px, not rounded.
    No pixel has a larger inverse depth than `nearest`.
    """

    affine: FloatArray
    bounds: tuple[float, float, float, float]
    nearest: float


def render(scene: Scene, camera: Camera, pose: FloatArray, supersampling: int = 2) -> RenderedFrame:
    """Renders `scene` from `pose` (4, 4 camera-to-world).

    Args:
        scene: The scene.
        camera: Image size and intrinsics.
        pose: Camera pose.
        supersampling: Samples per pixel along each axis; 1 leaves silhouettes jagged.
    """
    seen = list(_views(scene, camera, pose))
    views = [view for _, view in seen]
    depth = depth_of(views, camera)
    offset = (np.arange(supersampling) + 0.5) / supersampling - 0.5
    x = (np.arange(camera.width)[:, None] + offset).ravel()
    y = (np.arange(camera.height)[:, None] + offset).ravel()
    index, _ = nearest(views, x, y)
    canvas = np.empty((len(y), len(x), 3), np.uint8)
    canvas[:] = np.asarray(scene.background, np.uint8)
    for number, (quad, view) in enumerate(seen):
        rows, columns = _window(view, x, y)
        mine_y, mine_x = np.nonzero(index[rows, columns] == number)
        if len(mine_y):
            seen_x, seen_y = mine_x + columns.start, mine_y + rows.start
            colours = _shade(quad.texture, view, x[seen_x], y[seen_y], 1 / supersampling)
            canvas[seen_y, seen_x] = colours.reshape(len(colours), -1)
    image = cv2.resize(canvas, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    return RenderedFrame(np.asarray(image, np.uint8), depth)


def render_depth(scene: Scene, camera: Camera, pose: FloatArray) -> npt.NDArray[np.float32]:
    """The depth of `render` alone, in a tenth of the time."""
    return depth_of([view for _, view in _views(scene, camera, pose)], camera)


def depth_of(views: list[View], camera: Camera) -> npt.NDArray[np.float32]:
    """(H, W) float32, metres along the optical axis at the pixel's centre; 0 without a surface."""
    x, y = np.arange(camera.width, dtype=np.float64), np.arange(camera.height, dtype=np.float64)
    _, inverse_depth = nearest(views, x, y)
    seen = inverse_depth > 0
    return np.divide(1, inverse_depth, out=np.zeros_like(inverse_depth), where=seen)


def _views(scene: Scene, camera: Camera, pose: FloatArray) -> Iterator[tuple[Quad, View]]:
    """The quads that face the camera and project into its image, and how they do."""
    to_camera = invert_pose(pose)
    pixel_to_ray = np.linalg.inv(camera.matrix)
    for quad in scene.quads:
        if np.dot(quad.normal, pose[:3, 3] - quad.corner) <= 0:
            continue
        corners = quad.corners @ to_camera[:3, :3].T + to_camera[:3, 3]
        bounds = image_bounds(corners, camera)
        if bounds is None:
            continue
        corner = corners[0]
        edges = np.column_stack([to_camera[:3, :3] @ quad.right, to_camera[:3, :3] @ quad.down, corner])
        # ray / w = corner + horizontal * right + vertical * down
        yield quad, View(np.linalg.inv(edges) @ pixel_to_ray, bounds, nearest_of(corners))


def nearest_of(corners: FloatArray) -> float:
    """An upper bound of the inverse depth of a polygon (N, 3 in the camera frame), rounding included."""
    least = float(corners[:, 2].min())
    return (1 + 1e-4) / least if least >= NEAR_M else np.inf


def image_bounds(corners: FloatArray, camera: Camera) -> tuple[float, float, float, float] | None:
    """The bounding box of the part of a polygon (N, 3 in the camera frame) beyond the near plane; None if invisible."""
    clipped = []
    for current, following in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if current[2] >= NEAR_M:
            clipped.append(current)
        if (current[2] >= NEAR_M) != (following[2] >= NEAR_M):
            fraction = (NEAR_M - current[2]) / (following[2] - current[2])
            clipped.append(current + fraction * (following - current))
    if not clipped:
        return None
    projected = camera.project(np.array(clipped))
    (x0, y0), (x1, y1) = projected.min(axis=0), projected.max(axis=0)
    if x1 < -1 or y1 < -1 or x0 > camera.width or y0 > camera.height:
        return None
    return float(x0), float(y0), float(x1), float(y1)


def _window(view: View, x: FloatArray, y: FloatArray) -> tuple[slice, slice]:
    """The rows and columns of the sampling grid within the view's bounds."""
    x0, y0, x1, y1 = view.bounds
    rows = slice(int(np.searchsorted(y, y0)), int(np.searchsorted(y, y1, side="right")))
    columns = slice(int(np.searchsorted(x, x0)), int(np.searchsorted(x, x1, side="right")))
    return rows, columns


def nearest(views: list[View], x: FloatArray, y: FloatArray) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    """The index of the view seen by each grid point (-1: none), and its inverse depth (0: none)."""
    index = np.full((len(y), len(x)), -1, np.int16)
    inverse_depth = np.zeros((len(y), len(x)), np.float32)
    for number, view in enumerate(views):
        rows, columns = _window(view, x, y)
        best = inverse_depth[rows, columns]
        if not best.size or view.nearest < best.min():
            continue
        horizontal, vertical, w = (
            np.add.outer(along_y.astype(np.float32), along_x.astype(np.float32))
            for along_y, along_x in _affine(view, x[columns], y[rows])
        )
        hit = w > best
        hit &= np.minimum(horizontal, vertical) >= 0
        hit &= np.maximum(horizontal, vertical) <= w
        np.copyto(best, w, where=hit)
        np.copyto(index[rows, columns], np.int16(number), where=hit)
    return index, inverse_depth


def _affine(view: View, x: FloatArray, y: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
    """The three affine functions of the view, each split into a part that depends on y and one that depends on x."""
    for along_x, along_y, constant in view.affine:
        yield along_y * y + constant, along_x * x


def _shade(texture: Texture, view: View, x: FloatArray, y: FloatArray, spacing_px: float) -> npt.NDArray[np.uint8]:
    """(N, 3) or, if grey, (N,) colours at the points (x, y) px with a sample spacing of `spacing_px`."""
    horizontal, vertical, w = (np.asarray(along_y + along_x, np.float32) for along_y, along_x in _affine(view, x, y))
    horizontal /= w
    vertical /= w
    scale = np.array([texture.width, texture.height]) * spacing_px
    (hx, hy, _), (vx, vy, _), (wx, wy, _) = view.affine.astype(np.float32)
    right_x, right_y = (hx - horizontal * wx) * scale[0], (hy - horizontal * wy) * scale[0]
    down_x, down_y = (vx - vertical * wx) * scale[1], (vy - vertical * wy) * scale[1]
    # Singular values of the Jacobian of texture px by sample: the axes of the footprint, still multiplied by w.
    half = (right_x**2 + right_y**2 + down_x**2 + down_y**2) / 2
    area = np.abs(right_x * down_y - right_y * down_x)
    major = np.sqrt(half + np.sqrt(np.maximum(half**2 - area**2, 0)))
    footprint = np.maximum(area / major, major / MAX_ANISOTROPY) / w
    return texture.sample(horizontal, vertical, np.log2(footprint).astype(np.float32))
