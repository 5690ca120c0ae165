"""Parameter files: which entries apply, and the warnings. tests/ros/test_parameter_files.py compares with ROS."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from feature_frontend.errors import SettingsError
from feature_frontend.settings import PARAMETERS
from feature_frontend.settings.parameter_file import read_parameter_files
from feature_frontend.system.yaml_text import MAX_BYTES


def _read(folder: Path, *texts: str, node: str | None = "/frontend") -> dict[str, object]:
    paths = []
    for number, text in enumerate(texts):
        paths.append(folder / f"{number}.yaml")
        paths[-1].write_text(text)
    return read_parameter_files(paths, node)


def test_names_of_other_nodes_under_a_pattern_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = (
        "/**:\n  ros__parameters:\n    framerate: 30.0\n    camera: {exposure: 5, gain: {auto: true}}\n"
        "    use_sim_time: true\n    qos_overrides: {/image: {subscription: {depth: 5}}}\n    max_num_keypoints: 77\n"
    )
    assert _read(tmp_path, text) == {"max_num_keypoints": 77}
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("frontend: {ros__parameters: {max_keypoints: 5}}", "max_keypoints .*max_num_keypoints"),
        ("/**: {ros__parameters: {max_keypoints: 5}}", "max_keypoints .*max_num_keypoints"),
        ("/**: {ros__parameters: {maxNumKeypoints: 5}}", "maxNumKeypoints .*max_num_keypoints"),
        ("/*: {ros__parameters: {image-qos: best_effort}}", "image-qos .*image_qos"),
        ("/frontend: {ros__parameters: {zzz: 5}}", "zzz"),
        ("/frontend: {ros__parameters: {zzz: 5, yyy: 6}}", "zzz, yyy"),
        (
            "/**: {ros__parameters: {zzz: 5}}\nfrontend: {ros__parameters: {zzz: 5}}",
            "zzz",
        ),
        (
            "frontend: {ros__parameters: {qos_overrides: {/image: {subscription: {depth: 5}}}}}",
            "qos_overrides./image.subscription.depth .*image_qos",
        ),
        ("/camera/other: {ros__parameters: {border: 7}}", "/frontend .*/camera/other"),
        ("a: {frontend: {ros__parameters: {border: 7}}}", "/frontend .*a/frontend"),
        ("", "/frontend .*none"),
    ],
)
def test_what_has_no_effect_is_said_in_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, expected: str
) -> None:
    assert _read(tmp_path, text) == {}
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert re.search(expected, caplog.text)
    assert str(tmp_path / "0.yaml") in caplog.text


def test_every_name_with_one_letter_wrong_finds_its_parameter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in PARAMETERS:
        if len(name) < 5:
            continue
        for section in ("/**", "frontend"):
            caplog.clear()
            mistyped = name[:2] + name[3:]
            assert _read(tmp_path, f"{section}: {{ros__parameters: {{{mistyped}: 1}}}}") == {}
            assert f"{mistyped} (did you mean " in caplog.text
            assert f"did you mean {name}?" in caplog.text or section == "/**" or mistyped in PARAMETERS


def test_many_unknown_names_make_one_short_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ", ".join(f"zzz{i}: 1" for i in range(500))
    assert _read(tmp_path, f"frontend: {{ros__parameters: {{{names}}}}}") == {}
    assert len(caplog.records) == 1
    assert "492 more" in caplog.text
    assert len(caplog.text) < 600 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("border: 5\n", "has no section 'ros__parameters'"),
        ("- 1\n", "has no section 'ros__parameters'"),
        ("a: [\n", "YAML"),
        ("/**: &a {ros__parameters: {border: 5}}\nb: *a\n", "aliases"),
        ("/**:\n  ros__parameters: 5\n", "'/\\*\\*' .*ros__parameters 5"),
        ("frontend:\n  ros__parameters: [border]\n", "ros__parameters \\['border'\\]"),
        ("#" * (MAX_BYTES + 1), "1 MiB"),
    ],
)
def test_what_ros_refuses_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        _read(tmp_path, text)
    with pytest.raises(SettingsError, match="Is a directory"):
        read_parameter_files([tmp_path])


def test_a_former_name_is_read_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("/frontend:\n  ros__parameters: {track_survival_share: 0.5}\n")
    assert read_parameter_files([path], "/frontend") == {"track_survival_fraction": 0.5}
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "parameter track_survival_share is now called track_survival_fraction"
    ]
