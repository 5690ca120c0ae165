"""Selection by mask, grid and budget, compared with a literal version of the rule."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend import Features, load_extractor, load_matcher
from feature_frontend.extractors.base import DetectionOptions, GridOptions
from feature_frontend.extractors.networks.layers.keypoint_detection import suppress_non_maxima, zero_border
from feature_frontend.extractors.networks.layers.selection import (
    lie_on_allowed,
    select_candidates,
    select_padded_points,
    select_points,
)
from tests.campaign import Campaign
from tests.core.seeded import seeded_network

Uint8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Candidate = tuple[float, int, int]  # score, row, column
_DISTRIBUTIONS: dict[str, dict[str, str | float]] = {
    "none": {},
    "grid": {"distribution": "grid"},
    "grid with slack 1.5": {"distribution": "grid", "grid_slack": 1.5},
}


class _Rule:
    """The rule of `layers.selection`, candidate by candidate."""

    def __init__(self, scores: FloatArray, options: DetectionOptions) -> None:
        assert options.grid is not None
        self._grid = options.grid
        self._shape = scores.shape
        budget = min(options.max_num_keypoints, scores.size)
        self.quota = math.ceil(self._grid.slack * budget / (self._grid.rows * self._grid.columns))
        pixels = zip(*np.nonzero(scores > options.detection_threshold), strict=True)
        candidates = [(float(scores[row, column]), int(row), int(column)) for row, column in pixels]
        candidates.sort(key=lambda candidate: -candidate[0])
        self.candidates_of_cell = self.by_cell(candidates)
        self.preferred: list[Candidate] = []
        others: list[Candidate] = []
        taken: Counter[tuple[int, int]] = Counter()
        for candidate in candidates:
            cell = self.cell(candidate)
            taken[cell] += 1
            (self.preferred if taken[cell] <= self.quota else others).append(candidate)
        chosen = self.preferred[:budget]
        chosen += others[: budget - len(chosen)]
        self.chosen = sorted(chosen, key=lambda candidate: -candidate[0])

    def cell(self, candidate: Candidate) -> tuple[int, int]:
        _, row, column = candidate
        return (
            row // math.ceil(self._shape[0] / self._grid.rows),
            column // math.ceil(self._shape[1] / self._grid.columns),
        )

    def by_cell(self, candidates: list[Candidate]) -> Counter[tuple[int, int]]:
        return Counter(self.cell(candidate) for candidate in candidates)


def _follows_the_rule(maps: torch.Tensor, options: DetectionOptions, allowed: torch.Tensor | None = None) -> None:
    """Equal scores may stand for each other; all else must be what the rule says."""
    scores, positions = select_candidates(maps, options, allowed)
    height, width = maps.shape[1:]
    budget = min(options.max_num_keypoints, height * width)
    assert scores.shape == positions.shape == (len(maps), budget)
    assert int(positions.min()) >= 0
    assert int(positions.max()) < height * width
    usable = maps if allowed is None else maps * allowed
    for image, of_image, places in zip(usable.numpy(), scores.numpy(), positions.numpy(), strict=True):
        rule = _Rule(image, options)
        count = int((of_image > options.detection_threshold).sum())
        found = [(float(image.flat[place]), int(place) // width, int(place) % width) for place in places[:count]]
        assert [score for score, _, _ in found] == of_image[:count].tolist()
        assert [score for score, _, _ in found] == [score for score, _, _ in rule.chosen]
        assert len(set(found)) == count
        if (
            len({score for score, _, _ in rule.chosen}) == count
            and len(np.unique(image[image > 0])) == (image > 0).sum()
        ):
            assert set(found) == set(rule.chosen)
        of_cell = rule.by_cell(found)
        if len(rule.preferred) <= budget:
            assert all(of_cell[cell] >= min(rule.quota, has) for cell, has in rule.candidates_of_cell.items())
        else:
            assert max(of_cell.values()) <= rule.quota


def _maps(kind: str, height: int, width: int) -> torch.Tensor:
    """(2, height, width) scores."""
    values = torch.rand((2, height, width), generator=torch.Generator().manual_seed(height * width))
    if kind == "maxima":
        return suppress_non_maxima(values[:, None], 2)[:, 0]
    if kind == "few":
        return torch.where(values > 0.97, values, 0.0)
    if kind == "one corner":
        values[:, height // 3 :] = 0.0
        values[:, :, width // 3 :] = 0.0
        return values
    if kind == "steps":
        return (values * 5).floor() / 5
    return torch.zeros_like(values) if kind == "nothing" else values


@pytest.mark.parametrize("kind", ["random", "maxima", "few", "one corner", "steps", "nothing"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (6, 8), (7, 5), (64, 64)])
@pytest.mark.parametrize(("budget", "slack"), [(1, 1.0), (100, 1.0), (100, 1.5), (100, 100.0), (5000, 1.0)])
def test_random_maps_follow_the_rule(kind: str, rows: int, columns: int, budget: int, slack: float) -> None:
    grid = GridOptions(rows, columns, slack)
    for height, width in ((33, 47), (48, 64)):
        maps = _maps(kind, height, width)
        allowed = torch.rand(maps.shape, generator=torch.Generator().manual_seed(1)) > 0.5
        allowed[:, :20, :20] = False
        _follows_the_rule(maps, DetectionOptions(budget, 0.0, 2, 0, grid))
        _follows_the_rule(maps, DetectionOptions(budget, 0.6, 2, 0, grid), allowed)


@pytest.mark.parametrize("grid", [None, GridOptions(1, 1, 1.0), GridOptions(6, 8, 1.5), GridOptions(64, 64, 1.0)])
@pytest.mark.parametrize("budget", [1, 100, 5000])
def test_a_list_of_points_is_chosen_from_as_a_map_of_them_is(budget: int, grid: GridOptions | None) -> None:
    options = DetectionOptions(budget, 0.2, 0, 5, grid)
    for kind in ("random", "one corner", "nothing"):
        scores = _maps(kind, 48, 64)[0]
        allowed = torch.rand((48, 64), generator=torch.Generator().manual_seed(1)) > 0.5
        rows, columns = scores.nonzero().unbind(1)
        shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(2))
        rows, columns = rows[shuffled], columns[shuffled]
        points = torch.stack([columns, rows], dim=1) + 0.3
        chosen = select_points(points, scores[rows, columns], (48, 64), options, allowed)
        best, positions = select_candidates(zero_border(scores[None], 5), options, allowed[None])
        expected = positions[0, best[0] > 0.2]
        torch.testing.assert_close(rows[chosen] * 64 + columns[chosen], expected)


@pytest.mark.parametrize("grid", [None, GridOptions(3, 4, 1.0)])
def test_lists_of_points_in_a_batch_are_chosen_from_one_by_one(grid: GridOptions | None) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand((3, 90, 2), generator=generator) * torch.tensor([63.0, 47.0])
    scores = torch.rand((3, 90), generator=generator)
    is_candidate = torch.rand((3, 90), generator=generator) < torch.tensor([0.9, 0.3, 0.0])[:, None]
    options = DetectionOptions(40, 0.0, 0, 0, grid)
    rows, counts = select_padded_points(points, scores, is_candidate, (48, 64), options)
    assert rows.shape == (3, 40)
    assert counts.tolist() == [40, int(is_candidate[1].sum()), 0]
    for number in range(3):
        own = is_candidate[number].nonzero()[:, 0]
        expected = own[select_points(points[number, own], scores[number, own], (48, 64), options)]
        assert torch.equal(rows[number, : counts[number]], expected)


@pytest.mark.parametrize("slack", [1.0, 2.0])
def test_maps_of_photographs_follow_the_rule(slack: float, photographs: list[Uint8Array]) -> None:
    images = torch.from_numpy(np.stack(photographs[:2])).permute(0, 3, 1, 2)[:, :, :240, :320].float() / 255
    with torch.no_grad():
        score_maps = seeded_network()(images).score_map
    grid = GridOptions(6, 8, slack)
    for maps in (score_maps[:, 0], zero_border(suppress_non_maxima(score_maps, 2)[:, 0], 30)):
        half = torch.ones_like(maps, dtype=torch.bool)
        half[:, :, 150:] = False
        for allowed in (None, half):
            _follows_the_rule(maps, DetectionOptions(300, 0.0, 2, 30, grid), allowed)
            _follows_the_rule(maps, DetectionOptions(300, float(maps.quantile(0.98)), 2, 30, grid), allowed)


def test_without_a_grid_a_mask_leaves_the_best_of_the_rest() -> None:
    maps = _maps("random", 40, 50)
    allowed = torch.rand(maps.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    scores, positions = select_candidates(maps, DetectionOptions(200, 0.0, 2, 0), allowed)
    for image, usable, of_image, places in zip(maps, allowed, scores, positions, strict=True):
        assert torch.equal(of_image, image[usable].sort(descending=True).values[:200])
        assert bool(usable.flatten()[places].all())


def test_so_much_slack_that_the_grid_does_nothing() -> None:
    maps = _maps("random", 48, 64)
    plain = select_candidates(maps, DetectionOptions(150, 0.0, 2, 0))
    slack = select_candidates(maps, DetectionOptions(150, 0.0, 2, 0, GridOptions(6, 8, 48.0)))
    assert torch.equal(slack[0], plain[0])
    assert torch.equal(slack[1], plain[1])


def test_an_image_does_not_depend_on_its_batch() -> None:
    maps = _maps("few", 48, 64)
    options = DetectionOptions(60, 0.0, 2, 0, GridOptions(4, 4, 1.0))
    together = select_candidates(maps, options)[1]
    for row, one in zip(together, maps, strict=True):
        count = int((one > 0).sum().clamp(max=60))
        assert torch.equal(select_candidates(one[None], options)[1][0, :count], row[:count])


def test_the_selection_is_one_graph_for_all_maps() -> None:
    class Module(torch.nn.Module):
        def forward(self, maps: torch.Tensor, allowed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return select_candidates(maps, DetectionOptions(50, 0.2, 2, 0, GridOptions(6, 8, 1.0)), allowed)

    first, second = _maps("maxima", 48, 64), _maps("random", 48, 64)
    allowed = second > 0.4
    exported = torch.export.export(Module(), (first, first > 0.1)).module()
    for ours, expected in zip(exported(second, allowed), Module()(second, allowed), strict=True):
        assert torch.equal(ours, expected)


def test_a_point_lies_on_the_pixel_whose_centre_is_next() -> None:
    allowed = torch.zeros((1, 4, 5), dtype=torch.bool)
    allowed[0, 1, 2] = True
    inside = torch.tensor([[[2.0, 1.0], [1.6, 1.4], [2.4, 0.6]]])
    outside = torch.tensor([[[1.4, 1.0], [2.0, 1.6], [0.0, 0.0], [4.4, 3.4]]])
    edge = torch.tensor([[[2.5, 1.0], [2.4999, 1.0]]])
    assert lie_on_allowed(allowed, inside).all()
    assert not lie_on_allowed(allowed, outside).any()
    assert not lie_on_allowed(allowed, edge).any()


def _covered(points: torch.Tensor, shape: tuple[int, ...] = (480, 640), side: int = 40) -> float:
    """Share of the image's squares of `side` px with a point: squares that are not the cells of the grid."""
    squares = {tuple(square) for square in (points / side).floor().int().tolist()}
    return len(squares) / (math.ceil(shape[0] / side) * math.ceil(shape[1] / side))


def _inliers(first: Features, second: Features) -> torch.Tensor:
    """Points of the second image whose matches agree with one epipolar geometry."""
    matches = load_matcher("mnn").match(first, second)
    points0, points1 = first.keypoints[matches.indices0], second.keypoints[matches.indices1]
    cv2.setRNGSeed(0)
    _, accepted = cv2.findFundamentalMat(points0.numpy(), points1.numpy(), cv2.USAC_MAGSAC, 1.0, 0.999, 5000)
    return points1[torch.from_numpy(accepted[:, 0] > 0)]


def test_a_grid_covers_more_of_a_photograph(photographs: list[Uint8Array]) -> None:
    parameters = {"device": "cpu", "compile": False, "max_num_keypoints": 500}
    plain = load_extractor("silk-vggnp-mu", **parameters)
    spread = load_extractor("silk-vggnp-mu", distribution="grid", **parameters)
    for photograph in photographs:
        assert _covered(spread.extract(photograph).keypoints) > 1.2 * _covered(plain.extract(photograph).keypoints)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sequence"), [("aliked-n16", "kitti00"), ("silk-vggnp-mu", "tum_fr2_desk")])
def test_what_a_grid_does_to_sequences(
    name: str,
    sequence: str,
    shared: Path,
    weights_dir: str,
    report_figure: Callable[[str], None],
    campaign: Campaign,
) -> None:
    campaign.only("a figure of real sequences")
    paths = sorted((shared / "data" / sequence).glob("*.png"))[:4]
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    weights = {"weights_dir": weights_dir} if name.startswith("aliked") else {}
    covered, inliers = {}, {}
    for label, parameters in _DISTRIBUTIONS.items():
        extractor = load_extractor(name, device="cpu", compile=False, **weights, **parameters)
        features = [extractor.extract(image) for image in images]
        points = [_inliers(first, second) for first, second in pairwise(features)]
        covered[label] = [
            float(np.mean([_covered(one.keypoints, images[0].shape) for one in features])),
            float(np.mean([_covered(one, images[0].shape) for one in points])),
        ]
        inliers[label] = float(np.mean([len(one) for one in points]))
        report_figure(
            f"{name}, {sequence}, 1000 keypoints, {label}: {covered[label][0]:.0%} of the squares of 40 px hold a "
            f"keypoint, {covered[label][1]:.0%} an inlier match; {inliers[label]:.0f} inlier matches a pair"
        )
    none, grid = (np.array(covered[label]) for label in ("none", "grid"))
    assert (grid > 1.1 * none).all()
    assert inliers["grid"] > 0.6 * inliers["none"]
