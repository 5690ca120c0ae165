"""Lucas-Kanade and chained ORB on images that move by a known step."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend_lab.evaluation.tracks.baselines import LucasKanadeSequence, OrbSequence, SequenceFrontend
from feature_frontend_lab.evaluation.tracks.metrics import fraction_alive, pairs_at

Image = npt.NDArray[np.uint8]
STEP_PX = np.array([6, 3])


@pytest.fixture
def moving(photographs: list[Image]) -> list[Image]:
    """Four windows of one photograph, each 6 px further to the right and 3 px further down."""
    return [photographs[0][3 * n : 400 + 3 * n, 6 * n : 560 + 6 * n] for n in range(4)]


# ORB rounds positions to the pixels of its pyramid's levels.
@pytest.mark.parametrize(
    ("frontend", "error_px"), [(LucasKanadeSequence(300), 0.1), (OrbSequence(300), 1.0)], ids=["lk", "orb"]
)
def test_points_are_followed_to_where_they_went(
    frontend: SequenceFrontend, error_px: float, moving: list[Image]
) -> None:
    results = [frontend.process(image, n * 10**8) for n, image in enumerate(moving)]
    tracks = [result.tracks for result in results]
    for earlier, later in pairwise(tracks):
        assert 0 < len(later) <= 300
        assert len(np.unique(later.ids)) == len(later)
        followed = later.ages > 1
        assert set(later.ids[followed].tolist()) == set(later.ids.tolist()) & set(earlier.ids.tolist())
        # Image n + 1 begins 6 px further right, so what it shows has moved to the left.
        np.testing.assert_allclose(np.median(later.velocities[followed], axis=0), -STEP_PX / 0.1, atol=2)
    for _, points0, points1 in pairs_at(tracks, 1):
        assert np.median(np.linalg.norm(points1 - points0 + STEP_PX, axis=1)) < error_px
    assert fraction_alive(tracks, (1,))[1] > 0.6
    assert len(results[-1].found.points) == len(tracks[-1])


def test_detections_go_beyond_the_budget(photographs: list[Image]) -> None:
    frontend = LucasKanadeSequence(100)
    frontend.process(photographs[0], 0)
    found = frontend.detect(photographs[0])
    assert len(found.points) == 400
    assert found.in_budget.sum() == 100
    np.testing.assert_allclose(
        found.points[found.in_budget], frontend.process(photographs[0], 1).tracks.keypoints, atol=0.1
    )


def test_lucas_kanade_lets_go_of_what_is_not_there(moving: list[Image], photographs: list[Image]) -> None:
    frontend = LucasKanadeSequence(300)
    frontend.process(moving[0], 0)
    unrelated = np.ascontiguousarray(photographs[0][400:0:-1, 560:0:-1])
    tracks = frontend.process(unrelated, 1).tracks
    assert (tracks.ages > 1).mean() < 0.05
    assert tracks.ids.min() > 1
    assert len(frontend.process(np.zeros_like(unrelated), 2).tracks) == 0
    assert frontend.process(unrelated, 3).tracks.ids.min() > tracks.ids.max()


@pytest.mark.parametrize("frontend", [LucasKanadeSequence(10), OrbSequence(10)], ids=["lk", "orb"])
def test_a_blank_image_gives_nothing(frontend: SequenceFrontend) -> None:
    for stamp_ns in (0, 1):
        assert len(frontend.process(np.full((100, 120), 128, np.uint8), stamp_ns).tracks) == 0
    assert len(frontend.detect(np.full((100, 120), 128, np.uint8)).points) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sequence", "expected"), [("tum_fr2_desk", (0.91, 0.87, 0.80, 0.73)), ("kitti00", (0.74, 0.65, 0.47, 0.27))]
)
def test_lucas_kanade_is_as_good_as_measured_before(shared: Path, sequence: str, expected: tuple[float, ...]) -> None:
    frontend = LucasKanadeSequence(1000)
    files = sorted((shared / "data" / sequence).glob("*.png"))
    images = [np.asarray(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), np.uint8) for file in files]
    alive = fraction_alive([frontend.process(image, n).tracks for n, image in enumerate(images)])
    np.testing.assert_allclose(list(alive.values()), expected, atol=0.015)
