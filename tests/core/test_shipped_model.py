"""The shipped models: they load anywhere, and one is the fallback if other weights are not available."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend import load_extractor, load_matcher
from feature_frontend.errors import WeightsError, WeightsUnavailableError
from feature_frontend.extractors import registry
from feature_frontend.extractors.registry import ExtractorRecord
from feature_frontend.models.catalog import WEIGHTS
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.settings import Settings

Uint8Array = npt.NDArray[np.uint8]


@pytest.fixture
def nothing_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights of ALIKED on this machine, and nobody who offers them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FEATURE_FRONTEND_WEIGHTS", raising=False)
    elsewhere = replace(WEIGHTS["aliked-n16"], url="http://127.0.0.1:9/n16.pth")
    unreachable = ExtractorRecord(registry.EXTRACTORS["aliked-n16"].build, elsewhere)
    monkeypatch.setitem(registry.EXTRACTORS, "aliked-n16", unreachable)


@pytest.mark.usefixtures("nothing_at_hand")
@pytest.mark.parametrize("name", ["dotlet", "silk-vggnp-mu"])
def test_it_needs_nothing_but_the_package(name: str, photographs: list[Uint8Array]) -> None:
    extractor = load_extractor(name, device="cpu", max_num_keypoints=500, compile=False)
    assert extractor.identity == f"{name}@{WEIGHTS[name].sha256[:8]}"
    features0, features1 = extractor.extract(photographs[0]), extractor.extract(photographs[1])
    matches = load_matcher("mnn").match(features0, features1)
    assert len(features0) == len(features1) == 500
    moved = features1.keypoints[matches.indices1] - features0.keypoints[matches.indices0]
    # The camera turns a little between the frames: right matches agree roughly on the direction.
    near = (moved - moved.median(dim=0).values).norm(dim=1) < 15
    assert int(near.sum()) > 100


@pytest.mark.usefixtures("nothing_at_hand")
def test_it_stands_in_and_says_so(photographs: list[Uint8Array]) -> None:
    settings = Settings(extractor="aliked-n16", device="cpu", max_num_keypoints=100, compile=False)
    frontend = Frontend.from_pretrained(settings)
    assert frontend.extractor.identity.startswith("dotlet@")
    assert "instead of aliked-n16: weights aliked-n16.pth not found in" in frontend.notice
    assert "\n" not in frontend.notice
    assert len(frontend.process(photographs[0], 0).features) == 100


@pytest.mark.usefixtures("nothing_at_hand")
def test_it_stands_in_only_where_it_may() -> None:
    with pytest.raises(WeightsUnavailableError, match=r"aliked-n16\.pth"):
        Frontend.from_pretrained(Settings(extractor="aliked-n16", device="cpu", fallback_extractor=""))
    with pytest.raises(WeightsUnavailableError):
        load_extractor("aliked-n16", device="cpu")


def test_a_wrong_file_is_an_error_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "aliked-n16.pth").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"aliked-n16\.pth"):
        Frontend.from_pretrained(Settings(extractor="aliked-n16", device="cpu", weights_dir=str(tmp_path)))


@pytest.mark.parametrize("name", ["dotlet", "silk-vggnp-mu"])
def test_a_card_says_where_a_model_comes_from(name: str) -> None:
    folder = Path(registry.__file__).resolve().parents[1] / "models"
    text = (folder / f"{name}.md").read_text(encoding="utf-8")
    for part in ("data", "licence", "steps", "20"):
        assert part in text.lower()
    card = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    assert card["sha256"] == WEIGHTS[name].sha256
    assert WEIGHTS[name].sha256 in text
    assert card["data_licence"] in text
    assert "research" not in card["data_licence"]
    # The package is to stay small.
    assert (folder / f"{name}.safetensors").stat().st_size == WEIGHTS[name].size_bytes
    assert WEIGHTS[name].size_bytes < (1.5e6 if name == "dotlet" else 6e6)
