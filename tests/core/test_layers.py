"""Layers of ALIKED compared with slow, literal versions of the equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from feature_frontend.extractors.base import DetectionOptions
from feature_frontend.extractors.networks.layers.deformable_convolution import (
    DeformableConv2d,
    SparseDeformableDescriptorHead,
    gather_patches,
)
from feature_frontend.extractors.networks.layers.keypoint_detection import (
    detect_keypoints,
    refine_keypoints,
    suppress_non_maxima,
)
from feature_frontend.extractors.networks.layers.sampling import sample_bilinear


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _value_at(plane: torch.Tensor, x: float, y: float) -> float:
    """Bilinear interpolation, term by term, zero outside."""
    height, width = plane.shape
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                total += float(plane[row, column]) * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def test_sampling_is_bilinear_and_zero_outside() -> None:
    maps = torch.rand((1, 2, 5, 7), generator=_generator())
    points = torch.rand((1, 40, 1, 2), generator=_generator(1)) * torch.tensor([10.0, 8.0]) - 1.5
    values = sample_bilinear(maps, points)
    for channel in range(2):
        for index, (x, y) in enumerate(points[0, :, 0].tolist()):
            assert float(values[0, channel, index, 0]) == pytest.approx(_value_at(maps[0, channel], x, y), abs=1e-5)


def test_sampling_of_a_map_one_pixel_wide() -> None:
    maps = torch.tensor([[[[1.0], [3.0]]]])
    points = torch.tensor([[[[0.0, 0.5]]]])
    assert float(sample_bilinear(maps, points)) == pytest.approx(2.0)


def test_deformable_convolution_follows_equation_3() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = DeformableConv2d(2, 3)
    maps = torch.rand((2, 2, 6, 8), generator=_generator())
    with torch.no_grad():
        ours = layer(maps)
        offsets = layer.offset_conv(maps).clamp(-2.0, 2.0)
    weight = layer.regular_conv.weight.detach()
    for batch, out, row, column in ((0, 0, 0, 0), (0, 2, 3, 4), (1, 1, 5, 7), (1, 0, 2, 6)):
        expected = 0.0
        for tap in range(9):
            dy, dx = offsets[batch, 2 * tap : 2 * tap + 2, row, column].tolist()
            y, x = row + tap // 3 - 1 + dy, column + tap % 3 - 1 + dx
            for channel in range(2):
                expected += float(weight[out, channel, tap // 3, tap % 3]) * _value_at(maps[batch, channel], x, y)
        assert float(ours[batch, out, row, column]) == pytest.approx(expected, abs=1e-5)


def test_deformable_convolution_without_offsets_is_a_convolution() -> None:
    layer = DeformableConv2d(4, 5)
    torch.nn.init.zeros_(layer.offset_conv.weight)
    assert layer.offset_conv.bias is not None
    torch.nn.init.zeros_(layer.offset_conv.bias)
    maps = torch.rand((1, 4, 9, 7), generator=_generator())
    torch.testing.assert_close(layer(maps), layer.regular_conv(maps), atol=1e-5, rtol=1e-5)


def test_deformable_convolution_clamps_its_offsets() -> None:
    layer = DeformableConv2d(1, 1)
    torch.nn.init.zeros_(layer.offset_conv.weight)
    assert layer.offset_conv.bias is not None
    torch.nn.init.constant_(layer.offset_conv.bias, 1e6)
    maps = torch.ones((1, 1, 8, 8))
    # A quarter of the side is 2 px: the top-left output reads rows and columns 1 to 3, all inside.
    assert float(layer(maps)[0, 0, 0, 0].detach()) == pytest.approx(
        float(layer.regular_conv.weight.sum().detach()), abs=1e-6
    )


def test_suppression_keeps_local_maxima_only() -> None:
    scores = torch.zeros((1, 1, 9, 9))
    scores[0, 0, 4, 4], scores[0, 0, 4, 5], scores[0, 0, 8, 0] = 0.9, 0.8, 0.1
    kept = suppress_non_maxima(scores, 2)
    assert kept.nonzero()[:, 2:].tolist() == [[4, 4], [8, 0]]
    assert float(kept[0, 0, 8, 0]) == pytest.approx(0.1)


def test_suppression_finds_a_maximum_behind_a_suppressed_one() -> None:
    scores = torch.zeros((1, 1, 5, 11))
    # 0.8 hides 0.7 until 0.9 suppresses it: 0.7 is then the best of its window.
    scores[0, 0, 2, 2], scores[0, 0, 2, 4], scores[0, 0, 2, 6] = 0.9, 0.8, 0.7
    assert suppress_non_maxima(scores, 2)[0, 0, 2].nonzero()[:, 0].tolist() == [2, 6]


def test_convention_pixel_centres_are_at_integers() -> None:
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    # Nearly the same weight on two neighbours: the point lies half-way between their centres.
    peak = torch.exp(-((columns - 20.5) ** 2 + (rows - 11) ** 2) / 2)
    score_map = peak * (1 - 1e-4 * columns)
    ((keypoints, scores),) = detect_keypoints(score_map[None, None], DetectionOptions(1, 0.0, 2, 0))
    torch.testing.assert_close(keypoints, torch.tensor([[20.5, 11.0]]), atol=0.1, rtol=0)
    assert float(scores) == pytest.approx(float(score_map[11, 20]), abs=0.02)


def test_refinement_is_the_softmax_mean_of_the_window() -> None:
    score_map = torch.rand((12, 12), generator=_generator())
    pixels = torch.tensor([[5, 6], [2, 9]])
    refined = refine_keypoints(score_map, pixels, 2)
    for (x, y), point in zip(pixels.tolist(), refined.tolist(), strict=True):
        weights = {
            (dx, dy): math.exp(float(score_map[y + dy, x + dx]) / 0.1) for dx in range(-2, 3) for dy in range(-2, 3)
        }
        total = sum(weights.values())
        assert point[0] == pytest.approx(x + sum(w * dx for (dx, _), w in weights.items()) / total, abs=1e-4)
        assert point[1] == pytest.approx(y + sum(w * dy for (_, dy), w in weights.items()) / total, abs=1e-4)


def test_refinement_is_differentiable() -> None:
    score_map = torch.rand((7, 7), dtype=torch.float64, generator=_generator()).requires_grad_()
    pixels = torch.tensor([[3, 3]])
    assert torch.autograd.gradcheck(lambda scores: refine_keypoints(scores, pixels, 2), (score_map,))


def test_detection_respects_budget_threshold_and_border() -> None:
    scores = torch.rand((2, 1, 40, 50), generator=_generator())
    for budget, threshold in ((10, 0.0), (5000, 0.9), (7, 0.99)):
        for (keypoints, values), score_map in zip(
            detect_keypoints(scores, DetectionOptions(budget, threshold, 3, 0)), scores, strict=True
        ):
            whole = suppress_non_maxima(score_map[None], 3)[0, 0, 3:-3, 3:-3]
            assert len(keypoints) == len(values) == min(budget, int((whole > threshold).sum()))
            assert keypoints.min() >= 0
            assert (keypoints.max(dim=0).values <= torch.tensor([49.0, 39.0])).all()


def test_detection_of_a_flat_zero_map_is_empty() -> None:
    ((keypoints, values),) = detect_keypoints(torch.zeros((1, 1, 32, 32)), DetectionOptions(100, 0.0, 2, 0))
    assert keypoints.shape == (0, 2)
    assert values.shape == (0,)


def test_patches_are_zero_outside_the_map() -> None:
    feature_map = torch.rand((3, 6, 5), generator=_generator())
    patches = gather_patches(feature_map, torch.tensor([[0, 0], [4, 5], [2, 3]]), 3)
    assert patches.shape == (3, 3, 3, 3)
    assert not patches[0, :, 0].any()
    assert not patches[0, :, :, 0].any()
    assert not patches[1, :, 2].any()
    torch.testing.assert_close(patches[2], feature_map[:, 2:5, 1:4])


def test_sparse_head_follows_equations_4_and_5() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = SparseDeformableDescriptorHead(dim=4, num_positions=3)
    feature_map = torch.rand((4, 12, 16), generator=_generator())
    keypoints = torch.tensor([[5.3, 6.8], [0.2, 11.0], [14.9, 3.1]])
    with torch.no_grad():
        ours = head(feature_map, keypoints)
        for index, (x, y) in enumerate(keypoints.tolist()):
            patch = functional.pad(feature_map, [1] * 4)[:, int(y) : int(y) + 3, int(x) : int(x) + 3]
            offsets = head.offset_conv(patch[None])[0, :, 0, 0].clamp(-4.0, 4.0)
            total = torch.zeros(4)
            for position in range(3):
                dx, dy = float(offsets[position]), float(offsets[3 + position])
                support = torch.tensor([_value_at(plane, x + dx, y + dy) for plane in feature_map])
                encoded = functional.selu(head.sf_conv.weight[:, :, 0, 0] @ support)
                total += encoded @ head.agg_weights[position]
            torch.testing.assert_close(ours[index], functional.normalize(total, dim=0), atol=1e-5, rtol=1e-4)


def test_sparse_head_of_no_keypoints() -> None:
    head = SparseDeformableDescriptorHead(dim=4, num_positions=3)
    assert head(torch.rand(4, 8, 8), torch.zeros((0, 2))).shape == (0, 4)
