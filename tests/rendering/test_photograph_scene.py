"""Rooms papered with photographs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering import Camera, render, render_depth, reproject
from feature_frontend_lab.rendering.photograph_scene import photograph_scene

Uint8Array = npt.NDArray[np.uint8]
_CAMERA = Camera.with_field_of_view(70, height=60, width=80)


def _plain(count: int) -> list[Uint8Array]:
    """Photographs of one colour each."""
    return [np.full((90, 120, 3), 40 + number, np.uint8) for number in range(count)]


def test_the_room_is_closed_and_the_walk_stays_inside() -> None:
    scene, poses = photograph_scene(_plain(4), seed=0, poses=30)
    assert len(poses) == 30
    depths = np.stack([render_depth(scene, _CAMERA, pose) for pose in poses])
    assert depths.min() > 0.05
    assert depths.max() < np.hypot(np.hypot(9, 7), 3.2)
    # Parallax: near and far in one view.
    assert np.median(depths.max(axis=(1, 2)) / depths.min(axis=(1, 2))) > 2


def test_neighbouring_views_overlap() -> None:
    scene, poses = photograph_scene(_plain(4), seed=1, poses=40)
    grid = np.stack(np.meshgrid(np.arange(0, 80, 8), np.arange(0, 60, 8)), axis=-1).reshape(-1, 2)
    shares = []
    for pose0, pose1 in zip(poses[:-1:4], poses[1::4], strict=True):
        depth0, depth1 = (render_depth(scene, _CAMERA, pose) for pose in (pose0, pose1))
        shares.append(reproject(grid, depth0, pose0, pose1, _CAMERA, depth1).visible.mean())
    assert np.median(shares) > 0.5


def test_no_photograph_hangs_twice_while_another_does_not_hang() -> None:
    light, dark = np.full((90, 120, 3), 100, np.uint8), np.full((90, 120, 3), 10, np.uint8)
    scene, _ = photograph_scene([light, dark], seed=0, poses=10)
    assert len(scene.quads) > 40
    bright = [int(quad.texture.levels[0][0, 0, 0]) > 60 for quad in scene.quads]
    assert abs(sum(bright) - len(bright) / 2) <= 1


def test_a_seed_gives_a_room(photographs: list[Uint8Array]) -> None:
    pictures = []
    for seed in (0, 0, 1):
        scene, poses = photograph_scene(photographs, seed, 5)
        pictures.append(render(scene, _CAMERA, poses[2], supersampling=1).image)
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])
    assert pictures[0].std() > 10
