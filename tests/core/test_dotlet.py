"""Dotlet: its outputs' shapes, what they do not depend on, and the folded, compiled and recorded network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from feature_frontend.extractors.base import DetectionOptions
from feature_frontend.extractors.execution import PlainExecution, whole_frame
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.extractors.networks.dotlet import Dotlet, fold_batch_norm
from feature_frontend.image.resize import network_size
from feature_frontend.settings import Settings
from tests.core.seeded import seeded_dotlet

Uint8Array = npt.NDArray[np.uint8]
_OPTIONS = DetectionOptions(200, 0.0, 2, 0)


@pytest.fixture(scope="module")
def network() -> Dotlet:
    return seeded_dotlet().requires_grad_(requires_grad=False)


def _grey(photograph: Uint8Array, height: int, width: int) -> torch.Tensor:
    crop = photograph[100 : 100 + height, 200 : 200 + width]
    return torch.from_numpy(crop.astype(np.float32).mean(axis=2))[None, None] / 255


@pytest.mark.parametrize(("height", "width"), [(128, 160), (101, 77), (32, 95)])
def test_folded_it_computes_the_same(network: Dotlet, height: int, width: int, photographs: list[Uint8Array]) -> None:
    images = torch.cat([_grey(photograph, height, width) for photograph in photographs])
    fast = fold_batch_norm(network)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in fast.modules())
    for mine, plain in zip(fast.dense(images), network.dense(images), strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-4, rtol=1e-4)
    for found, expected in zip(fast.extract(images, _OPTIONS), network.extract(images, _OPTIONS), strict=True):
        apart = torch.cdist(found.keypoints.double(), expected.keypoints.double())
        assert float((apart.min(dim=1).values < 1e-2).float().mean()) > 0.98
        assert found.descriptors.shape == (len(found.scores), 64)
        torch.testing.assert_close(found.descriptors.norm(dim=1), torch.ones(len(found.scores)))
        assert (found.keypoints >= 0).all()
        assert (found.keypoints <= torch.tensor([width - 1, height - 1])).all()


def test_nothing_found_is_described(network: Dotlet, photographs: list[Uint8Array]) -> None:
    images = torch.cat([_grey(photograph, 64, 96) for photograph in photographs])
    nothing = network.extract(images, DetectionOptions(10, 1.0, 2, 0))
    assert [found.descriptors.shape for found in nothing] == [(0, 64)] * len(images)
    assert network.describe(network.dense(images), torch.zeros((len(images), 0, 2))).shape == (len(images), 0, 64)


def test_images_of_a_batch_do_not_see_each_other(network: Dotlet, photographs: list[Uint8Array]) -> None:
    images = [_grey(photograph, 96, 128) for photograph in photographs[:2]]
    together = network.extract(torch.cat(images), _OPTIONS)
    for image, found in zip(images, together, strict=True):
        (alone,) = network.extract(image, _OPTIONS)
        torch.testing.assert_close(found.keypoints, alone.keypoints, atol=1e-3, rtol=0)
        torch.testing.assert_close(found.descriptors, alone.descriptors, atol=1e-4, rtol=0)


def test_exposure_changes_nothing(network: Dotlet, photographs: list[Uint8Array]) -> None:
    image = _grey(photographs[0], 128, 160)
    bright, dark = network.dense(image)[0], network.dense(image * 0.5 + 0.1)[0]
    # Not exactly: contrast is raised less where there is little.
    assert float((bright - dark).abs().mean()) < 0.1 * float(bright.std())
    assert float((bright - network.dense(image.flip(3))[0]).abs().mean()) > 0.25 * float(bright.std())


def test_colour_is_turned_into_grey(network: Dotlet, photographs: list[Uint8Array]) -> None:
    grey = _grey(photographs[0], 64, 96)
    for mine, plain in zip(network.dense(grey.repeat(1, 3, 1, 1)), network.dense(grey), strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (75, 101)])
def test_points_are_described_by_the_levels_under_them(network: Dotlet, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    dense = network.dense(torch.rand((2, 1, height, width), generator=generator))
    points = torch.rand((2, 50, 2), generator=generator) * torch.tensor([width - 1.0, height - 1.0])
    points[0, 0], points[0, 1] = torch.tensor([0.0, 0.0]), torch.tensor([width - 1.0, height - 1.0])
    padded_height, padded_width = (side * 4 for side in dense[1].shape[-2:])
    margin = torch.tensor([(padded_width - width) // 2, (padded_height - height) // 2])
    # Fractions of the padded image from -1 to 1, as PyTorch's own sampling takes them.
    grid = (points + margin + 0.5) / torch.tensor([padded_width, padded_height]) * 2 - 1
    levels = [
        functional.grid_sample(level, grid[:, None], padding_mode="border", align_corners=False)[:, :, 0]
        for level in dense[1:]
    ]
    joined = torch.cat(levels, dim=1).transpose(1, 2)
    expected = network.describe_outer(functional.relu(network.describe_inner(joined)))
    expected = functional.normalize(expected, dim=2)
    torch.testing.assert_close(network.describe(dense, points), expected, atol=1e-4, rtol=0)


def test_a_cell_of_scores_lies_where_its_pixels_are(network: Dotlet, photographs: list[Uint8Array]) -> None:
    image = _grey(photographs[0], 128, 128)
    scores = network.dense(image)[0]
    # A shift by one cell of the lowest level, seen away from the borders.
    shifted = network.dense(torch.roll(image, 32, dims=3))[0]
    moved = torch.roll(scores, 32, dims=3)
    inner = (slice(None), slice(None), slice(48, 80), slice(64, 96))
    apart, spread = (moved - shifted)[inner].abs().mean(), scores[inner].std()
    assert float(apart) < 0.25 * float(spread)


def test_a_recorded_frame_does_what_the_plain_execution_does(network: Dotlet, photographs: list[Uint8Array]) -> None:
    fast = fold_batch_norm(network)
    image = np.ascontiguousarray(photographs[0][:300, :400])
    resize = network_size(300, 400, resize_height=150, max_pixels=10**6, minimum=32)
    (expected,) = PlainExecution(fast, torch.device("cpu")).run([image], resize, _OPTIONS)
    (found,) = whole_frame(fast, [torch.from_numpy(image)], resize, _OPTIONS).unpadded()
    torch.testing.assert_close(found.keypoints, expected.keypoints)
    torch.testing.assert_close(found.descriptors, expected.descriptors)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_finds_most_of_the_points(
    network: Dotlet, precision: str, photographs: list[Uint8Array]
) -> None:
    image = np.ascontiguousarray(photographs[0][:240, :320])
    exact, half = (
        Extractor(
            fold_batch_norm(network),
            "dotlet@seeded00",
            Settings(extractor="dotlet", compile=False, max_num_keypoints=300, precision=chosen),
            torch.device("cpu"),
            has_maps=True,
        ).extract(image)
        for chosen in ("float32", precision)
    )
    apart = torch.cdist(half.keypoints, exact.keypoints).min(dim=1).values
    assert float((apart < 1).float().mean()) > 0.8


def test_it_is_traced_as_one_graph_that_computes_the_same(network: Dotlet, photographs: list[Uint8Array]) -> None:
    # What is compiled on a CPU; without the minute that its C++ takes.
    fast = fold_batch_norm(network)
    image = _grey(photographs[0], 75, 101)
    with torch.no_grad():
        traced = torch.compile(fast.dense, dynamic=False, fullgraph=True, backend="aot_eager")
        for mine, plain in zip(traced(image), fast.dense(image), strict=True):
            torch.testing.assert_close(mine, plain, atol=1e-4, rtol=1e-4)
