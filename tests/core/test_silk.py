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
from feature_frontend.extractors.networks.silk import SILK_CONFIGS, Silk, from_published_names
from feature_frontend.extractors.networks.silk_inference import FusedSilk
from feature_frontend.settings import Settings
from tests.tolerances import PARITY, SILK_PARITY

Uint8Array = npt.NDArray[np.uint8]


def _network(name: str = "silk-vggnp-mu") -> Silk:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Silk(SILK_CONFIGS[name]).eval()


def _crops(photographs: list[Uint8Array], height: int, width: int) -> torch.Tensor:
    """(2, 3, height, width) RGB in [0, 1]."""
    crops = [image[100 : 100 + height, 80 : 80 + width] for image in photographs[:2]]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


def _lively_network(name: str, images: torch.Tensor) -> Silk:
    """A network whose batch norms each do something else, with scales of both signs, and whose scores spread."""
    network, generator = _network(name).to(images.dtype), torch.Generator().manual_seed(2)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.normal_(norm.weight, 0.5, 0.7, generator=generator)
        torch.nn.init.normal_(norm.bias, 0.0, 0.3, generator=generator)
        norm.momentum = 1.0
    torch.nn.init.constant_(network.keypoint_head.norm.weight, 1.5)
    torch.nn.init.zeros_(network.keypoint_head.norm.bias)
    # Statistics of the images themselves keep the signal from fading from layer to layer.
    with torch.no_grad():
        network.train()(images)
    return network.eval()


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
    plain = _extractor(max_num_keypoints=500).extract(image)
    apart = _extractor(max_num_keypoints=500, nms_radius=4).extract(image)

    def closest(points: torch.Tensor) -> float:
        distance = torch.cdist(points, points, p=torch.inf)
        return float(distance.fill_diagonal_(torch.inf).min())

    assert closest(plain.keypoints) == 1
    assert closest(apart.keypoints) > 4
    inner = _extractor(max_num_keypoints=500, border=60).extract(image)
    assert float(inner.keypoints.min()) >= 60
    assert (inner.keypoints <= torch.tensor([640.0 - 61, 480.0 - 61])).all()


def test_rgb_is_converted_to_grey(photographs: list[Uint8Array]) -> None:
    grey = np.ascontiguousarray(photographs[0][:, :, 1])
    extractor = _extractor(max_num_keypoints=200)
    from_grey, from_rgb = extractor.extract_batch([grey])[0], extractor.extract(np.repeat(grey[:, :, None], 3, axis=2))
    distance = torch.cdist(from_grey.keypoints, from_rgb.keypoints).min(dim=1).values
    assert float((distance == 0).float().mean()) > 0.98
    mixed = extractor.extract_batch([grey, photographs[1]])
    torch.testing.assert_close(mixed[1].keypoints, extractor.extract(photographs[1]).keypoints)


def test_weights_of_ones_own_load_from_safetensors(tmp_path: Path, photographs: list[Uint8Array]) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors")
    path = tmp_path / "mine.safetensors"
    safetensors.save_file(_network().state_dict(), path)
    extractor = load_extractor("silk-vggnp-mu", weights_path=str(path), device="cpu", max_num_keypoints=50)
    assert extractor.identity.startswith("silk-vggnp-mu@")
    expected = _extractor(max_num_keypoints=50).extract(photographs[0])
    torch.testing.assert_close(extractor.extract(photographs[0]).keypoints, expected.keypoints)
    with pytest.raises(WeightsError, match=r"mine\.safetensors .*silk-vggnp-1"):
        load_extractor("silk-vggnp-1", weights_path=str(path), device="cpu")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError, match="cannot read weights"):
        load_extractor("silk-vggnp-mu", weights_path=str(path), device="cpu")


def test_a_network_without_weights_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"silk-vggnp-4.*weights_path"):
        load_extractor("silk-vggnp-4", device="cpu")
    with pytest.raises(WeightsError, match=r"/nowhere/a\.ckpt"):
        load_extractor("silk-vggnp-4", weights_path="/nowhere/a.ckpt", device="cpu")


@pytest.mark.parametrize("name", list(SILK_CONFIGS))
def test_the_fused_network_is_the_same_function(name: str, photographs: list[Uint8Array]) -> None:
    images = _crops(photographs, 64, 80).double()
    network = _lively_network(name, images)
    with torch.no_grad():
        logits = FusedSilk.from_reference(network).logits(images)[0]
        torch.testing.assert_close(logits, network(images).logits.float(), atol=1e-6, rtol=1e-6)
    assert float(logits.std()) > 0.5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["silk-vggnp-mu", "silk-vggnp-4"])
@pytest.mark.parametrize("options", [DetectionOptions(300, 0.0, 0, 0), DetectionOptions(300, 0.2, 2, 20)])
def test_the_fused_network_finds_the_same(
    name: str, channels: int, options: DetectionOptions, photographs: list[Uint8Array], shared: Path
) -> None:
    images = _crops(photographs, 128, 170)[:, -channels:]
    network = _network(name)
    weights = shared / "golden" / "silk" / f"{name.removeprefix('silk-')}_seeded.ckpt"
    network.load_state_dict(from_published_names(torch.load(weights, weights_only=True)["state_dict"]))
    fused = FusedSilk.from_reference(network)
    with torch.no_grad():
        expected_logits, logits = network(images).logits, fused.logits(images)[0]
        expected, found = network.extract(images, options), fused.extract(images, options)
    torch.testing.assert_close(logits, expected_logits, atol=SILK_PARITY.logit, rtol=0)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(theirs.keypoints) > 50
        rows = {tuple(point): row for row, point in enumerate(ours.keypoints.tolist())}
        own = {tuple(point): row for row, point in enumerate(theirs.keypoints.tolist())}
        # The last of the budget or the threshold may tie with the next one.
        for point in rows.keys() ^ own.keys():
            score = ours.scores[rows[point]] if point in rows else theirs.scores[own[point]]
            assert float(score - theirs.scores[-1]) < 1e-5
        common = sorted(rows.keys() & own.keys())
        assert len(common) >= 0.99 * len(theirs.keypoints)
        left, right = [rows[point] for point in common], [own[point] for point in common]
        torch.testing.assert_close(ours.scores[left], theirs.scores[right], atol=1e-5, rtol=0)
        cosine = (ours.descriptors[left] * theirs.descriptors[right]).sum(dim=1)
        assert float(cosine.min()) >= PARITY.cosine


def test_the_fused_network_finds_nothing_above_the_highest_score() -> None:
    fused = FusedSilk.from_reference(_network())
    (found,) = fused.extract(torch.rand((1, 1, 60, 80)), DetectionOptions(100, 1.0, 0, 0))
    assert found.keypoints.shape == (0, 2)
    assert found.descriptors.shape == (0, fused.descriptor_dim)


def test_the_fused_dense_part_is_one_graph_for_all_images() -> None:
    fused = FusedSilk.from_reference(_network())
    first, second = torch.rand((2, 1, 3, 40, 56), generator=torch.Generator().manual_seed(3))

    class Dense(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fused = fused

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self.fused.dense(images)

    graph = torch.export.export(Dense(), (first,)).module()
    for ours, expected in zip(graph(second), fused.dense(second), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_fusing_leaves_the_reference_as_it_is() -> None:
    network = _network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    FusedSilk.from_reference(network).to(torch.bfloat16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
