"""LightGlue: the wrapper of kornia's network, with random weights and, if available, the published ones."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from feature_frontend import Features, load_extractor, load_matcher
from feature_frontend.errors import MatchingError, SettingsError, WeightsError
from feature_frontend.matchers import lightglue
from feature_frontend.matchers.base import MatchingOptions
from feature_frontend.matchers.lightglue import LightGlueMatcher, LightGlueNetwork, build_lightglue
from feature_frontend.models.catalog import MATCHER_MODELS, WEIGHTS
from feature_frontend.models.weights import find_weights
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.settings import Settings
from feature_frontend.types import FrameState
from feature_frontend_lab.evaluation.homography.baselines import MethodOptions, load_methods
from feature_frontend_lab.evaluation.homography.benchmark import HomographyBenchmark, evaluate_methods, select_images
from feature_frontend_lab.evaluation.tracks.pairs import evaluate_pairs
from feature_frontend_lab.evaluation.tracks.sequence import SequenceOptions, open_sequence
from tests.core.seeded import seeded_network

Uint8Array = npt.NDArray[np.uint8]
_OPTIONS = MatchingOptions(-1.0, 1.0, 0.1, 0.0, lightglue_threshold=0.0)
_FRAME_NS = 100_000_000


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """The network of kornia with random weights."""
    pytest.importorskip("kornia", reason="needs kornia (pip install kornia==0.9.0; make benchmark does)")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_lightglue()


@pytest.fixture(scope="module")
def weights(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights in a file, named as in the published one."""
    state = {}
    for name, tensor in network.state_dict().items():
        parts = name.split(".")
        if parts[0] == "transformers":
            parts[:3] = [parts[2], parts[1]]
        if name != "confidence_thresholds":
            state[".".join(parts)] = tensor
    path = tmp_path_factory.mktemp("seeded") / "lightglue.pth"
    torch.save(state, path)
    return path


def _features(count: int, seed: int, extractor: str = "aliked-n16@seeded00", length: int = 128) -> Features:
    generator = torch.Generator().manual_seed(seed)
    # Also half a pixel outside of the outer pixels' centres.
    points = torch.rand((count, 2), generator=generator) * torch.tensor([640.0, 480.0]) - 0.5
    descriptors = nn.functional.normalize(torch.randn((count, length), generator=generator), dim=1)
    return Features(points, torch.ones(count), descriptors, 480, 640, extractor)


def test_matches_are_those_of_the_network(network: nn.Module) -> None:
    features0, features1 = _features(60, 0), _features(50, 1)
    matches = LightGlueMatcher(_OPTIONS, LightGlueNetwork(network)).match(features0, features1)
    size = torch.tensor([[640.0, 480.0]])
    inputs = {
        name: {
            "keypoints": torch.minimum(one.keypoints.clamp(min=0), size - 1)[None],
            "descriptors": one.descriptors[None],
            "image_size": size,
        }
        for name, one in (("image0", features0), ("image1", features1))
    }
    with torch.no_grad():
        result = network(inputs)
    expected = result["matches0"][0]
    rows = (expected >= 0).nonzero()[:, 0]
    assert len(matches) == len(rows) > 5
    assert torch.equal(matches.indices0, rows)
    assert torch.equal(matches.indices1, expected[rows])
    similarities = features0.descriptors @ features1.descriptors.T
    torch.testing.assert_close(matches.similarity, similarities[matches.indices0, matches.indices1])
    others = similarities[matches.indices0].scatter(1, matches.indices1[:, None], -2.0)
    torch.testing.assert_close(matches.margin, matches.similarity - others.amax(dim=1))
    assert (matches.margin < 0).any()

    scores = result["scores"][0].sort().values
    gated = replace(_OPTIONS, lightglue_threshold=float(scores[len(scores) // 2]))
    assert 0 < len(LightGlueMatcher(gated, LightGlueNetwork(network)).match(features0, features1)) < len(matches)
    similar = LightGlueMatcher(replace(_OPTIONS, min_similarity=0.0), LightGlueNetwork(network)).match(
        features0, features1
    )
    assert len(similar) == int((matches.similarity >= 0).sum())
    nothing = LightGlueMatcher(_OPTIONS, LightGlueNetwork(network)).match(features0, _features(0, 1))
    assert (len(nothing), nothing.matcher) == (0, "lightglue")


def test_other_descriptors_are_refused(network: nn.Module) -> None:
    matcher = LightGlueMatcher(_OPTIONS, LightGlueNetwork(network))
    assert MATCHER_MODELS[matcher.name].takes_padding == hasattr(matcher, "padded")
    for extractor, length in (("aliked-t16@seeded00", 64), ("sift@opencv", 128)):
        features = _features(5, 0, extractor, length)
        with pytest.raises(MatchingError, match=rf"aliked-n16, .*{extractor}.* mnn"):
            matcher.match(features, features)
    with pytest.raises(MatchingError, match=r"aliked-n16@.* aliked-n32@seeded00"):
        matcher.match(_features(5, 0), _features(5, 1, "aliked-n32@seeded00"))


def test_weights_come_from_a_file_and_are_loaded_once(
    weights: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    features0, features1 = _features(60, 0), _features(50, 1)
    expected = LightGlueMatcher(_OPTIONS, LightGlueNetwork(network)).match(features0, features1)
    loaded = load_matcher("lightglue", lightglue_weights_path=str(weights), lightglue_threshold=0.0)
    assert torch.equal(loaded.match(features0, features1).indices1, expected.indices1)
    monkeypatch.setattr(lightglue, "own_weights", None)
    again = load_matcher("lightglue", lightglue_weights_path=str(weights), lightglue_threshold=1.0)
    assert len(again.match(features0, features1)) == 0


def test_a_frontend_matches_by_it(weights: Path, tmp_path: Path, photographs: list[Uint8Array]) -> None:
    torch.save(seeded_network("aliked-n16").state_dict(), tmp_path / "aliked.pth")
    settings = Settings(
        extractor="aliked-n16",
        matcher="lightglue",
        lightglue_weights_path=str(weights),
        lightglue_threshold=0.0,
        weights_path=str(tmp_path / "aliked.pth"),
        max_num_keypoints=50,
        resize_height=120,
        compile=False,
        device="cpu",
    )
    frontend = Frontend.from_pretrained(settings)
    results = [frontend.process(image, number * _FRAME_NS) for number, image in enumerate(photographs[:2])]
    assert [result.state for result in results] == [FrameState.FIRST, FrameState.OK]
    assert results[1].matches.matcher == "lightglue"
    frontend.configure(replace(settings, lightglue_threshold=1.0))
    assert len(frontend.process(photographs[2], 2 * _FRAME_NS).matches) == 0


def test_a_matcher_and_an_extractor_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"'lightglue' .*'sift'.* aliked-n16"):
        Settings(matcher="lightglue", extractor="sift")


def test_weights_that_are_missing_or_do_not_fit_are_named(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"self_attn.0.x": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth .*lightglue.* transformers\.0\.self_attn\.x"):
        load_matcher("lightglue", lightglue_weights_path=str(tmp_path / "other.pth"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FEATURE_FRONTEND_WEIGHTS", raising=False)
    unreachable = replace(WEIGHTS["aliked_lightglue"], url="http://127.0.0.1:9/aliked_lightglue.pth")
    monkeypatch.setitem(WEIGHTS, "aliked_lightglue", unreachable)
    with pytest.raises(WeightsError, match=r"aliked_lightglue\.pth .*export FEATURE_FRONTEND_WEIGHTS="):
        load_matcher("lightglue")


def test_kornia_is_imported_only_when_it_is_chosen() -> None:
    program = (
        "import sys\n"
        "sys.modules['kornia'] = None\n"
        "from feature_frontend import load_matcher\n"
        "from feature_frontend.errors import SettingsError\n"
        "load_matcher('mnn')\n"
        "try:\n"
        "    load_matcher('lightglue')\n"
        "except SettingsError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert "matcher lightglue needs the Python package kornia" in run.stdout
    assert "pip install kornia" in run.stdout


@pytest.fixture
def published_dir(network: nn.Module, weights_dir: str) -> str:
    """Folder to look in for the published weights of ALIKED and LightGlue; skips where they are nowhere."""
    if find_weights(WEIGHTS["aliked_lightglue"], weights_dir) is None:
        pytest.skip("needs the published weights of LightGlue (feature_frontend weights fetch aliked_lightglue)")
    return weights_dir


def test_the_published_weights_do_what_kornia_does_with_them(published_dir: str, photographs: list[Uint8Array]) -> None:
    extractor = load_extractor("aliked-n16", weights_dir=published_dir, max_num_keypoints=1000, device="cpu")
    features0, features1 = extractor.extract(photographs[0]), extractor.extract(photographs[2])
    matches = LightGlueMatcher.from_pretrained(MatchingOptions(-1.0, 1.0, 0.1, 0.0, weights_dir=published_dir)).match(
        features0, features1
    )
    # With its own threshold, and names as in its own loading.
    reference = importlib.import_module("kornia.feature").LightGlue(features=None, input_dim=128).eval()
    found = find_weights(WEIGHTS["aliked_lightglue"], published_dir)
    assert found is not None
    state = {
        re.sub(r"^(self_attn|cross_attn)\.(\d+)", r"transformers.\2.\1", name): value
        for name, value in found.load().items()
    }
    assert reference.load_state_dict(state, strict=False).unexpected_keys == []
    inputs = {
        name: {
            "keypoints": one.keypoints[None],
            "descriptors": one.descriptors[None],
            "image_size": torch.tensor([[640.0, 480.0]]),
        }
        for name, one in (("image0", features0), ("image1", features1))
    }
    with torch.no_grad():
        expected = reference(inputs)["matches"][0]
    assert len(matches) > 500
    rows = zip(matches.indices0.tolist(), matches.indices1.tolist(), strict=True)
    assert set(map(tuple, expected.tolist())) == set(rows)


@pytest.mark.slow
def test_more_of_its_matches_are_right_than_of_nearest_neighbors(
    published_dir: str, shared: Path, report_figure: Callable[[str], None]
) -> None:
    methods = load_methods(
        ["aliked-n16", "aliked-n16+lightglue"], MethodOptions(device="cpu", weights_dir=published_dir)
    )
    benchmark = HomographyBenchmark(image_count=6, homographies=1, keypoints=(1000,))
    files = select_images(shared / "images" / "val", benchmark.image_count, benchmark.seed)
    nearest, lightglue = evaluate_methods(methods, files, benchmark)
    assert nearest.matching_accuracy is not None
    assert lightglue.matching_accuracy is not None
    within_3_px = f"LightGlue {lightglue.matching_accuracy[-1]:.3f}, mnn {nearest.matching_accuracy[-1]:.3f}"
    report_figure(f"matches within 3 px on {nearest.pairs} warped photographs, aliked-n16: {within_3_px}")
    assert lightglue.matching_accuracy[-1] > nearest.matching_accuracy[-1] + 0.05

    sequence = open_sequence(str(shared / "data" / "kitti00"), SequenceOptions(count=8))
    of_nearest, of_lightglue = evaluate_pairs(methods, sequence, [5], 1000, 3.0)
    within_3_px = f"LightGlue {of_lightglue.precision:.3f}, mnn {of_nearest.precision:.3f}"
    report_figure(f"matches within 3 px of the true epipolar line, KITTI 00, 5 frames apart: {within_3_px}")
    assert of_lightglue.precision > of_nearest.precision + 0.03
    assert of_lightglue.rotation_deg < 2 * of_nearest.rotation_deg
