"""An exhibition hall with pillars, crates, partition walls and posters: the default scene, and others like it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from feature_frontend_lab.rendering import textures
from feature_frontend_lab.rendering.scene import FloatArray, Lamp, Quad, Scene, TextureMaker, box, lit
from feature_frontend_lab.rendering.textures import Texture

__all__ = ["HALL_LENGTH_M", "HALL_WIDTH_M", "default_scene", "hall_around"]

HALL_LENGTH_M = 20.0
HALL_WIDTH_M = 11.0
HALL_HEIGHT_M = 4.6
POSTER_GAP_M = 0.015
AMBIENT = 0.45

Place = tuple[tuple[float, float, float], tuple[float, float, float], float, textures.Colour]
Paint = Callable[[np.random.Generator, float, float, float, textures.Colour], textures.Image]

PILLARS = tuple((x, y) for x in (4.5, 9.0, 13.5) for y in (-2.9, 2.9))
# Bottom centre (x, y, z), size, turn in degrees, colour. Some crates are stacked.
CRATES: tuple[Place, ...] = (
    ((6.3, 1.9, 0.0), (1.0, 1.0, 1.0), 18, (176, 132, 84)),
    ((6.4, 1.9, 1.0), (0.7, 0.7, 0.6), 47, (150, 116, 84)),
    ((7.2, -1.9, 0.0), (1.3, 0.8, 0.8), -25, (160, 120, 74)),
    ((10.8, -2.6, 0.0), (1.1, 1.1, 1.3), 33, (172, 140, 96)),
    ((11.3, 2.1, 0.0), (0.9, 1.4, 0.9), -12, (138, 106, 78)),
    ((11.2, 2.2, 0.9), (0.6, 0.6, 0.5), 30, (182, 146, 98)),
    ((15.2, 0.6, 0.0), (1.2, 1.2, 1.1), 40, (166, 126, 82)),
    ((15.6, -3.6, 0.0), (1.4, 1.0, 1.6), 8, (150, 112, 72)),
    ((16.4, 3.3, 0.0), (1.0, 1.0, 0.8), -38, (178, 138, 90)),
    ((3.2, -3.6, 0.0), (0.9, 0.9, 0.9), 55, (168, 128, 80)),
)
PARTITIONS: tuple[Place, ...] = (
    ((13.0, 0.5, 0.0), (0.14, 2.2, 2.5), 14, (92, 120, 132)),
    ((17.2, 1.9, 0.0), (0.14, 2.6, 2.6), -28, (136, 98, 106)),
    ((8.2, 4.2, 0.0), (0.14, 2.0, 2.4), 62, (104, 126, 98)),
    ((8.9, -4.3, 0.0), (0.14, 2.0, 2.4), -58, (122, 110, 92)),
)
# Places tried for each thing that a random hall should hold; what finds none is left out.
_TRIES = 60


def default_scene(seed: int = 0) -> Scene:
    """A hall of 20 m x 11 m x 4.6 m; x runs along it from 0, y across it from the centre line, z up from the floor.

    Args:
        seed: Seed of the textures' details; the geometry is fixed.
    """
    return _hall(np.random.default_rng(seed), PILLARS, CRATES, PARTITIONS)


def hall_around(path: FloatArray, rng: np.random.Generator) -> Scene:
    """A hall of the same size whose pillars, crates and partitions stand at random places clear of a path.

    Args:
        path: (N, 3) positions in metres.
        rng: Of the places, the sizes and the textures.
    """
    taken = path[:, :2]

    def places(count: int, sizes: FloatArray, colours: Sequence[textures.Colour], clearance_m: float) -> list[Place]:
        nonlocal taken
        found: list[Place] = []
        for _ in range(_TRIES * count):
            size = sizes[0] + rng.uniform(0, 1, 3) * (sizes[1] - sizes[0])
            reach = float(np.hypot(size[0], size[1])) / 2
            x = rng.uniform(reach, HALL_LENGTH_M - reach)
            y = rng.uniform(reach - HALL_WIDTH_M / 2, HALL_WIDTH_M / 2 - reach)
            if len(found) < count and np.hypot(*(taken - [x, y]).T).min() > reach + clearance_m:
                colour = colours[int(rng.integers(len(colours)))]
                found.append(((x, y, 0.0), (size[0], size[1], size[2]), rng.uniform(0, 180), colour))
                taken = np.vstack([taken, [x, y]])
        return found

    partitions = places(5, np.array([[0.14, 1.8, 2.3], [0.14, 2.8, 2.7]]), [row[3] for row in PARTITIONS], 0.8)
    pillars = places(6, np.array([[0.55, 0.55, 1.0], [0.55, 0.55, 1.0]]), [(0, 0, 0)], 0.7)
    crates = places(14, np.array([[0.7, 0.7, 0.6], [1.4, 1.3, 1.6]]), [row[3] for row in CRATES], 0.55)
    return _hall(rng, [(place[0][0], place[0][1]) for place in pillars], crates, partitions)


def _hall(
    rng: np.random.Generator,
    pillars: Sequence[tuple[float, float]],
    crates: Sequence[Place],
    partitions: Sequence[Place],
) -> Scene:
    quads = [
        *_shell(rng),
        *_pillars(rng, pillars),
        *_crates(rng, crates),
        *_partitions(rng, partitions),
        *_posters(rng),
    ]
    lamps = [Lamp(np.array([x, y, HALL_HEIGHT_M - 0.4]), 0.95) for x in (3.0, 8.5, 14.0, 18.5) for y in (-2.4, 2.6)]
    return Scene(lit(quads, lamps, AMBIENT))


def _maker(rng: np.random.Generator, paint: Paint, px_per_m: float, colour: textures.Colour) -> TextureMaker:
    def make(width_m: float, height_m: float) -> Texture:
        return Texture.from_image(paint(rng, width_m, height_m, px_per_m, colour))

    return make


def _wall(start: tuple[float, float], end: tuple[float, float], height: float, make: TextureMaker) -> Quad:
    """An upright quad on the floor from `start` (left, seen from the front) to `end`, (x, y) in metres."""
    right = np.array([end[0] - start[0], end[1] - start[1], 0.0])
    corner = np.array([*start, height])
    return Quad(corner, right, np.array([0.0, 0.0, -height]), make(float(np.linalg.norm(right)), height))


def _shell(rng: np.random.Generator) -> list[Quad]:
    """Floor, ceiling and the four outer walls."""
    length, half, height = HALL_LENGTH_M, HALL_WIDTH_M / 2, HALL_HEIGHT_M
    along, across = np.array([length, 0.0, 0.0]), np.array([0.0, 2 * half, 0.0])
    floor = _maker(rng, textures.tiles, 150, (168, 160, 146))(length, 2 * half)
    ceiling = _maker(rng, textures.panels, 90, (206, 204, 196))(length, 2 * half)
    red_brick = _maker(rng, textures.brick, 170, (158, 84, 62))
    pale_plaster = _maker(rng, textures.plaster, 170, (196, 186, 160))
    return [
        Quad(np.array([0.0, half, 0.0]), along, -across, floor),
        Quad(np.array([0.0, -half, height]), along, across, ceiling),
        _wall((0, half), (length, half), height, pale_plaster),
        _wall((length, half), (length, -half), height, red_brick),
        _wall((length, -half), (0, -half), height, red_brick),
        _wall((0, -half), (0, half), height, pale_plaster),
    ]


def _pillars(rng: np.random.Generator, positions: Sequence[tuple[float, float]]) -> list[Quad]:
    make = _maker(rng, textures.concrete, 260, (150, 150, 146))
    return [quad for x, y in positions for quad in box((x, y, 0), (0.55, 0.55, HALL_HEIGHT_M), make)[:4]]


def _crates(rng: np.random.Generator, rows: Sequence[Place]) -> list[Quad]:
    return [
        quad
        for centre, size, turn, colour in rows
        for quad in box(centre, size, _maker(rng, textures.wood, 280, colour), turn)
    ]


def _partitions(rng: np.random.Generator, rows: Sequence[Place]) -> list[Quad]:
    """Free-standing exhibition walls with a poster on each long side."""
    quads: list[Quad] = []
    for number, (centre, size, turn, colour) in enumerate(rows):
        sides = box(centre, size, _maker(rng, textures.plaster, 280, colour), turn)
        quads += sides
        for motif, side in enumerate(sides[0:4:2]):
            inset_x, inset_y = (0.08, 0.06)
            quads.append(_hung(rng, side, (inset_x, inset_y), (1 - 2 * inset_x, 0.72), 2 * number + motif, 300))
    return quads


def _posters(rng: np.random.Generator) -> list[Quad]:
    """Posters along the outer walls."""
    length, half = HALL_LENGTH_M, HALL_WIDTH_M / 2
    blank = Texture.from_image(np.zeros((8, 8, 3), np.uint8))

    def plain(_width_m: float, _height_m: float) -> Texture:
        return blank

    sides = (
        _wall((0, half), (length, half), HALL_HEIGHT_M, plain),
        _wall((length, half), (length, -half), HALL_HEIGHT_M, plain),
        _wall((length, -half), (0, -half), HALL_HEIGHT_M, plain),
    )
    quads: list[Quad] = []
    for side in sides:
        width_m = float(np.linalg.norm(side.right))
        left_m = 0.5
        while left_m < width_m - 1.8:
            size_m = rng.uniform(0.9, 1.7), rng.uniform(1.2, 2.2)
            top_m = rng.uniform(0.6, HALL_HEIGHT_M - size_m[1] - 0.7)
            at = (left_m / width_m, top_m / HALL_HEIGHT_M)
            fraction = (size_m[0] / width_m, size_m[1] / HALL_HEIGHT_M)
            quads.append(_hung(rng, side, at, fraction, len(quads), 240))
            left_m += size_m[0] + rng.uniform(0.25, 0.9)
    return quads


def _hung(
    rng: np.random.Generator,
    wall: Quad,
    at: tuple[float, float],
    fraction: tuple[float, float],
    motif: int,
    px_per_m: float,
) -> Quad:
    """A poster in front of a wall; its top-left corner and size are fractions of the wall's width and height."""
    right, down = fraction[0] * wall.right, fraction[1] * wall.down
    corner: FloatArray = wall.corner + at[0] * wall.right + at[1] * wall.down + POSTER_GAP_M * wall.normal
    width_m, height_m = float(np.linalg.norm(right)), float(np.linalg.norm(down))
    picture = textures.poster(rng, width_m, height_m, px_per_m, motif)
    return Quad(corner, right, down, Texture.from_image(picture))
