"""A corridor along a path: walls with doors and posters, tiles, lamps, pipes, cabinets and crates."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering import textures
from feature_frontend_lab.rendering.camera import FloatArray
from feature_frontend_lab.rendering.course import Course
from feature_frontend_lab.rendering.scene import Quad, Scene, block, wall
from feature_frontend_lab.rendering.street_textures import PX_PER_M, Sheets, grey, hang_poster, window
from feature_frontend_lab.rendering.textures import Texture

__all__ = ["corridor_along"]

Image = npt.NDArray[np.uint8]

_PATH_M, _WALL_M, _HEIGHT_M = 0.4, 2.1, 2.9
_STAGGER_M = 0.004
_LAMP_EVERY_M = 4.0
_BEFORE_M, _AFTER_M = 8.0, 45.0


def corridor_along(path: FloatArray, rng: np.random.Generator) -> Scene:
    """A corridor of 4.2 m x 2.9 m around `path` (N, 3), m, z up from the floor."""
    course = Course(path, _PATH_M, _BEFORE_M, _AFTER_M)
    return Scene(_Corridor(course, rng).quads())


class _Corridor:
    def __init__(self, course: Course, rng: np.random.Generator) -> None:
        self._course, self._rng = course, rng
        self._sheets = Sheets(rng)

    def quads(self) -> tuple[Quad, ...]:
        return (*self._floor_and_ceiling(), *self._walls(), *self._pipes(), *self._things(), *self._end())

    def _light(self, picture: Image, left: float, right: float) -> Texture:
        """The picture, brightest under the lamps; its edges are at `left` and `right` of the course."""
        s = np.linspace(left, right, picture.shape[1])
        return Texture.from_image(grey(picture * (0.84 + 0.16 * np.cos(2 * np.pi * s / _LAMP_EVERY_M))))

    def _floor_and_ceiling(self) -> list[Quad]:
        quads = []
        for number, (start, end) in enumerate(self._course.pieces()):
            below = _STAGGER_M * (number % 2)
            reach = _WALL_M + 0.5
            corner, along, across = self._course.strip(start, end, reach, -reach, -below)
            length = float(np.linalg.norm(along))
            quads.append(Quad(corner, along, across, self._light(self._floor(length, 2 * reach), start, end)))
            corner, along, across = self._course.strip(start, end, reach, -reach, _HEIGHT_M + below)
            ceiling = self._light(self._ceiling(start, length, 2 * reach), start, end)
            quads.append(Quad(corner + across, along, -across, ceiling))
        return quads

    def _floor(self, length_m: float, width_m: float) -> Image:
        picture = self._sheets.cut("floor", length_m, width_m)
        for _ in range(int(self._rng.poisson(length_m * 1.5))):  # scuffs
            x, y = int(self._rng.integers(picture.shape[1])), int(self._rng.integers(picture.shape[0]))
            tip = (x + int(self._rng.normal(0, 30)), y + int(self._rng.normal(0, 8)))
            cv2.line(picture, (x, y), tip, float(self._rng.uniform(50, 90)), int(self._rng.integers(1, 4)), cv2.LINE_AA)
        for offset in (0.7, width_m - 0.75):
            stripe = slice(round(offset * PX_PER_M), round((offset + 0.05) * PX_PER_M))
            picture[stripe] = (picture[stripe] * 0.4 + 20).astype(np.uint8)
        return picture

    def _ceiling(self, start: float, length_m: float, width_m: float) -> Image:
        picture = self._sheets.cut("panels", length_m, width_m)
        middle = picture.shape[0] // 2
        first = -(start % _LAMP_EVERY_M)
        for s in np.arange(first, length_m, _LAMP_EVERY_M):
            left, right = (round((s + reach) * PX_PER_M) for reach in (-0.6, 0.6))
            cv2.rectangle(picture, (left, middle - 18), (right, middle + 18), 255, -1)
            cv2.rectangle(picture, (left, middle - 18), (right, middle + 18), 120, 3)
        return picture

    def _walls(self) -> list[Quad]:
        quads = []
        for side in (1, -1):
            start = 0.0
            while start < self._course.length_m - 0.5:
                heading = self._course.heading
                turning = abs(heading(min(start + 3, self._course.length_m)) - heading(start))
                longest = 1.4 if turning > np.radians(8) else 4.5
                end = self._course.after(start, side * _WALL_M, self._rng.uniform(0.7, 1) * longest)
                points = [self._course.at(s, side * _WALL_M) for s in (start, end)]
                left, right = points if side > 0 else points[::-1]
                width = float(np.linalg.norm(right - left))
                picture = self._wall(width)
                lit = self._light(picture, start, end) if side > 0 else self._light(picture, end, start)
                quads.append(wall(left, right, _HEIGHT_M, lit))
                start = end
        return quads

    def _wall(self, width_m: float) -> Image:
        rng = self._rng
        material = str(rng.choice(["pale plaster", "pale plaster", "concrete", "pale brick", "red brick"]))
        image = self._sheets.cut(material, width_m, _HEIGHT_M)
        height, width = image.shape
        dado = image[height - round(1.1 * PX_PER_M) :]
        dado[:] = (dado * 0.72).astype(np.uint8)
        dado[:4] = 60
        image[height - 12 :] = 45
        kind = rng.integers(5)
        if kind == 0 and width_m > 1.3:
            self._door(image)
        elif kind == 1 and width_m > 2.2:
            pane = window(rng, rng.uniform(1.0, 1.6), 1.1)
            left = int(rng.integers(10, width - pane.shape[1] - 10))
            image[90 : 90 + pane.shape[0], left : left + pane.shape[1]] = pane
        else:
            for _ in range(int(rng.integers(0, 1 + round(1.4 * width_m)))):
                hang_poster(rng, image, 2.3)
        return image

    def _door(self, image: Image) -> None:
        """A door with its number, a handle, sometimes a pane."""
        rng, height = self._rng, image.shape[0]
        left = int(rng.integers(15, image.shape[1] - 115))
        door = image[height - 232 : height - 4, left : left + 100]
        tone = rng.uniform(70, 190)
        door[:] = grey(tone + 5 * textures.noise_octaves(rng, door.shape[0], door.shape[1], 50, 6, 0.7))
        cv2.rectangle(door, (0, 0), (99, 227), float(tone * 0.45), 6)
        cv2.rectangle(door, (82, 118), (92, 124), 230, -1)
        if rng.uniform() < 0.5:
            door[35:100, 28:72] = window(rng, 0.4, 0.6)[:65, :44]
        number = f"{rng.integers(1, 5)}.{rng.integers(10, 99)}"
        cv2.rectangle(image, (left + 102, height - 180), (left + 114, height - 150), 235, -1)
        textures.write_text(door, number, (50, 20), 46, (235.0 if tone < 130 else 25.0,), textures.FONTS[1])

    def _pipes(self) -> list[Quad]:
        """Pipes and a cable duct under the ceiling, in pieces along the walls."""
        rng = self._rng
        metal = self._sheets.cut("concrete", 4.0, 0.3)
        quads: list[Quad] = []
        for side, offset, height, size in ((1, 1.85, 2.45, 0.16), (-1, 1.75, 2.55, 0.26), (1, 1.55, 2.6, 0.1)):
            start = 0.0
            while start < self._course.length_m - 0.5:
                end = self._course.after(start, side * offset, 2.0)
                points = [self._course.at(s, side * offset) for s in (start, end)]
                length = float(np.linalg.norm(points[1] - points[0]))
                turn = np.degrees(np.arctan2(*(points[1] - points[0])[::-1]))
                picture = metal.copy()
                for x in range(0, picture.shape[1], int(rng.integers(60, 140))):
                    picture[:, x : x + 8] = int(rng.choice([50, 215]))
                texture = Texture.from_image(picture)
                # The lower side, which `block` has not, is seen from the path.
                centre = (points[0] + points[1]) / 2
                forward, leftward = (
                    (points[1] - points[0]) / length,
                    np.array([-1, 1]) * (points[1] - points[0])[::-1] / length,
                )
                quads += block((*centre, height), (length, size, size), turn, [texture], None)
                corner = np.array([*centre - forward * length / 2 - leftward * size / 2, height])
                quads.append(Quad(corner, np.array([*forward * length, 0]), np.array([*leftward * size, 0]), texture))
                start = end
        return quads

    def _things(self) -> list[Quad]:
        """Cabinets, crates, bins and half pillars along the walls."""
        rng = self._rng
        crates = [
            Texture.from_image(grey(textures.wood(rng, 0.7, 0.6, 2 * PX_PER_M, (164, 128, 88)))) for _ in range(3)
        ]
        quads: list[Quad] = []
        for side in (1, -1):
            s = rng.uniform(1, 6)
            while s < self._course.length_m - 2:
                turn = np.degrees(self._course.heading(s))
                kind = rng.integers(4)
                if kind == 0:
                    size = (rng.uniform(0.8, 1.4), 0.45, rng.uniform(0.9, 2.0))
                    front = self._cabinet(size[0], size[2])
                    quads += block((*self._course.at(s, side * (_WALL_M - 0.24)), 0.0), size, turn, [front], front)
                elif kind == 1:
                    crate = crates[rng.integers(3)]
                    size = tuple(rng.uniform(0.35, 0.7, 3))
                    place = self._course.at(s, side * (_WALL_M - 0.5))
                    quads += block((*place, 0.0), size, turn + rng.normal(0, 12), [crate], crate)
                    if rng.uniform() < 0.5:
                        upper = (0.8 * size[0], 0.8 * size[1], size[2])
                        quads += block((*place, size[2]), upper, turn + rng.normal(0, 20), [crate], crate)
                elif kind == 2:
                    pillar = Texture.from_image(self._sheets.cut("concrete", 0.5, _HEIGHT_M))
                    size = (0.5, 0.35, _HEIGHT_M)
                    quads += block((*self._course.at(s, side * (_WALL_M - 0.1)), 0.0), size, turn, [pillar], None)
                else:
                    red = Texture.from_image(self._sheets.cut("dark plaster", 0.3, 0.6))
                    place = self._course.at(s, side * (_WALL_M - 0.12))
                    quads += block((*place, 0.9), (0.18, 0.2, 0.5), turn, [red], red)
                s += rng.uniform(1.6, 6.0)
        return quads

    def _cabinet(self, width_m: float, height_m: float) -> Texture:
        """The front of a cabinet: two doors, a label, handles."""
        rng, height, width = self._rng, round(height_m * PX_PER_M), round(width_m * PX_PER_M)
        tone = rng.uniform(90, 190)
        picture = grey(tone + 5 * textures.noise_octaves(rng, height, width, 60, 7, 0.7))
        cv2.rectangle(picture, (0, 0), (width - 1, height - 1), float(tone * 0.5), 5)
        cv2.line(picture, (width // 2, 0), (width // 2, height), float(tone * 0.4), 3)
        for x in (width // 2 - 12, width // 2 + 8):
            cv2.rectangle(picture, (x, height // 2 - 14), (x + 4, height // 2 + 14), 225, -1)
        cv2.rectangle(picture, (12, 14), (width // 2 - 12, 44), 225, -1)
        textures.write_text(
            picture, textures.random_word(rng), (width // 4, 29), 0.32 * width, (30.0,), textures.FONTS[0]
        )
        return Texture.from_image(picture)

    def _end(self) -> list[Quad]:
        """The walls that close the corridor."""
        far = self._course.length_m - 0.6
        left, right = (self._course.at(far, side * 3.0) for side in (1, -1))
        return [wall(left, right, _HEIGHT_M, Texture.from_image(self._wall(6.0)))]
