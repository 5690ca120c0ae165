"""The value "auto" of the parameter `extractor`: what it stands for, once, and with what it is refused."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from feature_frontend import load_extractor
from feature_frontend.errors import SettingsError, WeightsError, WeightsUnavailableError
from feature_frontend.extractors import automatic
from feature_frontend.extractors.automatic import preferred_extractor, with_extractor
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.settings import PARAMETERS, Settings


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which device auto is a GPU; nothing computes on it."""
    monkeypatch.setattr(automatic, "resolve_device", lambda _name: torch.device("cuda", 0))


def _weights(monkeypatch: pytest.MonkeyPatch, problem: Exception | None) -> None:
    def ensure(*_: object) -> None:
        if problem is not None:
            raise problem

    monkeypatch.setattr(automatic, "ensure_weights", ensure)


def test_it_is_the_default_and_dotlet_without_a_gpu() -> None:
    assert Settings().extractor == PARAMETERS["extractor"].default == "auto"
    frontend = Frontend.from_pretrained(device="cpu", compile=False)
    assert (frontend.settings.extractor, frontend.notice) == ("dotlet", "")
    assert frontend.extractor.settings.extractor == "dotlet"
    extractor = load_extractor(device="cpu", compile=False)
    assert extractor.identity == frontend.extractor.identity
    assert extractor.settings.extractor == "dotlet"


@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_it_is_aliked_with_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    _weights(monkeypatch, None)
    settings = Settings(max_num_keypoints=7)
    assert with_extractor(settings) == (replace(settings, extractor="aliked-n16"), "")
    _weights(monkeypatch, WeightsUnavailableError("no network"))
    chosen, notice = with_extractor(settings)
    assert chosen == replace(settings, extractor="dotlet")
    assert notice == "using dotlet, which comes with this package, instead of aliked-n16: no network"
    _weights(monkeypatch, WeightsError("another file has that name"))
    with pytest.raises(WeightsError, match="another file"):
        with_extractor(settings)


@pytest.mark.usefixtures("gpu")
def test_what_is_missing_on_a_gpu_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    _weights(monkeypatch, WeightsUnavailableError("no network"))
    frontend = Frontend.from_pretrained(device="cpu", compile=False)
    assert frontend.notice.endswith("no network")
    with caplog.at_level(logging.WARNING):
        load_extractor(device="cpu", compile=False)
    assert [record.getMessage() for record in caplog.records] == [frontend.notice]


def test_a_name_stays_as_it_is() -> None:
    settings = Settings(extractor="sift", weights_path="x")
    assert with_extractor(settings) == (settings, "")
    assert preferred_extractor(settings) == "sift"


def test_what_needs_a_certain_network_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"weights_path is 'mine\.pth' and extractor 'auto'.* to name the network"):
        Frontend.from_pretrained(weights_path="mine.pth", device="cpu")
    for extractor in ("auto", "dotlet"):
        with pytest.raises(SettingsError, match=rf"'{extractor}'; expected one of aliked-n16, aliked-n16rot, aliked-"):
            Settings(extractor=extractor, matcher="lightglue")
    assert Settings(tracker="persistent").extractor == "auto"


def test_a_network_for_research_is_allowed_but_not_offered() -> None:
    assert "residual-sift-ablation" not in PARAMETERS["extractor"].choices
    assert Settings(extractor="residual-sift-ablation").extractor == "residual-sift-ablation"
    with pytest.raises(SettingsError) as refusal:
        Settings(extractor="residual-sift-x")
    assert "ablation" not in str(refusal.value)
