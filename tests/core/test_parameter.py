"""Parameter values as text, and misspelled names."""

from __future__ import annotations

import pytest

from feature_frontend.errors import SettingsError
from feature_frontend.settings import PARAMETERS
from feature_frontend.system.text import nearest_name


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_text_of_a_default_reads_as_the_default(name: str) -> None:
    record = PARAMETERS[name]
    read = record.read(str(record.default))
    assert (type(read), read) == (type(record.default), record.default)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("ratio_threshold", "1", 1.0),
        ("ratio_threshold", "8e-1", 0.8),
        ("compile", "False", False),
        ("compile", "TRUE", True),
        ("max_num_keypoints", "77", 77),
        ("weights_dir", "5", "5"),
        ("weights_dir", "true", "true"),
    ],
)
def test_a_text_reads_in_the_parameters_type(name: str, text: str, value: object) -> None:
    read = PARAMETERS[name].read(text)
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("max_num_keypoints", "many", "max_num_keypoints is 'many'.* int from 1"),
        ("max_num_keypoints", "7.5", "max_num_keypoints is '7.5'.* int"),
        ("max_num_keypoints", "0", "max_num_keypoints is 0.* 1 to 50000"),
        ("ratio_threshold", "nan", "ratio_threshold is nan.* 0.01 to 1.0"),
        ("compile", "1", "compile is '1'.* bool"),
        ("tracker", "chains", "tracker is 'chains'.* chain, persistent"),
    ],
)
def test_a_text_that_is_no_such_value_is_refused(name: str, text: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        PARAMETERS[name].read(text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("max_num_keypoint", "max_num_keypoints"),
        ("maxNumKeypoints", "max_num_keypoints"),
        ("max-num-keypoints", "max_num_keypoints"),
        ("DEVICE", "device"),
        ("xyzzy", ""),
    ],
)
def test_the_nearest_name_is_found(name: str, expected: str) -> None:
    assert nearest_name(name, PARAMETERS, 0.6) == expected
