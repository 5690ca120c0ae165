"""The persistent tracker where near points move otherwise than what surrounds them in the image."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.settings import Settings
from feature_frontend.types import Tracks

Uint8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

_HEIGHT, _WIDTH = 240, 320
_COUNT, _SIDE = 40, 17
_FAR_PX = 1  # a frame, to the left
_SETTINGS = Settings(
    extractor="silk-vggnp-mu", device="cpu", compile=False, max_num_keypoints=400, tracker="persistent"
)


def _texture(seed: int, height: int, width: int, grain_px: float) -> FloatArray:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(0.0, 1.0, (height, width)), (0, 0), grain_px)
    return np.asarray(noise / noise.std() * 40 + 120, np.float64)


def _leaves() -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Left and top of each near leaf in the first image, and how far it moves to the left in a frame; farthest first.

    No two neighbours are at one depth.
    """
    generator = np.random.default_rng(2)
    columns, rows = np.meshgrid(np.arange(8), np.arange(5))
    corners = np.column_stack([54 + 33 * columns.ravel(), 12 + 46 * rows.ravel()]) + generator.integers(
        0, 8, (_COUNT, 2)
    )
    steps = generator.permutation(np.linspace(4, 13, _COUNT).round().astype(int))
    order = np.argsort(steps)
    return corners[order].astype(np.float64), steps[order]


def _images(count: int) -> list[Uint8Array]:
    """A camera that moves to the right past leaves that hang before a distant view."""
    view = _texture(0, _HEIGHT, _WIDTH + 20, 2.5)
    corners, steps = _leaves()
    images = []
    for number in range(count):
        image = view[:, _FAR_PX * number :][:, :_WIDTH].copy()
        for seed, ((x, y), step) in enumerate(zip(corners.astype(int).tolist(), steps.tolist(), strict=True)):
            left = x - step * number
            image[y : y + _SIDE, left : left + _SIDE] = _texture(10 + seed, _SIDE, _SIDE, 1.6)
        noisy = image + np.random.default_rng(number).normal(0.0, 2.0, image.shape)
        images.append(noisy.clip(0, 255).astype(np.uint8))
    return images


def _run(images: list[Uint8Array]) -> list[Tracks]:
    frontend = Frontend.from_pretrained(_SETTINGS)
    return [frontend.process(image, number * 100_000_000).tracks for number, image in enumerate(images)]


def _lives(tracks: list[Tracks]) -> tuple[float, float]:
    """Of the points on leaves, the fraction that is seen in the next image, and of these the fraction that is true."""
    corners, steps = _leaves()
    alive, true = [], []
    for number in range(1, len(tracks) - 1):
        earlier, later = tracks[number], tracks[number + 1]
        for corner, step in zip(corners, steps.tolist(), strict=True):
            offsets = earlier.keypoints - (corner - [step * number, 0.0])
            is_inner = ((offsets >= 4) & (offsets <= _SIDE - 5)).all(axis=1)
            _, rows0, rows1 = np.intersect1d(earlier.ids[is_inner], later.ids, return_indices=True)
            moved = later.keypoints[rows1] - earlier.keypoints[is_inner][rows0]
            alive += np.isin(earlier.ids[is_inner], later.ids).tolist()
            true += (np.linalg.norm(moved - [-step, 0.0], axis=1) <= 1.5).tolist()
    assert len(alive) > 50
    return float(np.mean(alive)), float(np.mean(true))


def test_near_points_live_where_their_neighbours_move_otherwise() -> None:
    alive, true = _lives(_run(_images(5)))
    assert alive > 0.75
    assert true > 0.95
