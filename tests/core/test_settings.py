"""The parameter table and its checks."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from feature_frontend.errors import SettingsError
from feature_frontend.settings import PARAMETERS, Settings


def test_every_parameter_is_declared_once_with_its_description() -> None:
    groups = [set(group.records()) for group in Settings.__bases__]
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(PARAMETERS)
    for record in PARAMETERS.values():
        assert len(record.description) > 20
        assert record.check(record.default) == record.default
        assert (record.minimum is None) == (record.maximum is None)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_num_keypoints", 0, "max_num_keypoints is 0.* int from 1 to 50000"),
        ("max_num_keypoints", 1.5, "max_num_keypoints is 1.5.* int"),
        ("max_num_keypoints", True, "max_num_keypoints is True"),
        ("detection_threshold", math.nan, "detection_threshold is nan.* float from 0.0 to 1.0"),
        ("detection_threshold", "high", "detection_threshold is 'high'"),
        ("precision", "int8", "precision is 'int8'.* float32, float16, bfloat16"),
        ("weights_dir", None, "weights_dir is None.* str"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_possible(name: str, value: object, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        Settings.from_mapping({name: value})


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(SettingsError, match=r"max_pixels is 1\b.*min_similarity is -2\.0"):
        Settings(min_similarity=-2.0, max_pixels=1)


def test_whole_numbers_serve_as_floats() -> None:
    value = Settings.from_mapping({"min_similarity": 0}).min_similarity
    assert type(value) is float


def test_settings_cannot_change_under_a_running_stage() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().nms_radius = 3  # type: ignore[misc]


def test_the_persistent_tracker_wants_a_network_with_a_score_map() -> None:
    assert Settings(tracker="persistent", extractor="silk-vggnp-mu").tracker == "persistent"
    with pytest.raises(SettingsError, match=r"sift has no score map.*chain.* aliked-t16"):
        Settings(tracker="persistent", extractor="sift")


def test_a_former_name_works_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    former = {record.formerly: record.name for record in PARAMETERS.values() if record.formerly}
    assert former
    assert not former.keys() & PARAMETERS.keys()
    for old, name in former.items():
        value = PARAMETERS[name].maximum
        caplog.clear()
        assert getattr(Settings.from_mapping({old: value}), name) == value
        assert re.search(rf"{old} .*\b{name}\b", caplog.text)
        assert getattr(Settings.from_mapping({name: value, old: PARAMETERS[name].minimum}), name) == value
