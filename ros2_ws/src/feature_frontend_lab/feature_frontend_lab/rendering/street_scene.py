"""A street along a path: road, pavements, houses, parked cars, posts, signs, trees, in sun and shadow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering import textures
from feature_frontend_lab.rendering.camera import FloatArray
from feature_frontend_lab.rendering.course import Course
from feature_frontend_lab.rendering.scene import Quad, Scene, block, wall
from feature_frontend_lab.rendering.street_textures import (
    PX_PER_M,
    Sheets,
    car_side,
    car_top,
    facade,
    grey,
    leaves,
    road,
    sky,
    window,
)
from feature_frontend_lab.rendering.textures import Texture

__all__ = ["street_along"]

Image = npt.NDArray[np.uint8]

# Across the street, m from its middle: the path, the kerb and the houses.
_LANE_M, _KERB_M, _FRONT_M = 1.7, 5.0, 7.8
_KERB_HEIGHT_M = 0.12
# Height by which every other piece of the ground lies lower, so that overlapping ones never share a plane.
_STAGGER_M = 0.004
_AMBIENT = 0.62
_ELEVATION = np.radians(38)
_SHADOW_GRID_M = 0.1
_BEFORE_M, _AFTER_M = 15.0, 140.0


@dataclass(frozen=True)
class _House:
    """From `start` to `end` along the course, on one side of it."""

    start: float
    end: float
    height_m: float


class _Sun:
    """Where the sun stands, and what it does to textures."""

    def __init__(self, rng: np.random.Generator) -> None:
        azimuth = rng.uniform(0, 2 * np.pi)
        self.across = np.array([np.cos(azimuth), np.sin(azimuth)])
        self.direction = np.array([*np.cos(_ELEVATION) * self.across, np.sin(_ELEVATION)])
        self._lit: dict[tuple[int, int], tuple[Texture, Texture]] = {}

    def light(self, normal: FloatArray) -> float:
        """Brightness of a surface, about 1 at most."""
        return _AMBIENT + 0.5 * max(float(normal @ self.direction), 0.0)

    def on(self, quad: Quad) -> Quad:
        """The quad in this light; quads that share a texture go on to share one for each of few levels."""
        level = round(8 * self.light(quad.normal))
        key = id(quad.texture), level
        if key not in self._lit:  # the original is kept, so that its id stays its own
            lit = Texture.from_image(grey(quad.texture.levels[0] * np.float32(level / 8)))
            self._lit[key] = quad.texture, lit
        return replace(quad, texture=self._lit[key][1])


def street_along(path: FloatArray, rng: np.random.Generator) -> Scene:
    """A street whose right lane is `path`.

    Args:
        path: (N, 3) positions in m, z up from the road.
        rng: Of everything.
    """
    course = Course(path, _LANE_M, _BEFORE_M, _AFTER_M)
    return Scene(_Street(course, rng).quads(), background=(205, 205, 205))


class _Street:
    def __init__(self, course: Course, rng: np.random.Generator) -> None:
        self._course, self._rng = course, rng
        self._sheets, self._sun = Sheets(rng), _Sun(rng)
        self._houses = {side: self._row_of_houses(side) for side in (1, -1)}

    def quads(self) -> tuple[Quad, ...]:
        standing = [*self._fronts(), *self._cars(), *self._posts(), *self._trees(), *self._boxes()]
        return (*self._ground(), *(self._sun.on(quad) for quad in standing), self._sky())

    def _row_of_houses(self, side: int) -> list[_House]:
        houses, start = [], 0.0
        while start < self._course.length_m - 1:
            end = self._course.after(start, side * _FRONT_M, self._rng.uniform(7, 14))
            houses.append(_House(start, end, self._rng.uniform(6.2, 12.5)))
            start = end
        return houses

    # The ground

    def _ground(self) -> list[Quad]:
        quads = [self._far_ground()]
        for number, (start, end) in enumerate(self._course.pieces()):
            below = -_STAGGER_M * (number % 2)
            width = 2 * _KERB_M + 0.4
            corner, along, across = self._course.strip(start, end, width / 2, -width / 2, below)
            length = float(np.linalg.norm(along))
            picture = road(self._rng, self._sheets, start, length, width)
            shade = self._shade(start, end, width / 2, -width / 2)
            quads.append(Quad(corner, along, across, Texture.from_image(_darkened(picture, shade))))
            for side in (1, -1):
                quads += self._pavement(start, end, side, below + _KERB_HEIGHT_M)
        return quads

    def _far_ground(self) -> Quad:
        """What is behind the houses, seen through gaps between them."""
        (x, y), half = self._course.at(self._course.length_m / 2, 0.0), 1200.0
        texture = Texture.from_image(self._sheets.cut("asphalt", 8, 8))
        return Quad(
            np.array([x - half, y + half, -0.3]), np.array([2 * half, 0, 0]), np.array([0, -2 * half, 0]), texture
        )

    def _pavement(self, start: float, end: float, side: int, height_m: float) -> list[Quad]:
        near, far = side * _KERB_M, side * (_FRONT_M + 1.0)
        left, right = max(near, far), min(near, far)
        corner, along, across = self._course.strip(start, end, left, right, height_m)
        length, width = float(np.linalg.norm(along)), float(np.linalg.norm(across))
        picture = self._sheets.cut("stone", length, width)
        for _ in range(int(length * 1.5)):
            centre = (int(self._rng.integers(picture.shape[1])), int(self._rng.integers(picture.shape[0])))
            cv2.circle(
                picture, centre, int(self._rng.integers(1, 6)), float(self._rng.uniform(60, 110)), -1, cv2.LINE_AA
            )
        shade = self._shade(start, end, left, right)
        quads = [Quad(corner, along, across, Texture.from_image(_darkened(picture, shade)))]
        edge = corner if side < 0 else corner + across
        kerb = Texture.from_image(grey(0.8 * self._sheets.cut("concrete", length, 0.25)))
        down = np.array([0, 0, -_KERB_HEIGHT_M - 0.1])
        # Seen from the road: from right to left of the direction of travel on the right side.
        quads.append(Quad(edge, along, down, kerb) if side > 0 else Quad(edge + along, -along, down, kerb))
        return quads

    def _shade(self, start: float, end: float, left_m: float, right_m: float) -> npt.NDArray[np.float32]:
        """Brightness of a piece of ground on a coarse grid: the shadows that the houses cast across the street."""
        s = np.arange(start, end + _SHADOW_GRID_M, _SHADOW_GRID_M)
        offset = np.arange(left_m, right_m, -_SHADOW_GRID_M)[:, None]
        heading = self._course.heading((start + end) / 2)
        forward = float(self._sun.across @ [np.cos(heading), np.sin(heading)])
        leftward = float(self._sun.across @ [-np.sin(heading), np.cos(heading)])
        side = 1 if leftward > 0 else -1
        to_house = np.maximum(side * (side * _FRONT_M - offset), 0) / max(abs(leftward), 0.05)
        houses = self._houses[side]
        over = np.searchsorted([house.start for house in houses], s + to_house * forward, side="right") - 1
        heights = np.array([house.height_m for house in houses])[np.clip(over, 0, len(houses) - 1)]
        dark = heights > to_house * np.tan(_ELEVATION)
        lit = self._sun.light(np.array([0.0, 0, 1]))
        return np.where(dark, np.float32(_AMBIENT), np.float32(lit)).astype(np.float32)

    # What stands on it

    def _fronts(self) -> list[Quad]:
        quads = []
        side_wall = Texture.from_image(self._sheets.cut("dark plaster", 10, 12))
        for side, houses in self._houses.items():
            for house in houses:
                setback = self._rng.uniform(0, 0.5)
                points = [self._course.at(s, side * (_FRONT_M + setback)) for s in (house.start, house.end)]
                left, right = points if side > 0 else points[::-1]
                width = float(np.linalg.norm(right - left))
                picture = facade(self._rng, self._sheets, width, house.height_m)
                front = wall(left, right, house.height_m, Texture.from_image(picture))
                back = -10 * front.normal[:2]
                quads.append(front)
                quads.append(wall(left + back, left, house.height_m, side_wall))
                quads.append(wall(right, right + back, house.height_m, side_wall))
                if width > 8 and self._rng.uniform() < 0.4:
                    quads += self._balcony(front, width)
        end = self._course.length_m - 1
        left, right = (self._course.at(end, 16.0 * side) for side in (1, -1))
        quads.append(wall(left, right, 16, Texture.from_image(facade(self._rng, self._sheets, 32, 16))))
        return quads

    def _balcony(self, front: Quad, width_m: float) -> list[Quad]:
        """A balcony with a slab and a parapet."""
        out = front.normal[:2]
        along = front.right[:2] / width_m
        middle = front.corner[:2] + self._rng.uniform(0.3, 0.7) * front.right[:2] + 0.45 * out
        turn = float(np.degrees(np.arctan2(along[1], along[0])))
        parapet = grey(np.tile(np.where(np.arange(220) % 14 < 6, 60.0, 150.0), (100, 1)))
        parapet[:12] = 45
        return block((*middle, 3.6), (2.4, 0.9, 1.0), turn, [Texture.from_image(parapet)], None)

    def _cars(self) -> list[Quad]:
        """Parked cars with gaps between them."""
        rng = self._rng
        models = [
            [
                Texture.from_image(car_side(rng, 4.3, 0.95, wheels=True)),
                Texture.from_image(car_side(rng, 1.75, 0.95, wheels=False)),
                Texture.from_image(car_top(rng, 2.3, 0.55)),
                Texture.from_image(car_top(rng, 1.5, 0.55)),
                Texture.from_image(grey(np.full((60, 120), rng.uniform(60, 200)) + rng.normal(0, 5, (60, 120)))),
            ]
            for _ in range(9)
        ]
        quads: list[Quad] = []
        for side in (1, -1):
            s = rng.uniform(3, 8)
            while s < self._course.length_m - 8:
                long_side, short_side, cabin, cabin_end, roof = models[rng.integers(len(models))]
                centre = self._course.at(s, side * (_KERB_M - 0.98 + rng.uniform(-0.08, 0.08)))
                turn = np.degrees(self._course.heading(s)) + rng.normal(0, 1.2)
                stretch = rng.uniform(0.92, 1.12)
                quads += block((*centre, 0.0), (4.3 * stretch, 1.75, 0.95), turn, [short_side, long_side], roof)
                quads += block((*centre, 0.95), (2.3 * stretch, 1.5, 0.55), turn, [cabin_end, cabin], roof)
                s += 4.3 * stretch + rng.choice([rng.uniform(0.8, 2.0), rng.uniform(6, 22)], p=[0.6, 0.4])
        return quads

    def _posts(self) -> list[Quad]:
        """Lamp posts, sign posts and bollards at the kerb."""
        rng = self._rng
        metal = Texture.from_image(self._sheets.cut("concrete", 0.6, 5))
        striped = grey(np.where((np.arange(100) // 20) % 2, 205.0, 60.0)[:, None] + np.zeros((100, 20)))
        bollard = Texture.from_image(striped)
        quads: list[Quad] = []
        for side in (1, -1):
            s = rng.uniform(2, 12)
            while s < self._course.length_m - 2:
                centre = self._course.at(s, side * (_KERB_M + rng.uniform(0.35, 0.6)))
                turn = np.degrees(self._course.heading(s))
                kind = rng.integers(3)
                if kind == 0:
                    quads += block((*centre, 0.0), (0.16, 0.16, 5.5), turn, [metal], None)
                    quads += block((*centre, 4.9), (0.3, 0.9, 0.25), turn, [metal], None)
                elif kind == 1:
                    quads += block((*centre, 0.0), (0.08, 0.08, 2.9), turn, [metal], None)
                    sign = Texture.from_image(_sign(rng))
                    quads += block((*centre, 2.0), (0.09, 0.75, 0.9), turn, [sign, metal], None)
                else:
                    for step in range(int(rng.integers(2, 6))):
                        place = self._course.at(s + 1.3 * step, side * (_KERB_M + 0.3))
                        quads += block((*place, 0.0), (0.2, 0.2, 1.1), turn, [bollard], None)
                s += rng.uniform(6, 16)
        return quads

    def _trees(self) -> list[Quad]:
        """Clipped trees: a trunk and a crown of boxes."""
        rng = self._rng
        bark = Texture.from_image(_bark(rng))
        foliage = [Texture.from_image(leaves(rng, 2.6, 2.2)) for _ in range(4)]
        quads: list[Quad] = []
        for side in (1, -1):
            s = rng.uniform(5, 30)
            while s < self._course.length_m - 5:
                centre = self._course.at(s, side * (_KERB_M + 0.9))
                turn = rng.uniform(0, 90)
                crown = [foliage[number] for number in rng.permutation(4)[:2]]
                quads += block((*centre, 0.0), (0.26, 0.26, 2.9), turn, [bark], None)
                for size in (1.0, 0.72):
                    reach = size * rng.uniform(2.0, 2.6, 2)
                    height = rng.uniform(1.7, 2.3) / size
                    quads += block((*centre, 3.9 - height / 2), (*reach, height), turn + 45 / size, crown, crown[0])
                s += rng.uniform(14, 34)
        return quads

    def _boxes(self) -> list[Quad]:
        """Planters with hedges, bins, crates and advertising pillars before the houses."""
        rng = self._rng
        hedge = Texture.from_image(leaves(rng, 1.6, 0.7))
        stone = Texture.from_image(self._sheets.cut("concrete", 1.6, 0.5))
        crate = Texture.from_image(grey(textures.wood(rng, 0.8, 0.7, 2 * PX_PER_M, (160, 124, 82))))
        pane = Texture.from_image(window(rng, 0.6, 1.1))
        quads: list[Quad] = []
        for side in (1, -1):
            s = rng.uniform(2, 12)
            while s < self._course.length_m - 2:
                turn = np.degrees(self._course.heading(s)) + rng.normal(0, 6)
                offset = side * (_FRONT_M - rng.uniform(0.3, 1.0))
                place = self._course.at(s, offset)
                kind = rng.integers(4)
                if kind == 0:
                    quads += block((*place, 0.0), (1.7, 0.6, 0.62), turn, [stone], None)
                    quads += block((*place, 0.62), (1.6, 0.5, 0.7), turn, [hedge], hedge)
                elif kind == 1:
                    quads += block((*place, 0.0), (0.5, 0.5, 1.15), turn, [pane], None)
                elif kind == 2:
                    size = rng.uniform(0.5, 0.9, 3)
                    quads += block((*place, 0.0), (size[0], size[1], size[2] + 0.12), turn, [crate], crate)
                else:
                    posters = [
                        Texture.from_image(grey(textures.poster(rng, 1.1, 2.3, PX_PER_M, int(rng.integers(5)))))
                        for _ in "ab"
                    ]
                    quads += block((*place, 0.1), (1.1, 1.1, 2.6), turn, posters, None)
                s += rng.uniform(5, 18)
        return quads

    def _sky(self) -> Quad:
        (x, y), half = self._course.at(self._course.length_m / 2, 0.0), 6000.0
        texture = Texture.from_image(sky(self._rng))
        return Quad(
            np.array([x - half, y - half, 700]), np.array([2 * half, 0, 0]), np.array([0, 2 * half, 0]), texture
        )


def _darkened(picture: Image, shade: npt.NDArray[np.float32]) -> Image:
    """A picture in the light of the coarse grid `shade`."""
    fine = cv2.resize(shade, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return grey(picture * fine)


def _sign(rng: np.random.Generator) -> Image:
    """A traffic sign or a name board on a plate."""
    picture = np.full((110, 90), rng.choice([60, 120]), np.uint8)
    if rng.uniform() < 0.5:
        cv2.circle(picture, (45, 45), 40, 235, -1, cv2.LINE_AA)
        cv2.circle(picture, (45, 45), 36, 90, 7, cv2.LINE_AA)
        textures.write_text(picture, str(rng.integers(2, 12) * 10), (45, 45), 42, (20.0,), textures.FONTS[1])
    else:
        cv2.rectangle(picture, (4, 8), (85, 80), 225, -1)
        for y in (26, 44, 62):
            textures.write_text(picture, textures.random_word(rng), (45, y), 70, (30.0,), textures.FONTS[1])
    cv2.rectangle(picture, (6, 90), (84, 106), 215, -1)
    textures.write_text(picture, textures.random_word(rng), (45, 98), 60, (30.0,), textures.FONTS[0])
    return picture


def _bark(rng: np.random.Generator) -> Image:
    """Bark: fibres along the trunk."""
    return grey(np.asarray(85 + 26 * cv2.resize(textures.noise_octaves(rng, 60, 40, 8, 4, 0.8), (40, 420)), np.float32))
