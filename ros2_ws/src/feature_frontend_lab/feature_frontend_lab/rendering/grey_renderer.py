"""Renders scenes of thousands of quads in grey, several times faster than `renderer.render`, with the same depth.

All pixels of all surfaces are shaded together. Each is shaded once, at several places along its footprint where the
surface is seen at a grazing angle, and four times only where several surfaces share it.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering.camera import Camera, FloatArray, invert_pose
from feature_frontend_lab.rendering.renderer import NEAR_M, View, depth_of, image_bounds, nearest, nearest_of
from feature_frontend_lab.rendering.scene import Scene
from feature_frontend_lab.rendering.textures import Texture

__all__ = ["GreyScene"]

FloatImage = npt.NDArray[np.float32]

_SAMPLES = 2
# Aspect ratio of a sample's footprint up to which one place does; twice and four times that take 2 and 4 of them.
_ANISOTROPY = 1.5
_MOST_PROBES = 4
# Samples that are shaded together: what fits into a core's cache.
_BLOCK = 1 << 15


class GreyScene:
    """A scene prepared for many views: textures in grey, and arrays in which the visible quads are found at once.

    Args:
        scene: The scene; its textures may be grey or RGB. The grey level of the background is its RGB's mean.
    """

    def __init__(self, scene: Scene) -> None:
        self._background = np.float32(np.mean(scene.background))
        self._corners = np.stack([quad.corners for quad in scene.quads])
        self._normals = np.stack([quad.normal for quad in scene.quads])
        distinct = {id(quad.texture): quad.texture for quad in scene.quads}  # many quads share a texture
        numbers = {key: number for number, key in enumerate(distinct)}
        self._texture_of_quad = np.array([numbers[id(quad.texture)] for quad in scene.quads])
        self._textures = _Textures(list(distinct.values()))

    def __len__(self) -> int:
        """Number of quads."""
        return len(self._corners)

    def depth(self, camera: Camera, pose: FloatArray) -> FloatImage:
        """(H, W) float32, metres along the optical axis at the pixel's centre; 0 without a surface."""
        return depth_of(self._views(camera, pose)[0], camera)

    def render(self, camera: Camera, pose: FloatArray) -> tuple[FloatImage, FloatImage]:
        """Renders the scene from `pose` (4, 4 camera-to-world).

        Returns:
            (H, W) float32 grey levels from 0 to 255, and (H, W) float32 inverse depth in 1/m, the mean over each pixel.
        """
        views, shown = self._views(camera, pose)
        offsets = (np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5
        x = (np.arange(camera.width)[:, None] + offsets).ravel().astype(np.float32)
        y = (np.arange(camera.height)[:, None] + offsets).ravel().astype(np.float32)
        index, inverse_depth = nearest(views, x.astype(np.float64), y.astype(np.float64))
        first = index[::_SAMPLES, ::_SAMPLES]
        alike = np.ones(first.shape, np.bool_)
        for row, column in ((0, 1), (1, 0), (1, 1)):
            alike &= index[row::_SAMPLES, column::_SAMPLES] == first
        size = (camera.width, camera.height)
        mean_inverse = cv2.resize(inverse_depth, size, interpolation=cv2.INTER_AREA)

        image = np.full(first.shape, self._background, np.float32)
        affine = np.array([view.affine for view in views], np.float32).reshape(-1, 3, 3)
        textures = self._texture_of_quad[shown]
        rows, columns = np.nonzero(alike & (first >= 0))
        chosen = first[rows, columns]
        image[rows, columns] = self._shade(affine, textures, chosen, columns, rows, 1.0)
        rows, columns = np.nonzero(~alike)
        total = np.zeros(len(rows), np.float32)
        for row in range(_SAMPLES):
            for column in range(_SAMPLES):
                at_y, at_x = _SAMPLES * rows + row, _SAMPLES * columns + column
                chosen = index[at_y, at_x]
                colours = np.full(len(total), self._background, np.float32)
                seen = chosen >= 0
                colours[seen] = self._shade(affine, textures, chosen[seen], x[at_x[seen]], y[at_y[seen]], 1 / _SAMPLES)
                total += colours
        image[rows, columns] = total / _SAMPLES**2
        return image, np.asarray(mean_inverse, np.float32)

    def _views(self, camera: Camera, pose: FloatArray) -> tuple[list[View], npt.NDArray[np.int64]]:
        """The quads that face the camera and project into its image, nearest first, and their numbers."""
        towards = np.einsum("qi,qi->q", self._normals, pose[:3, 3] - self._corners[:, 0])
        facing = np.flatnonzero(towards > 0)
        to_camera = invert_pose(pose)
        corners = self._corners[facing] @ to_camera[:3, :3].T + to_camera[:3, 3]
        # Each row of `sides` is positive inside one side of the field of view.
        (left, top, _), (right, bottom, _) = camera.rays(np.array([[-1.0, -1.0], [camera.width, camera.height]]))
        sides = np.array([[1, 0, -left], [-1, 0, right], [0, 1, -top], [0, -1, bottom], [0, 0, 1]])
        limits = np.array([0, 0, 0, 0, NEAR_M])
        inside = (corners @ sides.T > limits).any(axis=1).all(axis=1)
        facing, corners = facing[inside], corners[inside]
        order = np.argsort(corners[..., 2].min(axis=1), kind="stable")
        facing, corners = facing[order], corners[order]
        edges = np.stack([corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0], corners[:, 0]], axis=-1)
        affine = np.linalg.inv(edges) @ np.linalg.inv(camera.matrix)
        whole = (corners[..., 2] >= NEAR_M).all(axis=1)
        projected = camera.project(corners).reshape(-1, 4, 2)
        extents = np.concatenate([projected.min(axis=1), projected.max(axis=1)], axis=1).tolist()
        views, shown = [], []
        for number, quad in enumerate(facing):
            bounds = tuple(extents[number]) if whole[number] else image_bounds(corners[number], camera)
            if bounds is not None:
                views.append(View(affine[number], bounds, nearest_of(corners[number])))
                shown.append(quad)
        return views, np.array(shown, np.int64)

    def _shade(
        self,
        affine: FloatImage,
        textures: npt.NDArray[np.int64],
        chosen: npt.NDArray[np.int16],
        x: npt.NDArray[np.floating | np.integer],
        y: npt.NDArray[np.floating | np.integer],
        spacing_px: float,
    ) -> FloatImage:
        """(N,) grey levels at the points (x, y) px of the views `chosen`, each for a square of `spacing_px`."""
        colours = np.empty(len(chosen), np.float32)
        for start in range(0, len(chosen), _BLOCK):
            part = slice(start, start + _BLOCK)
            numbers = chosen[part]
            colours[part] = _shade_block(
                self._textures, affine[numbers], textures[numbers], x[part], y[part], np.float32(spacing_px)
            )
        return colours


class _Textures:
    """All levels of all textures behind each other in one array, in which samples of any of them are read at once."""

    def __init__(self, textures: list[Texture]) -> None:
        levels = [list(texture.grey().levels) for texture in textures]
        deepest = max(len(one) for one in levels)
        self.last = np.array([len(one) - 1 for one in levels])
        self.size = np.array([(one[0].shape[1], one[0].shape[0]) for one in levels], np.float32)
        flat = [level for one in levels for level in one]
        starts = np.cumsum([0, *(level.size for level in flat)])
        self._texels = np.concatenate([level.ravel() for level in flat])
        self._start = np.zeros((len(levels), deepest), np.int64)
        self._width = np.ones((len(levels), deepest), np.int32)
        self._height = np.ones((len(levels), deepest), np.int32)
        position = 0
        for number, one in enumerate(levels):
            for depth, level in enumerate(one):
                self._start[number, depth] = starts[position]
                self._height[number, depth], self._width[number, depth] = level.shape
                position += 1

    def sample(
        self, textures: npt.NDArray[np.int64], horizontal: FloatImage, vertical: FloatImage, level: FloatImage
    ) -> FloatImage:
        """(N,) grey levels, linear in both directions and between levels, as `Texture.sample`."""
        last = self.last[textures]
        level = np.clip(level, 0, last.astype(np.float32))
        lower = level.astype(np.int64)
        fraction = level - lower
        fine = self._read(textures, lower, horizontal, vertical)
        coarse = self._read(textures, np.minimum(lower + 1, last), horizontal, vertical)
        return np.asarray(fine + (coarse - fine) * fraction, np.float32)

    def _read(
        self,
        textures: npt.NDArray[np.int64],
        level: npt.NDArray[np.int64],
        horizontal: FloatImage,
        vertical: FloatImage,
    ) -> FloatImage:
        at = textures * self._start.shape[1] + level
        width, height, start = (table.take(at) for table in (self._width, self._height, self._start))
        x = np.clip(horizontal * width.astype(np.float32) - np.float32(0.5), 0, None)
        y = np.clip(vertical * height.astype(np.float32) - np.float32(0.5), 0, None)
        left, top = np.minimum(x.astype(np.int32), width - 1), np.minimum(y.astype(np.int32), height - 1)
        across, down = x - left, y - top
        corner = start + top.astype(np.int64) * width + left
        right = np.minimum(width - 1 - left, 1)
        below = np.where(top < height - 1, width, 0)
        texels = self._texels
        upper_left, upper_right = texels.take(corner).astype(np.float32), texels.take(corner + right)
        corner += below
        lower_left, lower_right = texels.take(corner).astype(np.float32), texels.take(corner + right)
        upper = upper_left + (upper_right - upper_left) * across
        lower = lower_left + (lower_right - lower_left) * across
        return np.asarray(upper + (lower - upper) * down, np.float32)


def _shade_block(
    table: _Textures,
    affine: FloatImage,
    textures: npt.NDArray[np.int64],
    x: npt.NDArray[np.floating | np.integer],
    y: npt.NDArray[np.floating | np.integer],
    spacing_px: np.float32,
) -> FloatImage:
    (ax, ay, a1), (bx, by, b1), (wx, wy, w1) = np.ascontiguousarray(affine.transpose(1, 2, 0))
    at_x, at_y = x.astype(np.float32), y.astype(np.float32)
    per_w = 1 / (wx * at_x + wy * at_y + w1)
    horizontal = (ax * at_x + ay * at_y + a1) * per_w
    vertical = (bx * at_x + by * at_y + b1) * per_w
    # The Jacobian of the position on the quad by the sample, and the axes of the footprint in texture px.
    per_w *= spacing_px
    right_x, right_y = (ax - horizontal * wx) * per_w, (ay - horizontal * wy) * per_w
    down_x, down_y = (bx - vertical * wx) * per_w, (by - vertical * wy) * per_w
    width2, height2 = (table.size[textures] ** 2).T
    xx = right_x**2 * width2 + down_x**2 * height2
    yy = right_y**2 * width2 + down_y**2 * height2
    xy = right_x * right_y * width2 + down_x * down_y * height2
    area2 = np.maximum(xx * yy - xy**2, np.float32(1e-20))
    half = (xx + yy) / 2
    major2 = half + np.sqrt(np.maximum(half**2 - area2, 0))
    aspect = major2 / np.sqrt(area2)
    probes = np.where(aspect > 2 * _ANISOTROPY, _MOST_PROBES, np.where(aspect > _ANISOTROPY, 2, 1))
    footprint2 = major2 / np.minimum(aspect, np.float32(_ANISOTROPY) * probes.astype(np.float32)) ** 2
    level = np.log2(footprint2) / 2

    colours = np.empty(len(level), np.float32)
    for count in (1, 2, _MOST_PROBES):
        chosen = np.flatnonzero(probes == count)
        if not len(chosen):
            continue
        total = np.zeros(len(chosen), np.float32)
        where = textures[chosen], horizontal[chosen], vertical[chosen], level[chosen]
        # Along the major axis, as a direction in the image.
        angle = np.arctan2(2 * xy[chosen], xx[chosen] - yy[chosen]) / 2
        cos, sin = np.cos(angle), np.sin(angle)
        along_right = right_x[chosen] * cos + right_y[chosen] * sin
        along_down = down_x[chosen] * cos + down_y[chosen] * sin
        for probe in range(count):
            offset = np.float32((probe + 0.5) / count - 0.5)
            total += table.sample(where[0], where[1] + offset * along_right, where[2] + offset * along_down, where[3])
        colours[chosen] = total / count
    return colours
