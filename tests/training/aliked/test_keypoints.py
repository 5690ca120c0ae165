"""Training keypoints: those of inference, differentiable down to their descriptors, and random ones."""

from __future__ import annotations

import torch

from feature_frontend.extractors.base import DetectionOptions
from feature_frontend.extractors.networks.layers.deformable_convolution import SparseDeformableDescriptorHead
from feature_frontend.extractors.networks.layers.keypoint_detection import detect_keypoints
from feature_frontend.extractors.networks.layers.sampling import sample_bilinear
from feature_frontend_lab.training.aliked.losses import peak_loss
from feature_frontend_lab.training.aliked.recipe import find_training_keypoints


def _score_map(side: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(side, side, generator=torch.Generator().manual_seed(4), dtype=dtype)


def test_detected_keypoints_are_those_of_inference() -> None:
    score_map = _score_map(64)
    found = find_training_keypoints(score_map, torch.zeros(0, 2), 50, 2)
    ((keypoints, scores),) = detect_keypoints(score_map[None, None], DetectionOptions(50, 0.0, 2, 0))
    assert torch.equal(found.keypoints, keypoints)
    assert torch.equal(found.scores, scores)
    assert found.num_detected == 50
    assert found.window_scores.shape == (50, 25)
    whole = found.window_positions.long()
    assert torch.equal(score_map[whole[..., 1], whole[..., 0]], found.window_scores)
    # A maximum of a later round has a suppressed better neighbour; most are of the first.
    assert int((found.window_scores.argmax(dim=1) == 12).sum()) > 45


def test_random_points_stay_clear_of_keypoints_and_of_each_other() -> None:
    points = torch.rand(400, 2, generator=torch.Generator().manual_seed(0)) * 63
    found = find_training_keypoints(_score_map(64), points, 30, 2)
    random = found.keypoints[found.num_detected :]
    assert 50 < len(random) < 400
    distances = (found.keypoints[:, None] - random[None]).abs().amax(dim=2)
    others = torch.arange(len(found.keypoints))[:, None] != torch.arange(len(random)) + found.num_detected
    assert float(distances[others].min()) > 2
    # Nothing is dropped without a reason: what is gone was near something.
    gone = points[~(points[:, None] == random[None]).all(dim=2).any(dim=1)]
    assert bool(((gone[:, None] - torch.cat([found.keypoints, points])[None]).abs().amax(dim=2) <= 2).any(dim=1).all())


def test_fewer_maxima_than_wanted_are_no_error() -> None:
    score_map = torch.zeros(32, 32)
    score_map[10, 12] = 0.9
    found = find_training_keypoints(score_map, torch.tensor([[20.0, 20.0], [12.5, 10.0]]), 400, 2)
    assert found.keypoints.tolist() == [[12.0, 10.0], [20.0, 20.0]]
    assert found.num_detected == 1


def test_gradients_reach_the_scores_through_positions_scores_and_windows() -> None:
    points = torch.tensor([[3.3, 4.6]], dtype=torch.float64)
    score_map = _score_map(12, torch.float64).requires_grad_()

    def results(scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = find_training_keypoints(scores, points, 3, 2)
        assert found.num_detected == 3
        peak = peak_loss(found.window_scores, found.window_positions, found.keypoints[:3], 0.1)
        return found.keypoints, found.scores, peak

    assert torch.autograd.gradcheck(results, (score_map,))


def test_gradients_reach_features_and_positions_through_the_descriptor_head() -> None:
    torch.manual_seed(0)
    head = SparseDeformableDescriptorHead(4, 3).double()
    feature_map = torch.randn(4, 10, 10, dtype=torch.float64, requires_grad=True)
    # Off the lattice, where bilinear sampling has kinks; the patch of a keypoint is that of its whole pixel.
    keypoints = torch.tensor([[4.31, 5.27], [6.43, 3.38]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, (feature_map, keypoints))
    for parameter in head.parameters():
        parameter.grad = None
    head(feature_map, keypoints).sum().backward()
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in head.parameters() if parameter.grad is not None)
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_sampling_in_float64_is_exact() -> None:
    maps = torch.arange(12.0, dtype=torch.float64).reshape(1, 1, 3, 4)
    value = sample_bilinear(maps, torch.tensor([[[[1.25, 0.5]]]], dtype=torch.float64))
    assert value.dtype == torch.float64
    assert value.item() == 3.25
