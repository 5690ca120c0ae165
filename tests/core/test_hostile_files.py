"""Damaged weight files and invalid parameter values: refused with the project's own errors only."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from feature_frontend.errors import SettingsError, WeightsError
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.models.catalog import WEIGHTS
from feature_frontend.models.weights import find_weights, own_weights
from feature_frontend.settings import PARAMETERS, ExtractionSettings, Settings
from tests.campaign import Campaign
from tests.conftest import NEEDS_TORCH_FOR_PTH
from tests.generated import damaged_files, for_each


def _shipped() -> bytes:
    found = find_weights(WEIGHTS["silk-vggnp-mu"])
    assert found is not None
    return found.path.read_bytes()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "suffix", [".safetensors", *(pytest.param(suffix, marks=NEEDS_TORCH_FOR_PTH) for suffix in (".pth", ".old.pth"))]
)
def test_damaged_weights_are_refused_or_are_tensors(suffix: str, tmp_path: Path, campaign: Campaign) -> None:
    path = tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        whole = _shipped()
    else:
        # The old format is a bare pickle, the new one an archive with a pickle in it.
        tensors = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.zeros(2)}
        torch.save(tensors, path, _use_new_zipfile_serialization=suffix == ".pth")
        whole = path.read_bytes()
    outcomes: Counter[str] = Counter()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            state = own_weights("net", path).load()
        except WeightsError as error:
            outcomes["refused" if str(path) in str(error) and "\n" not in str(error) else "without its reason"] += 1
        else:
            assert all(isinstance(value, torch.Tensor) for value in state.values())
            outcomes["taken"] += 1

    count = campaign.count(3000, "files")
    for_each(damaged_files([whole]), count, check, campaign.seed)
    assert outcomes.keys() == {"taken", "refused"}
    assert outcomes["refused"] > count // 3


def test_weights_that_fit_no_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    settings = ExtractionSettings(extractor="silk-vggnp-mu", weights_path=str(path), device="cpu", compile=False)
    for content in ({}, {"layer": torch.zeros(1)}, {7: torch.zeros(1)}, {"state_dict": 3}, [torch.zeros(1)], "text"):
        torch.save(content, path)
        with pytest.raises(WeightsError, match=r"net\.pth"):
            Extractor.from_pretrained(settings)


_values: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.binary(max_size=5),
)


@st.composite
def _assignments(draw: st.DrawFn) -> tuple[str, Any]:
    """A parameter, and a value that it may have, or any other; sometimes a name that no parameter has."""
    record = draw(st.sampled_from(list(PARAMETERS.values())))
    allowed = [record.default, *record.choices, *(v for v in (record.minimum, record.maximum) if v is not None)]
    value = draw(st.one_of(st.sampled_from(allowed), st.sampled_from(allowed), _values))
    return draw(st.sampled_from([*[record.name] * 9, f"{record.name}s"])), value


def test_parameter_values_of_any_kind_are_taken_or_named(campaign: Campaign) -> None:
    outcomes: Counter[str] = Counter()

    def check(values: dict[str, Any]) -> None:
        try:
            settings = Settings.from_mapping(values)
        except SettingsError as error:
            outcomes["refused" if any(name in str(error) for name in values) else "without its reason"] += 1
        else:
            for name, record in PARAMETERS.items():
                assert type(getattr(settings, name)) is type(record.default)
            outcomes["taken"] += 1

    count = campaign.count(5000, "sets of values")
    for_each(st.lists(_assignments(), max_size=3).map(dict), count, check, campaign.seed)
    assert outcomes.keys() == {"taken", "refused"}
    assert min(outcomes.values()) > count // 10
