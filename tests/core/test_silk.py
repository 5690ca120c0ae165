"""SiLK's networks: sizes, borders, keypoints and descriptors, loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend import load_extractor
from feature_frontend.errors import WeightsError
from feature_frontend.extractors.base import DetectionOptions
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.extractors.silk import SILK_CONFIGS, Silk
from feature_frontend.settings import Settings

Uint8Array = npt.NDArray[np.uint8]


def _network(name: str = "silk-vggnp-mu") -> Silk:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Silk(SILK_CONFIGS[name]).eval()


def _extractor(**parameters: object) -> Extractor:
    settings = Settings.from_mapping(parameters)
    return Extractor(_network(), "silk-vggnp-mu@seeded00", settings, torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "thousands", "border"),
    [
        ("silk-vggnp-4", 942, 9),
        ("silk-vggnp-3", 868, 7),
        ("silk-vggnp-2", 757, 5),
        ("silk-vggnp-1", 461, 3),
        ("silk-vggnp-mu", 76, 3),
    ],
)
def test_networks_are_those_of_table_7(name: str, thousands: int, border: int) -> None:
    network = _network(name)
    assert sum(parameter.numel() for parameter in network.parameters()) // 1000 == thousands
    maps = network(torch.rand((2, 1, 40, 50), generator=torch.Generator().manual_seed(0)))
    assert network.config.border_px == border
    assert maps.logits.shape == (2, 1, 40 - 2 * border, 50 - 2 * border)
    assert maps.descriptors.shape[1:] == (network.descriptor_dim, 40 - 2 * border, 50 - 2 * border)


def test_keypoints_are_the_best_of_the_dense_map_with_its_descriptors() -> None:
    network = _network()
    images = torch.rand((2, 1, 60, 80), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = network(images)
        found = network.extract(images, DetectionOptions(25, 0.0, 0, 0))
    for features, logits, descriptors in zip(found, maps.logits, maps.descriptors, strict=True):
        best = torch.sigmoid(logits[0]).flatten().sort(descending=True).values[:25]
        torch.testing.assert_close(features.scores, best)
        x, y = (features.keypoints - 3).long().T
        torch.testing.assert_close(torch.sigmoid(logits[0])[y, x], features.scores)
        dense = torch.nn.functional.normalize(descriptors[:, y, x].T, dim=1)
        torch.testing.assert_close(features.descriptors, dense, atol=1e-5, rtol=1e-5)


def test_the_budget_holds_also_where_all_scores_tie() -> None:
    network = _network()
    torch.nn.init.zeros_(network.keypoint_head.norm.weight)
    (found,) = network.extract(torch.rand((1, 1, 200, 300)), DetectionOptions(100, 0.0, 0, 0))
    assert len(found.keypoints) == 100


def test_suppression_and_border_are_options(photographs: list[Uint8Array]) -> None:
    image = photographs[0]
    plain = _extractor(max_num_keypoints=500)(image)
    apart = _extractor(max_num_keypoints=500, nms_radius=4)(image)

    def closest(points: torch.Tensor) -> float:
        distance = torch.cdist(points, points, p=torch.inf)
        return float(distance.fill_diagonal_(torch.inf).min())

    assert closest(plain.keypoints) == 1
    assert closest(apart.keypoints) > 4
    inner = _extractor(max_num_keypoints=500, border=60)(image)
    assert float(inner.keypoints.min()) >= 60
    assert (inner.keypoints <= torch.tensor([640.0 - 61, 480.0 - 61])).all()


def test_rgb_is_converted_to_grey(photographs: list[Uint8Array]) -> None:
    grey = np.ascontiguousarray(photographs[0][:, :, 1])
    extractor = _extractor(max_num_keypoints=200)
    from_grey, from_rgb = extractor.extract([grey])[0], extractor(np.repeat(grey[:, :, None], 3, axis=2))
    distance = torch.cdist(from_grey.keypoints, from_rgb.keypoints).min(dim=1).values
    assert float((distance == 0).float().mean()) > 0.98
    mixed = extractor.extract([grey, photographs[1]])
    torch.testing.assert_close(mixed[1].keypoints, extractor(photographs[1]).keypoints)


def test_weights_of_ones_own_load_from_safetensors(tmp_path: Path, photographs: list[Uint8Array]) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors")
    path = tmp_path / "mine.safetensors"
    safetensors.save_file(_network().state_dict(), path)
    extractor = load_extractor("silk-vggnp-mu", weights_path=str(path), device="cpu", max_num_keypoints=50)
    assert extractor.identity.startswith("silk-vggnp-mu@")
    expected = _extractor(max_num_keypoints=50)(photographs[0])
    torch.testing.assert_close(extractor(photographs[0]).keypoints, expected.keypoints)
    with pytest.raises(WeightsError, match=r"mine\.safetensors do not fit silk-vggnp-1"):
        load_extractor("silk-vggnp-1", weights_path=str(path), device="cpu")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError, match="cannot read weights"):
        load_extractor("silk-vggnp-mu", weights_path=str(path), device="cpu")


def test_a_network_without_weights_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no published weights of silk-vggnp-4.*weights_path"):
        load_extractor("silk-vggnp-4", device="cpu")
    with pytest.raises(WeightsError, match=r"cannot read weights /nowhere/a\.ckpt"):
        load_extractor("silk-vggnp-4", weights_path="/nowhere/a.ckpt", device="cpu")
