"""Residual descriptors: hand-crafted keypoints, and a network that looks at the image around them."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from feature_frontend import load_extractor
from feature_frontend.errors import SettingsError, WeightsError
from feature_frontend.extractors.networks.residual_sift import RESIDUAL_CONFIGS, Residual, fold_batch_norm
from feature_frontend.models.weights import own_weights
from tests.core.seeded import seeded_residual

Uint8Array = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seeded") / "residual.safetensors"
    save_file(seeded_residual().state_dict(), path)
    return path


def test_the_descriptor_is_the_sampled_feature_beside_the_refined_sift() -> None:
    network = seeded_residual()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((1, 3, 72, 100), generator=generator)
    by_hand = functional.normalize(torch.rand((3, 128), generator=generator), dim=1)
    # The centre of the cell in row 2, column 4; half-way to the next column; and beyond the last cells' centres.
    points = torch.tensor([[4 * 8 + 3.5, 2 * 8 + 3.5], [4 * 8 + 7.5, 2 * 8 + 3.5], [99.0, 71.0]])
    with torch.no_grad():
        (found,) = network(image, [points], [by_hand])
        feature_map = network.encoder(image)[0]
        assert network.refine is not None
        refined = network.refine(by_hand * 128**0.5)
    assert feature_map.shape == (128, 9, 12)
    sampled = [feature_map[:, 2, 4], feature_map[:, 2, 4:6].mean(dim=1), feature_map[:, -1, -1]]
    torch.testing.assert_close(found, functional.normalize(torch.cat([torch.stack(sampled), refined], dim=1), dim=1))


def test_a_new_network_begins_with_what_sift_knows() -> None:
    network = Residual(RESIDUAL_CONFIGS["residual-sift"]).train()
    by_hand = functional.normalize(torch.rand((50, 128), generator=torch.Generator().manual_seed(0)), dim=1)
    image = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    points = 64 * torch.rand((50, 2), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        (found,) = network(image, [points], [by_hand])
        assert network.refine is not None
        torch.testing.assert_close(network.refine(by_hand), by_hand)
    assert float((found[:, 128:] * by_hand).sum(dim=1).min()) > 0.9


def test_the_points_are_those_of_sift(weights: Path, photographs: list[Uint8Array]) -> None:
    image = np.ascontiguousarray(photographs[0][:240, :320])
    sift = load_extractor("sift", max_num_keypoints=200).extract(image)
    extractor = load_extractor("residual-sift", weights_path=str(weights), max_num_keypoints=200, device="cpu")
    features = extractor.extract(image)
    for name in ("keypoints", "scores", "sizes", "angles", "covariances"):
        assert torch.equal(getattr(features, name), getattr(sift, name))
    assert features.extractor == extractor.identity == own_weights("residual-sift", weights).identity
    assert features.descriptors.shape == (200, 256)
    torch.testing.assert_close(features.descriptors.norm(dim=1), torch.ones(200))
    assert torch.equal(pickle.loads(pickle.dumps(extractor)).extract(image).descriptors, features.descriptors)
    assert len(extractor.extract(image, mask=np.zeros((240, 320), np.uint8))) == 0
    grey = extractor.extract(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8))
    assert torch.equal(grey.keypoints, features.keypoints)
    assert float((grey.descriptors - features.descriptors).abs().max()) > 1e-4, "the network sees colours"


def test_reduced_precision_gives_nearly_the_same(weights: Path, photographs: list[Uint8Array]) -> None:
    image = np.ascontiguousarray(photographs[0][:120, :160])
    full, half = (
        load_extractor("residual-sift", weights_path=str(weights), precision=precision, device="cpu").extract(image)
        for precision in ("float32", "bfloat16")
    )
    assert half.descriptors.dtype == torch.bfloat16
    assert float((full.descriptors * half.descriptors.float()).sum(dim=1).min()) > 0.99


@pytest.mark.parametrize("name", ["residual-sift", "residual-sift-ablation"])
def test_folding_batch_norm_changes_nothing(name: str) -> None:
    image = torch.rand((1, 3, 40, 48), generator=torch.Generator().manual_seed(0))
    points, by_hand = torch.tensor([[10.0, 20.0], [30.0, 8.0]]), functional.normalize(torch.ones((2, 128)), dim=1)
    with torch.no_grad():
        (plain,) = seeded_residual(name)(image, [points], [by_hand])
        folded = fold_batch_norm(seeded_residual(name))
        (fast,) = folded(image, [points], [by_hand])
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.encoder)
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=0)
    assert plain.shape == (2, 256)


def test_what_is_not_there_is_said(weights: Path) -> None:
    for name in ("residual-sift", "residual-sift-upright", "residual-rootsift"):
        with pytest.raises(WeightsError, match=f"{name}.*train --model {name}.*weights_path.*sift and dotlet"):
            load_extractor(name)
    with pytest.raises(WeightsError, match=r"residual\.safetensors .*residual-sift-ablation"):
        load_extractor("residual-sift-ablation", weights_path=str(weights))
    if hasattr(cv2, "xfeatures2d"):
        pytest.skip("this OpenCV may have SURF")
    with pytest.raises(SettingsError, match="SURF"):
        load_extractor("residual-surf")
