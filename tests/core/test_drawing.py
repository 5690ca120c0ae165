"""Drawings: what they contain where, and that the input is unchanged."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.image.drawing import (
    TrackTrails,
    age_colours,
    draw_caption,
    draw_tracks,
    to_rgb,
)
from feature_frontend_lab.demo.pictures import picture_strip


def grey_image(height: int = 60, width: int = 80) -> npt.NDArray[np.uint8]:
    return np.full((height, width), 90, np.uint8)


def test_grey_becomes_rgb_and_rgb_is_copied() -> None:
    assert to_rgb(grey_image()).shape == (60, 80, 3)
    colour = to_rgb(grey_image())
    copy = to_rgb(colour)
    copy[:] = 0
    assert (colour == 90).all()


def test_a_drawing_follows_parts_of_a_pixel() -> None:
    weights = []
    for x in (30.0, 30.5):
        drawn = draw_tracks(np.zeros((60, 80), np.uint8), [np.array([[x, 30.0]])], np.array([30]))
        columns = drawn[..., 0].sum(axis=0).astype(float)
        weights.append(columns @ np.arange(80) / columns.sum())
    assert weights[0] == pytest.approx(30.0, abs=0.1)
    assert weights[1] == pytest.approx(30.5, abs=0.1)


def test_ages_go_from_blue_to_red() -> None:
    colours = age_colours(np.array([1, 5, 15, 30, 100]), oldest=30).astype(int)
    assert colours.shape == (5, 3)
    np.testing.assert_array_equal(colours[3], colours[4])
    assert colours[0].argmax() == 2, "a new track is blue"
    assert colours[2].argmax() == 1, "one in between is green"
    assert colours[3].argmax() == 0, "an old one is red"
    assert colours.max(axis=1).min() > 150, "all of them can be seen on a dark image"


def test_trails_follow_ids_forget_the_lost_and_stay_short() -> None:
    trails = TrackTrails(length=3)
    assert [trail.tolist() for trail in trails.update(np.array([7, 9]), np.array([[0.0, 0], [5, 5]]))] == [
        [[0, 0]],
        [[5, 5]],
    ]
    second = trails.update(np.array([9, 11]), np.array([[6.0, 5], [1, 1]]))
    assert [trail.tolist() for trail in second] == [[[5, 5], [6, 5]], [[1, 1]]]
    for x in (7.0, 8.0):
        last = trails.update(np.array([9], np.uint64), np.array([[x, 5]], np.float32))
    assert last[0].tolist() == [[6, 5], [7, 5], [8, 5]]
    assert trails.update(np.array([7]), np.array([[1.0, 1]]))[0].tolist() == [[1, 1]]


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_tracks_are_drawn_along_their_trails(scale: float) -> None:
    trails = [np.array([[10.0, 30.0], [40.0, 30.0]]), np.array([[60.0, 10.0]])]
    drawn = draw_tracks(grey_image(), trails, np.array([30, 1]), oldest=30, scale=scale)
    assert drawn.shape == (60 * scale, 80 * scale, 3)
    old, new = age_colours(np.array([30, 1]), 30).astype(int)

    def at(x: float, y: float) -> npt.NDArray[np.int64]:
        return drawn[round((y + 0.5) * scale - 0.5), round((x + 0.5) * scale - 0.5)].astype(int)

    np.testing.assert_allclose(at(40, 30), old, atol=2)
    np.testing.assert_allclose(at(60, 10), new, atol=2)
    np.testing.assert_allclose(at(25, 30), old, atol=110)
    assert at(25, 30)[0] > 100, "the trail is bright"
    assert (at(25, 50) < 90).all(), "the image is dimmed"


def test_no_tracks_leave_the_dimmed_image() -> None:
    drawn = draw_tracks(grey_image(), [], np.zeros(0, np.uint32))
    assert (drawn == drawn[0, 0]).all()


def test_caption_covers_the_lower_edge_only() -> None:
    image = to_rgb(grey_image(100, 300))
    drawn = draw_caption(image, "frame 7", scale=1.0)
    np.testing.assert_array_equal(drawn[:72], image[:72])
    assert drawn[72:].max() > 200
    assert drawn[72:].min() < 30


def test_strip_holds_the_pictures_unchanged_in_reading_order() -> None:
    pictures = [np.full((60, 80, 3), 10 * index + 5, np.uint8) for index in range(5)]
    strip = picture_strip(pictures, "title", "subtitle", oldest=20, columns=3, gap_px=4)
    assert strip.shape[1] == 3 * 80 + 4 * 4
    header = strip.shape[0] - 2 * 64
    assert header > 20
    for index, picture in enumerate(pictures):
        top, left = header + index // 3 * 64, 4 + index % 3 * 84
        np.testing.assert_array_equal(strip[top : top + 60, left : left + 80], picture)
    assert strip[: header - 1].std() > 5, "there is a title and a legend"


def test_an_empty_strip_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0 pictures.* at least 1"):
        picture_strip([], "title", "subtitle", oldest=10)
