"""What a scene is made of: flat textured rectangles, alone or as boxes, with light and shadow baked into them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering.textures import Texture

__all__ = ["Lamp", "Quad", "Scene", "box", "lit"]

FloatArray = npt.NDArray[np.float64]
TextureMaker = Callable[[float, float], Texture]


@dataclass(frozen=True)
class Quad:
    """A textured parallelogram, seen from one side only: the side from which its texture is not mirrored.

    Attributes:
        corner: (3,) world position in metres of the texture's top-left corner.
        right: (3,) edge along the texture's width, metres.
        down: (3,) edge along the texture's height, metres.
        texture: What is painted on it.
    """

    corner: FloatArray
    right: FloatArray
    down: FloatArray
    texture: Texture

    @cached_property
    def normal(self) -> FloatArray:
        """(3,) unit normal, pointing to the side from which the quad is seen."""
        normal = np.cross(self.down, self.right)
        return np.asarray(normal / np.linalg.norm(normal), np.float64)

    @property
    def corners(self) -> FloatArray:
        """(4, 3) world positions: top left, top right, bottom right, bottom left."""
        return np.stack(
            [
                self.corner,
                self.corner + self.right,
                self.corner + self.right + self.down,
                self.corner + self.down,
            ]
        )


@dataclass(frozen=True)
class Scene:
    """Everything a camera can see.

    Attributes:
        quads: The surfaces.
        background: RGB of the pixels that see none of them.
    """

    quads: tuple[Quad, ...]
    background: tuple[int, int, int] = field(default=(0, 0, 0))


def box(
    centre: Sequence[float], size: Sequence[float], make_texture: TextureMaker, turn_deg: float = 0.0
) -> tuple[Quad, ...]:
    """The four sides and the top of an upright box, z being up.

    Args:
        centre: (x, y, z) of the middle of its bottom face, metres.
        size: (length along x, along y, height), metres.
        make_texture: Makes the texture of a face from its width and height in metres.
        turn_deg: Rotation about the vertical axis, counter-clockwise seen from above.
    """
    length, depth, height = size
    angle = np.radians(turn_deg)
    along = np.array([np.cos(angle), np.sin(angle), 0.0])
    across = np.array([-np.sin(angle), np.cos(angle), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    middle = np.asarray(centre, np.float64) + height * up
    quads = []
    for outward, side, reach, width in (
        (along, across, length, depth),
        (across, -along, depth, length),
        (-along, -across, length, depth),
        (-across, along, depth, length),
    ):
        corner = middle + outward * reach / 2 - side * width / 2
        quads.append(Quad(corner, side * width, -up * height, make_texture(width, height)))
    corner = middle - along * length / 2 + across * depth / 2
    quads.append(Quad(corner, along * length, -across * depth, make_texture(length, depth)))
    return tuple(quads)


GRID_M = 0.18
SURFACE_GAP_M = 0.02


@dataclass(frozen=True)
class Lamp:
    """A lamp that shines in all directions.

    Attributes:
        position: (3,) world position in metres.
        strength: Brightness it adds to a surface that faces it at a distance of 1 m, as a factor of the texture.
    """

    position: FloatArray
    strength: float


def lit(quads: Sequence[Quad], lamps: Sequence[Lamp], ambient: float) -> tuple[Quad, ...]:
    """The same quads, which must be rectangles, with textures as bright as lamps, shadows and ambient light make them.

    Args:
        quads: All of the scene, as each may stand in another's light.
        lamps: Where light comes from.
        ambient: Brightness without any lamp, as a factor of the texture.
    """
    grids = [_grid(quad) for quad in quads]
    points = np.concatenate([grid.reshape(-1, 3) for grid in grids])
    normals = np.concatenate(
        [np.broadcast_to(quad.normal, grid.shape).reshape(-1, 3) for quad, grid in zip(quads, grids, strict=True)]
    )
    brightness = np.full(len(points), ambient)
    for lamp in lamps:
        to_lamp = lamp.position - points
        distance = np.linalg.norm(to_lamp, axis=1)
        facing = np.maximum((to_lamp * normals).sum(axis=1) / distance, 0)
        # Softer than the inverse square: a hall's light also arrives by way of its walls.
        brightness += lamp.strength * facing / (1 + distance) * ~_shadowed(points, lamp.position, quads)
    ends = np.cumsum([grid.shape[0] * grid.shape[1] for grid in grids])
    shares = np.split(brightness.astype(np.float32), ends[:-1])
    return tuple(
        _shaded(quad, share.reshape(grid.shape[:2])) for quad, grid, share in zip(quads, grids, shares, strict=True)
    )


def _grid(quad: Quad) -> FloatArray:
    """(rows, columns, 3) points just before the quad, spread evenly over it."""
    columns = max(round(float(np.linalg.norm(quad.right)) / GRID_M), 2)
    rows = max(round(float(np.linalg.norm(quad.down)) / GRID_M), 2)
    across = (np.arange(columns) + 0.5) / columns
    along = (np.arange(rows) + 0.5) / rows
    points = quad.corner + across[None, :, None] * quad.right + along[:, None, None] * quad.down
    return np.asarray(points + SURFACE_GAP_M * quad.normal, np.float64)


def _shaded(quad: Quad, brightness: npt.NDArray[np.float32]) -> Quad:
    """The quad with its texture times `brightness`, a coarse grid over it."""
    picture = quad.texture.levels[0]
    smooth = cv2.GaussianBlur(brightness, (3, 3), 0)
    factor = cv2.resize(smooth, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_LINEAR)
    shaded = np.clip(picture * factor[..., None], 0, 255).astype(np.uint8)
    return replace(quad, texture=Texture.from_image(shaded))


def _shadowed(points: FloatArray, lamp: FloatArray, quads: Sequence[Quad]) -> npt.NDArray[np.bool_]:
    """(N,) whether some quad stands between each of `points` (N, 3) and the lamp."""
    shadowed = np.zeros(len(points), np.bool_)
    rays = lamp - points
    for quad in quads:
        normal = np.cross(quad.right, quad.down)
        start = points - quad.corner
        with np.errstate(divide="ignore", invalid="ignore"):
            share = -(start @ normal) / (rays @ normal)
            hit = start + share[:, None] * rays
        horizontal = hit @ (quad.right / (quad.right @ quad.right))
        vertical = hit @ (quad.down / (quad.down @ quad.down))
        with np.errstate(invalid="ignore"):
            between = (np.minimum(horizontal, vertical) >= 0) & (np.maximum(horizontal, vertical) <= 1)
            shadowed |= between & (share > 0) & (share < 1)
    return shadowed
