"""The losses of ALIKED compared with hand-computed values and a slow, literal version of each equation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional

from feature_frontend_lab.training.aliked.losses import (
    find_partners,
    matching_success,
    peak_loss,
    reliability_loss,
    reprojection_loss,
    sparse_nre_loss,
)
from tests.training.aliked.dense_nre import dense_nre_loss

_NONE = -1


@dataclass
class _Problem:
    """Two images of one plane moved by a shift, with keypoints that partly show the same points."""

    keypoints: list[torch.Tensor]
    warped: list[torch.Tensor]
    visible: list[torch.Tensor]
    descriptors: list[torch.Tensor]
    scores: list[torch.Tensor]

    @property
    def partners(self) -> tuple[torch.Tensor, torch.Tensor]:
        arguments = ((self.warped[i], self.visible[i], self.keypoints[1 - i], self.visible[1 - i], 5.0) for i in (0, 1))
        first, second = (find_partners(*values) for values in arguments)
        return first, second


def _problem(seed: int = 0, counts: tuple[int, int] = (7, 9)) -> _Problem:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    shift = torch.tensor([3.0, -2.0], dtype=torch.float64)
    keypoints = [40 * random(count, 2) for count in counts]
    # Every second keypoint of image 1 is near where one of image 0 lies.
    keypoints[1][: len(keypoints[0]) : 2] = keypoints[0][::2] + shift + 2 * random(len(keypoints[0][::2]), 2)
    warped = [keypoints[0] + shift, keypoints[1] - shift]
    visible = [((points >= 0) & (points < 38)).all(dim=1) for points in warped]
    descriptors = [functional.normalize(random(count, 4) - 0.3, dim=1) for count in counts]
    return _Problem(keypoints, warped, visible, descriptors, [random(count) for count in counts])


def _literal_partners(problem: _Problem, own: int) -> list[int]:
    """V-A: the nearest keypoint of the other image, less than 5 px away, that this image can show."""
    partners = []
    other = 1 - own
    for i in range(len(problem.keypoints[own])):
        best, best_distance = _NONE, 5.0
        for j in range(len(problem.keypoints[other])):
            distance = math.dist(problem.warped[own][i].tolist(), problem.keypoints[other][j].tolist())
            if problem.visible[own][i] and problem.visible[other][j] and distance < best_distance:
                best, best_distance = j, distance
        partners.append(best)
    return partners


def _softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def _similarities(problem: _Problem, own: int, i: int) -> list[float]:
    """Equation 9."""
    d = problem.descriptors[own][i].tolist()
    return [sum(a * b for a, b in zip(d, row, strict=True)) for row in problem.descriptors[1 - own].tolist()]


@pytest.mark.parametrize("seed", range(4))
def test_partners_are_those_of_the_literal_search(seed: int) -> None:
    problem = _problem(seed)
    assert [partners.tolist() for partners in problem.partners] == [_literal_partners(problem, own) for own in (0, 1)]
    assert any(partner != _NONE for partner in _literal_partners(problem, 0))


@pytest.mark.parametrize("seed", range(4))
def test_reprojection_loss_is_equation_7(seed: int) -> None:
    problem = _problem(seed)
    losses = []
    for own in (0, 1):
        for i, j in enumerate(_literal_partners(problem, own)):
            if j != _NONE:
                a, b = (i, j) if own == 0 else (j, i)
                back = math.dist(problem.keypoints[0][a].tolist(), problem.warped[1][b].tolist())
                forth = math.dist(problem.keypoints[1][b].tolist(), problem.warped[0][a].tolist())
                losses.append(0.5 * (back + forth))
    found = reprojection_loss(*problem.keypoints, *problem.warped, *problem.partners)
    assert found.item() == pytest.approx(sum(losses) / len(losses), rel=1e-12)


def test_peak_loss_is_equation_8() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(3, 9, generator=generator, dtype=torch.float64)
    places = torch.tensor([(x, y) for y in (4, 5, 6) for x in (7, 8, 9)], dtype=torch.float64).expand(3, 9, 2)
    keypoints = torch.tensor([[8.0, 5.0], [8.3, 4.9], [7.6, 5.5]], dtype=torch.float64)
    losses = []
    for row in range(3):
        weights = _softmax([value / 0.1 for value in scores[row].tolist()])
        distances = [math.dist(keypoints[row].tolist(), place) for place in places[row].tolist()]
        losses.append(sum(w * d for w, d in zip(weights, distances, strict=True)))
    assert peak_loss(scores, places, keypoints, 0.1).item() == pytest.approx(sum(losses) / 3, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_sparse_nre_loss_is_equations_9_to_11(seed: int) -> None:
    problem = _problem(seed)
    losses = []
    for own in (0, 1):
        for i, j in enumerate(_literal_partners(problem, own)):
            if j != _NONE:
                q = _softmax([(value - 1) / 0.1 for value in _similarities(problem, own, i)])
                losses.append(-math.log(q[j]))
    found = sparse_nre_loss(*problem.descriptors, *problem.partners, 0.1)
    assert found.item() == pytest.approx(sum(losses) / len(losses), rel=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_reliability_loss_is_equations_12_and_13(seed: int) -> None:
    problem = _problem(seed)
    losses = []
    for own in (0, 1):
        weighted = total = 0.0
        for i, j in enumerate(_literal_partners(problem, own)):
            if not problem.visible[own][i]:
                continue
            score = problem.scores[own][i].item()
            reliability = 0.0 if j == _NONE else _softmax(_similarities(problem, own, i))[j]
            weighted += (1 - reliability) * score
            total += score
        losses.append(weighted / total)
    found = reliability_loss(
        (problem.scores[0], problem.scores[1]),
        (problem.descriptors[0], problem.descriptors[1]),
        problem.partners,
        (problem.visible[0], problem.visible[1]),
        1.0,
    )
    assert found.item() == pytest.approx(sum(losses) / 2, rel=1e-12)


def test_dense_nre_loss_is_the_cross_entropy_of_two_maps() -> None:
    problem = _problem(3)
    generator = torch.Generator().manual_seed(5)
    height, width = 38, 41
    raw = torch.rand(4, height, width, generator=generator, dtype=torch.float64) - 0.3
    descriptor_map = functional.normalize(raw, dim=0)
    losses = []
    for point, shown, d in zip(problem.warped[0], problem.visible[0], problem.descriptors[0], strict=True):
        if not shown:
            continue
        similarity = torch.einsum("chw,c->hw", descriptor_map, d)
        matching = torch.exp((similarity - 1) / 0.1)
        matching = matching / matching.sum()
        x, y = point.tolist()
        for row in range(height):
            for column in range(width):
                probability = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
                if probability:
                    losses.append(-probability * math.log(matching[row, column].item()))
    count = int(problem.visible[0].sum())
    found = dense_nre_loss(problem.descriptors[0], descriptor_map, problem.warped[0], problem.visible[0], 0.1)
    assert found.item() == pytest.approx(sum(losses) / count, rel=1e-6)


def test_values_computed_by_hand() -> None:
    # Two keypoints 3 px and 4 px off along one axis, each way: the mean of 3 and 4.
    keypoints = torch.tensor([[10.0, 10.0], [30.0, 10.0]])
    others = keypoints + torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    both = torch.ones(2, dtype=torch.bool)
    partners = find_partners(keypoints, both, others, both, 5.0)
    assert partners.tolist() == [0, 1]
    assert reprojection_loss(keypoints, others, keypoints, others, partners, partners).item() == pytest.approx(3.5)
    assert find_partners(keypoints, both, others, both, 3.5).tolist() == [0, -1]
    assert find_partners(keypoints, both, others, both, 3.0).tolist() == [-1, -1]
    # Equal scores around a keypoint in the middle of 3x3: (4 * 1 + 4 * sqrt 2) / 9.
    places = torch.tensor([(x, y) for y in (-1.0, 0.0, 1.0) for x in (-1.0, 0.0, 1.0)])[None]
    expected = (4 + 4 * math.sqrt(2)) / 9
    assert peak_loss(torch.full((1, 9), 0.4), places, torch.zeros(1, 2), 0.1).item() == pytest.approx(expected)
    # Orthogonal descriptors that match: the softmax of (1, 0) / 0.1, and of (1, 0) / 1.
    eye = torch.eye(2)
    nre = sparse_nre_loss(eye, eye, partners, partners)
    assert nre.item() == pytest.approx(math.log(1 + math.exp(-10)), rel=1e-3)
    scores = torch.tensor([0.9, 0.3])
    reliability = reliability_loss((scores, scores), (eye, eye), (partners, partners), (both, both))
    assert reliability.item() == pytest.approx(1 - math.e / (math.e + 1))
    assert matching_success(eye, eye, partners, partners).item() == 1
    assert matching_success(eye, eye.flip(0), partners, partners).item() == 0


_Loss = Callable[[_Problem], tuple[Callable[..., torch.Tensor], list[torch.Tensor]]]


def _reprojection(problem: _Problem) -> tuple[Callable[..., torch.Tensor], list[torch.Tensor]]:
    partners = problem.partners
    return lambda *points: reprojection_loss(*points, *partners), [*problem.keypoints, *problem.warped]


def _sparse(problem: _Problem) -> tuple[Callable[..., torch.Tensor], list[torch.Tensor]]:
    partners = problem.partners
    return lambda *descriptors: sparse_nre_loss(*descriptors, *partners), problem.descriptors


def _reliability(problem: _Problem) -> tuple[Callable[..., torch.Tensor], list[torch.Tensor]]:
    partners, visible = problem.partners, (problem.visible[0], problem.visible[1])

    def loss(s0: torch.Tensor, s1: torch.Tensor, d0: torch.Tensor, d1: torch.Tensor) -> torch.Tensor:
        return reliability_loss((s0, s1), (d0, d1), partners, visible)

    return loss, [*problem.scores, *problem.descriptors]


def _peak(problem: _Problem) -> tuple[Callable[..., torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    scores = torch.rand(7, 9, generator=generator, dtype=torch.float64)
    places = problem.keypoints[0][:, None].round() + torch.tensor([(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1)])
    return lambda s, p: peak_loss(s, places, p, 0.1), [scores, problem.keypoints[0]]


def _dense(problem: _Problem) -> tuple[Callable[..., torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    descriptor_map = torch.rand(4, 38, 38, generator=generator, dtype=torch.float64)
    warped, visible = problem.warped[0], problem.visible[0]
    # The map stays: its 5776 values would take a finite difference each.
    return lambda d, w: dense_nre_loss(d, descriptor_map, w, visible), [problem.descriptors[0], warped]


@pytest.mark.parametrize("make", [_reprojection, _peak, _sparse, _reliability, _dense])
def test_gradients_are_those_of_finite_differences(make: _Loss) -> None:
    loss, inputs = make(_problem(0))
    assert torch.autograd.gradcheck(loss, [tensor.detach().clone().requires_grad_() for tensor in inputs])


def test_without_partners_losses_are_zero_and_have_gradients() -> None:
    problem = _problem()
    none = [torch.full((len(points),), -1) for points in problem.keypoints]
    nothing = torch.zeros(7, dtype=torch.bool), torch.zeros(9, dtype=torch.bool)
    inputs = [tensor.requires_grad_() for tensor in (*problem.keypoints, *problem.descriptors, *problem.scores)]
    keypoints, descriptors, scores = inputs[:2], inputs[2:4], inputs[4:]
    total = (
        reprojection_loss(keypoints[0], keypoints[1], *problem.warped, none[0], none[1])
        + sparse_nre_loss(descriptors[0], descriptors[1], none[0], none[1])
        + reliability_loss((scores[0], scores[1]), (descriptors[0], descriptors[1]), (none[0], none[1]), nothing)
    )
    assert total.item() == 0
    assert all(gradient.abs().max() == 0 for gradient in torch.autograd.grad(total, inputs))
    assert matching_success(descriptors[0], descriptors[1], none[0], none[1]).item() == 0
    empty = torch.zeros(0, 2)
    assert find_partners(empty, torch.zeros(0, dtype=torch.bool), problem.keypoints[1], nothing[1], 5.0).shape == (0,)


def _saved_mib(loss: Callable[[], torch.Tensor]) -> float:
    """What the graph of a loss keeps for the backward pass, MiB; storage that several tensors share counts once."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss()
    assert value.requires_grad
    return sum(kept.values()) / 2**20


def test_sparse_nre_keeps_far_less_memory_than_dense(report_figure: Callable[[str], None]) -> None:
    generator = torch.Generator().manual_seed(0)
    side, count, dim = 160, 400, 64
    descriptors = [
        functional.normalize(torch.randn(count, dim, generator=generator), dim=1).requires_grad_() for _ in (0, 1)
    ]
    descriptor_map = functional.normalize(torch.randn(dim, side, side, generator=generator), dim=0).requires_grad_()
    warped = torch.rand(count, 2, generator=generator) * (side - 1)
    partners, visible = torch.arange(count), torch.ones(count, dtype=torch.bool)
    sparse = _saved_mib(lambda: sparse_nre_loss(descriptors[0], descriptors[1], partners, partners))
    dense = 2 * _saved_mib(lambda: dense_nre_loss(descriptors[0], descriptor_map, warped, visible))
    report_figure(
        f"NRE, 400 keypoints, {side}x{side} map, kept for backward: sparse {sparse:.1f}, dense {dense:.0f} MiB"
    )
    assert dense > 20 * sparse
