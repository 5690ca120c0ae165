"""What a scene is made of: flat textured rectangles, alone or as boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering.mipmap import Texture

__all__ = ["Quad", "Scene", "box"]

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
