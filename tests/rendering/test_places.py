"""The places of the rendered flights, and the grey renderer that draws them, compared with the plain one."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend_lab.rendering import (
    Camera,
    GreyScene,
    Scene,
    indoor_scene,
    look_at,
    render,
    reproject,
    street_textures,
)
from feature_frontend_lab.rendering.corridor_scene import corridor_along
from feature_frontend_lab.rendering.course import Course
from feature_frontend_lab.rendering.indoor_scene import hall_around
from feature_frontend_lab.rendering.street_scene import street_along

CAMERA = Camera.with_field_of_view(75, 240, 320)
HALL_PATH = np.column_stack([np.linspace(2, 18, 40), 2.5 * np.sin(np.linspace(0, 6, 40)), np.full(40, 1.6)])
ROAD = np.column_stack([np.linspace(0, 20, 41), 0.01 * np.linspace(0, 20, 41) ** 2, np.full(41, 1.5)])
PLACES = {
    "hall": (hall_around, HALL_PATH, True),
    "street": (street_along, ROAD, False),
    "corridor": (corridor_along, ROAD * [1, 1, 0.7], True),
}


def poses_along(path: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    return [look_at(path[index], path[index] + 3 * (path[index + 1] - path[index])) for index in (5, 6, 30)]


def build(
    make: Callable[[npt.NDArray[np.float64], np.random.Generator], Scene], path: npt.NDArray[np.float64]
) -> Scene:
    return make(path, np.random.default_rng(1))


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Textures that are painted faster: smaller sheets, a hall at a third of its resolution."""
    make = indoor_scene._maker
    monkeypatch.setattr(street_textures, "_SHEET_M", 5.0)
    monkeypatch.setattr(
        indoor_scene, "_maker", lambda rng, paint, density, colour: make(rng, paint, density / 3, colour)
    )


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("name", PLACES)
def test_a_place_is_clear_of_its_path_and_looks_as_its_depth_says(name: str) -> None:
    make, path, closed = PLACES[name]
    scene = build(make, path)
    grey = GreyScene(scene)
    poses = poses_along(path)
    images, depths = [], []
    for pose in poses:
        light, inverse_depth = grey.render(CAMERA, pose)
        plain = render(scene, CAMERA, pose)
        # Which surface is where, exactly; its brightness up to the filter.
        depth = grey.depth(CAMERA, pose)
        np.testing.assert_array_equal(depth, plain.depth)
        assert depth[depth > 0].min() > 0.5
        assert (depth > 0).all() or not closed
        luma = cv2.cvtColor(plain.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        assert abs(float((light - luma).mean())) < 0.7
        assert np.corrcoef(light.ravel(), luma.ravel())[0, 1] > 0.98
        smooth = np.abs(inverse_depth * depth - 1) < 0.01
        assert smooth.mean() > 0.85
        images.append(light)
        depths.append(depth)
    corners = cv2.goodFeaturesToTrack(images[0].astype(np.uint8), 400, 0.01, 5).reshape(-1, 2)
    assert len(corners) > 250
    there = reproject(corners, depths[0], poses[0], poses[1], CAMERA, depths[1])
    assert there.visible.mean() > 0.6
    before, after, beside = (
        cv2.remap(image, at.astype(np.float32)[None], None, cv2.INTER_LINEAR)[0]
        for image, at in (
            (images[0], corners[there.visible]),
            (images[1], there.points[there.visible]),
            (images[1], there.points[there.visible] + 2.0),
        )
    )
    assert np.median(np.abs(before - after)) < np.median(np.abs(before - beside)) / 2


def test_a_course_runs_beside_its_path() -> None:
    angle = np.linspace(0, np.pi / 2, 200)
    path = 50 * np.column_stack([np.sin(angle), 1 - np.cos(angle)])  # a left turn around (0, 50)
    course = Course(path, left_m=2.0, before_m=10, after_m=20)
    assert course.length_m == pytest.approx(10 + 50 * np.pi / 2 + 20, abs=1)
    for s in (20.0, 40.0, 70.0):
        assert np.hypot(*(course.at(s, 0.0) - [0, 50])) == pytest.approx(48, abs=0.1)
        assert np.hypot(*(course.at(s, -5.0) - [0, 50])) == pytest.approx(53, abs=0.1)
        end = course.after(s, 3.0, 4.0)
        assert np.linalg.norm(course.at(end, 3.0) - course.at(s, 3.0)) == pytest.approx(4.0, abs=0.15)
    pieces = list(course.pieces())
    assert pieces[0][0] == 0
    assert pieces[-1][1] == course.length_m
    for (start, end), (following, _) in itertools.pairwise(pieces):
        assert end == following
        assert abs(course.heading(end) - course.heading(start)) < np.radians(6.1)
        corner, along, across = course.strip(start, end, 3.0, -3.0, 0.1)
        covered = np.linalg.solve(
            np.column_stack([along[:2], across[:2]]),
            np.column_stack([course.at(s, left) - corner[:2] for s in (start, end) for left in (3, -3)]),
        )
        assert covered.min() > -0.06
        assert covered.max() < 1.06
        assert np.cross(across, along)[2] > 0, "seen from above"
