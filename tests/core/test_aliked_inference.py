"""The fast network compared with the plain one, and its parts with those they replace."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.nn import functional

from feature_frontend.extractors.base import DetectionOptions, NetworkFeatures
from feature_frontend.extractors.execution import PlainExecution, whole_frame
from feature_frontend.extractors.networks.aliked import Aliked
from feature_frontend.extractors.networks.aliked_inference import FastAliked
from feature_frontend.extractors.networks.layers.keypoint_detection import maximum_filter, suppress_non_maxima
from feature_frontend.extractors.networks.layers.sampling import (
    corner_weights,
    corners_of_upsampling,
    sample_bilinear,
    weighted_row_sums,
)
from feature_frontend.image.resize import network_size
from tests.core.seeded import seeded_network

Uint8Array = npt.NDArray[np.uint8]


def _network_with_statistics(name: str) -> Aliked:
    """Batch norm with values of its own, so that folding it is not folding an identity."""
    network = seeded_network(name)
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for values, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.7, 1.3),
                (module.bias.data, -0.2, 0.2),
            ):
                values.copy_(torch.rand(values.shape, generator=generator) * (high - low) + low)
    return network.requires_grad_(requires_grad=False)


def _same(found: NetworkFeatures, expected: NetworkFeatures) -> None:
    """Equal scores may stand in another order, and at the end of the budget be another point's."""
    distance, nearest = torch.cdist(expected.keypoints.double(), found.keypoints.double()).min(dim=1)
    assert int((distance > 1e-3).sum()) <= 1
    is_found = distance <= 1e-3
    partners = nearest[is_found]
    torch.testing.assert_close(found.scores[partners], expected.scores[is_found], atol=1e-4, rtol=0)
    assert float((found.descriptors[partners] * expected.descriptors[is_found]).sum(dim=1).min()) > 0.9999


@pytest.mark.parametrize("name", ["aliked-t16", "aliked-n32"])
@pytest.mark.parametrize(("height", "width"), [(128, 160), (101, 77), (32, 95)])
def test_it_computes_what_the_plain_network_computes(
    name: str, height: int, width: int, photographs: list[Uint8Array]
) -> None:
    network = _network_with_statistics(name)
    fast = FastAliked(network)
    crops = np.stack([photograph[100 : 100 + height, 200 : 200 + width] for photograph in photographs])
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    options = DetectionOptions(60, 0.0, 2, 0)
    torch.testing.assert_close(fast.dense(images)[0], network(images).score_map, atol=1e-5, rtol=0)
    for expected, found in zip(network.extract(images, options), fast.extract(images, options), strict=True):
        _same(found, expected)


def test_a_threshold_leaves_each_image_its_own_number(photographs: list[Uint8Array]) -> None:
    network = _network_with_statistics("aliked-t16")
    pixels = np.stack([photographs[0][:96, :96], photographs[1][300:396, 300:396]])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    threshold = float(network(images).score_map.quantile(0.9))
    options = DetectionOptions(2000, threshold, 2, 4)
    expected, found = network.extract(images, options), FastAliked(network).extract(images, options)
    counts = [one.keypoints.shape[0] for one in expected]
    assert [one.keypoints.shape[0] for one in found] == counts
    assert counts[0] != counts[1]
    assert min(counts) > 0
    nothing = FastAliked(network).extract(images, DetectionOptions(10, 1.0, 2, 0))
    assert [one.descriptors.shape for one in nothing] == [(0, 64), (0, 64)]


def test_a_recorded_frame_does_what_the_plain_execution_does(photographs: list[Uint8Array]) -> None:
    # What a CUDA graph records, run here without one.
    fast = FastAliked(_network_with_statistics("aliked-t16"))
    image = np.ascontiguousarray(photographs[0][:300, :400])
    resize = network_size(300, 400, resize_height=150, max_pixels=10**6, minimum=32)
    options = DetectionOptions(100, 0.0, 2, 0)
    (expected,) = PlainExecution(fast, torch.device("cpu")).run([image], resize, options)
    (found,) = whole_frame(fast, [torch.from_numpy(image)], resize, options).unpadded()
    torch.testing.assert_close(found.keypoints, expected.keypoints)
    torch.testing.assert_close(found.descriptors, expected.descriptors)


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 7])
def test_maximum_filter_is_a_pooling(radius: int) -> None:
    maps = torch.rand((2, 1, 33, 47), generator=torch.Generator().manual_seed(radius))
    pooled = functional.max_pool2d(maps, 2 * radius + 1, stride=1, padding=radius)
    assert torch.equal(maximum_filter(maps, radius), pooled)


def test_suppression_gives_what_poolings_give() -> None:
    scores = torch.rand((1, 1, 60, 80), generator=torch.Generator().manual_seed(3)).mul(50).round().div(50)

    def pooled(maps: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(maps, 5, stride=1, padding=2)

    is_maximum = scores == pooled(scores)
    for _ in range(2):
        is_suppressed = pooled(is_maximum.float()) > 0
        remaining = torch.where(is_suppressed, torch.zeros_like(scores), scores)
        is_maximum |= (remaining == pooled(remaining)) & ~is_suppressed
    assert torch.equal(suppress_non_maxima(scores, 2), scores * is_maximum)


def test_corners_sample_bilinearly_and_count_nothing_outside() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand((1, 3, 9, 13), generator=generator)
    points = torch.rand((50, 2), generator=generator) * torch.tensor([16.0, 12.0]) - 1.5
    pixels, weights = corner_weights(points, 9, 13)
    rows = maps[0].permute(1, 2, 0).reshape(-1, 3)
    values = weighted_row_sums(rows, pixels[..., 1] * 13 + pixels[..., 0], weights)
    torch.testing.assert_close(values, sample_bilinear(maps, points[None, :, None])[0, :, :, 0].t(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "upsampled"), [((5, 7), (40, 56)), ((1, 1), (32, 32)), ((2, 1), (64, 32))])
def test_upsampling_is_read_pixel_by_pixel(size: tuple[int, int], upsampled: tuple[int, int]) -> None:
    maps = torch.rand((1, 4, *size), generator=torch.Generator().manual_seed(0))
    expected = functional.interpolate(maps, upsampled, mode="bilinear", align_corners=True)[0]
    y, x = torch.meshgrid(torch.arange(upsampled[0]), torch.arange(upsampled[1]), indexing="ij")
    pixels = torch.stack([x, y], dim=-1).reshape(-1, 2)
    indices, weights = corners_of_upsampling(pixels, size, upsampled)
    values = weighted_row_sums(maps[0].permute(1, 2, 0).reshape(-1, 4), indices, weights)
    torch.testing.assert_close(values, expected.permute(1, 2, 0).reshape(-1, 4), atol=1e-6, rtol=0)
