"""A room papered with photographs, with boxes in it that are too: real texture with exact depth, for training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, pairwise

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering.camera import FloatArray, look_at, smooth_path
from feature_frontend_lab.rendering.scene import Quad, Scene, TextureMaker, box
from feature_frontend_lab.rendering.textures import Texture

__all__ = ["photograph_scene"]

Image = npt.NDArray[np.uint8]

_LENGTH_M, _WIDTH_M, _HEIGHT_M = 9.0, 7.0, 3.2
_PX_PER_M = 260.0
_PANEL_M = (1.4, 2.8)  # range of the width of a photograph on a wall
_BOXES = 12
_BOX_M = ((0.4, 0.3, 0.4), (1.3, 0.9, 2.2))  # smallest and largest length, depth, height
_AISLE_M = 0.8  # of this half width around the path, no box stands
_TRIES = 200


def photograph_scene(photographs: Sequence[Image], seed: int, poses: int) -> tuple[Scene, list[FloatArray]]:
    """A closed room of 9 m x 7 m x 3.2 m, and a walk through it.

    Args:
        photographs: (H, W, 3) uint8 RGB each; which hang where is random.
        seed: Of everything random.
        poses: Number of poses.

    Returns:
        The scene, and (4, 4) poses, camera to world, m.
    """
    rng = np.random.default_rng(seed)
    path = smooth_path(_in_room(rng, 6, 1.2, (1.0, 2.0)), poses)
    targets = smooth_path(_in_room(rng, 6, 0.2, (0.6, 2.4)), poses)
    make = _maker(photographs, rng)
    return Scene((*_shell(make, rng), *_boxes(make, rng, path))), [
        look_at(position.tolist(), _apart(position, target).tolist())
        for position, target in zip(path, targets, strict=True)
    ]


def _in_room(rng: np.random.Generator, count: int, margin_m: float, heights_m: tuple[float, float]) -> FloatArray:
    low = [margin_m, margin_m, heights_m[0]]
    high = [_LENGTH_M - margin_m, _WIDTH_M - margin_m, heights_m[1]]
    return rng.uniform(low, high, (count, 3))


def _apart(position: FloatArray, target: FloatArray) -> FloatArray:
    """The target, or a place before the camera if it is so near that the view would whirl around it."""
    offset = target - position
    distance = float(np.hypot(*offset[:2]))
    return target if distance > 1 else position + offset / max(distance, 0.1) * [1, 1, 0.3] + [1e-3, 0, 0]


def _maker(photographs: Sequence[Image], rng: np.random.Generator) -> TextureMaker:
    # Each comes once before any comes twice: places that look the same cannot be told apart.
    deck = cycle(rng.permutation(len(photographs)))

    def make(width_m: float, height_m: float) -> Texture:
        """A part of the next photograph, brightened or darkened as by another lamp."""
        photograph = photographs[next(deck)]
        rows, columns = photograph.shape[:2]
        scale = min(columns / width_m, rows / height_m) * rng.uniform(0.6, 1.0)
        part_width, part_height = max(round(width_m * scale), 1), max(round(height_m * scale), 1)
        x = int(rng.integers(columns - min(part_width, columns) + 1))
        y = int(rng.integers(rows - min(part_height, rows) + 1))
        part = photograph[y : y + part_height, x : x + part_width]
        size = max(round(width_m * _PX_PER_M), 2), max(round(height_m * _PX_PER_M), 2)
        is_smaller = size[0] < part.shape[1]
        resized = cv2.resize(part, size, interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR)
        lit = np.clip(resized.astype(np.float32) * np.float32(rng.uniform(0.7, 1.2)), 0, 255)
        return Texture.from_image(lit.astype(np.uint8))

    return make


def _shell(make: TextureMaker, rng: np.random.Generator) -> list[Quad]:
    """Floor, ceiling and walls, in panels."""
    length, width, up = np.array([_LENGTH_M, 0, 0]), np.array([0, _WIDTH_M, 0]), np.array([0, 0, _HEIGHT_M])
    origin = np.zeros(3)
    # Each by the top left corner as seen from inside, and the edges from there to the right and down.
    sides = (
        (width + up, length, -up),
        (length + up, -length, -up),
        (up, width, -up),
        (length + width + up, -width, -up),
        (width, length, -width),
        (origin + up, length, width),
    )
    quads = []
    for corner, right, down in sides:
        total = float(np.linalg.norm(right))
        ends = [0.0]
        while total - ends[-1] > _PANEL_M[1]:
            ends.append(ends[-1] + rng.uniform(*_PANEL_M))
        ends.append(total)
        for begin, end in pairwise(ends):
            part = right * (end - begin) / total
            texture = make(end - begin, float(np.linalg.norm(down)))
            quads.append(Quad(corner + right * begin / total, part, down, texture))
    return quads


def _boxes(make: TextureMaker, rng: np.random.Generator, path: FloatArray) -> list[Quad]:
    quads: list[Quad] = []
    placed = 0
    for _ in range(_TRIES):
        size = rng.uniform(*_BOX_M)
        reach = float(np.hypot(size[0], size[1])) / 2
        x, y = rng.uniform([reach, reach], [_LENGTH_M - reach, _WIDTH_M - reach])
        if placed < _BOXES and float(np.hypot(*(path[:, :2] - [x, y]).T).min()) > reach + _AISLE_M / 2:
            # Some hang in the air: occlusions at all heights.
            bottom = rng.uniform(0, _HEIGHT_M - size[2]) if rng.random() < 0.5 else 0.0
            quads += box((x, y, bottom), size.tolist(), make, rng.uniform(0, 180))
            placed += 1
    return quads
