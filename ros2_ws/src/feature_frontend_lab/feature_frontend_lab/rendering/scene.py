"""Elements of a scene: flat textured rectangles, single or as boxes, with baked light and shadow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering.textures import Texture

__all__ = ["Lamp", "Quad", "Scene", "block", "box", "lit", "wall"]

FloatArray = npt.NDArray[np.float64]
TextureMaker = Callable[[float, float], Texture]

WALL_MARGIN_M = 0.001


@dataclass(frozen=True)
class Quad:
    """A textured parallelogram, visible from one side only, on which its texture is not mirrored.

    Attributes:
        corner: (3,) world position in metres of the texture's top-left corner.
        right: (3,) edge along the texture's width, metres.
        down: (3,) edge along the texture's height, metres.
        texture: Texture of the surface.
    """

    corner: FloatArray
    right: FloatArray
    down: FloatArray
    texture: Texture

    @cached_property
    def normal(self) -> FloatArray:
        """(3,) unit normal, pointing to the visible side."""
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
    """All visible objects.

    Attributes:
        quads: The surfaces.
        background: RGB of pixels without a surface.
    """

    quads: tuple[Quad, ...]
    background: tuple[int, int, int] = field(default=(0, 0, 0))


def box(
    centre: Sequence[float], size: Sequence[float], make_texture: TextureMaker, turn_deg: float = 0.0
) -> tuple[Quad, ...]:
    """The four sides and the top of an upright box (z is up).

    Args:
        centre: (x, y, z) of the centre of its bottom face, metres.
        size: (length along x, along y, height), metres.
        make_texture: Creates the texture of a face from its width and height in metres.
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


def block(
    centre: Sequence[float],
    size: Sequence[float],
    turn_deg: float,
    sides: Sequence[Texture],
    top: Texture | None,
) -> list[Quad]:
    """A box whose sides show `sides` in turn, from the one along its own x on; without a top if that is None."""
    blank = sides[0]
    quads = box(centre, size, lambda _width, _height: blank, turn_deg)
    textured = [replace(quad, texture=sides[number % len(sides)]) for number, quad in enumerate(quads[:4])]
    return textured if top is None else [*textured, replace(quads[4], texture=top)]


def wall(left: npt.ArrayLike, right: npt.ArrayLike, height_m: float, texture: Texture) -> Quad:
    """An upright quad on the ground between two (x, y), `left` and `right` as seen from its front.

    It is a millimetre longer at both ends: no pixel looks through between two walls that meet.
    """
    start, end = np.asarray(left, np.float64), np.asarray(right, np.float64)
    margin = WALL_MARGIN_M * (end - start) / np.linalg.norm(end - start)
    start, end = start - margin, end + margin
    return Quad(np.array([*start, height_m]), np.array([*(end - start), 0.0]), np.array([0, 0, -height_m]), texture)


GRID_M = 0.18
SURFACE_GAP_M = 0.02


@dataclass(frozen=True)
class Lamp:
    """A lamp that radiates in all directions.

    Attributes:
        position: (3,) world position in metres.
        strength: Brightness added to a surface that faces it at a distance of 1 m, as a factor of the texture.
    """

    position: FloatArray
    strength: float


def lit(quads: Sequence[Quad], lamps: Sequence[Lamp], ambient: float) -> tuple[Quad, ...]:
    """Bakes lamps, shadows and ambient light into the textures of quads, which must be rectangles.

    Args:
        quads: All quads of the scene, as any may cast a shadow on another.
        lamps: The lamps.
        ambient: Brightness without lamps, as a factor of the texture.
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
        # Softer than the inverse square: a hall's light is also reflected by its walls.
        brightness += lamp.strength * facing / (1 + distance) * ~_shadowed(points, lamp.position, quads)
    ends = np.cumsum([grid.shape[0] * grid.shape[1] for grid in grids])
    parts = np.split(brightness.astype(np.float32), ends[:-1])
    return tuple(
        _shaded(quad, part.reshape(grid.shape[:2])) for quad, grid, part in zip(quads, grids, parts, strict=True)
    )


def _grid(quad: Quad) -> FloatArray:
    """(rows, columns, 3) points just in front of the quad, on a regular grid."""
    columns = max(round(float(np.linalg.norm(quad.right)) / GRID_M), 2)
    rows = max(round(float(np.linalg.norm(quad.down)) / GRID_M), 2)
    across = (np.arange(columns) + 0.5) / columns
    along = (np.arange(rows) + 0.5) / rows
    points = quad.corner + across[None, :, None] * quad.right + along[:, None, None] * quad.down
    return np.asarray(points + SURFACE_GAP_M * quad.normal, np.float64)


def _shaded(quad: Quad, brightness: npt.NDArray[np.float32]) -> Quad:
    """The quad with its texture multiplied by `brightness`, a coarse grid over it."""
    picture = quad.texture.levels[0]
    smooth = cv2.GaussianBlur(brightness, (3, 3), 0)
    factor = cv2.resize(smooth, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_LINEAR)
    shaded = np.clip(picture * factor[..., None], 0, 255).astype(np.uint8)
    return replace(quad, texture=Texture.from_image(shaded))


def _shadowed(points: FloatArray, lamp: FloatArray, quads: Sequence[Quad]) -> npt.NDArray[np.bool_]:
    """(N,) whether a quad lies between each of `points` (N, 3) and the lamp."""
    shadowed = np.zeros(len(points), np.bool_)
    rays = lamp - points
    for quad in quads:
        normal = np.cross(quad.right, quad.down)
        start = points - quad.corner
        with np.errstate(divide="ignore", invalid="ignore"):
            fraction = -(start @ normal) / (rays @ normal)
            hit = start + fraction[:, None] * rays
        horizontal = hit @ (quad.right / (quad.right @ quad.right))
        vertical = hit @ (quad.down / (quad.down @ quad.down))
        with np.errstate(invalid="ignore"):
            between = (np.minimum(horizontal, vertical) >= 0) & (np.maximum(horizontal, vertical) <= 1)
            shadowed |= between & (fraction > 0) & (fraction < 1)
    return shadowed
