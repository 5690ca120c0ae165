"""The node's parameters on a command line and in the node's own files."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

pytest.importorskip("ament_index_python", reason="needs ROS 2")

from feature_frontend.errors import SettingsError
from feature_frontend.settings import PARAMETERS, Settings
from feature_frontend.settings.parameter_file import read_parameter_files
from feature_frontend.tools.common.settings_arguments import add_settings_arguments, settings_from
from feature_frontend.tools.parameters import yaml_file


def parse(*arguments: str, node: str = "/frontend") -> Settings:
    parser = argparse.ArgumentParser()
    add_settings_arguments(parser)
    return settings_from(parser.parse_args(arguments), node)


def test_every_parameter_is_an_option() -> None:
    assert parse() == Settings()
    for record in PARAMETERS.values():
        if record.name == "mask_path":
            continue  # The file must exist.
        text = str(record.choices[-1] if record.choices else record.default)
        # The last matcher does not take all extractors' descriptors.
        further = ("--extractor", "aliked-n16") if record.name == "matcher" else ()
        assert getattr(parse(*further, f"--{record.name.replace('_', '-')}", text), record.name) == record.check(
            type(record.default)(text) if not isinstance(record.default, bool) else text == "True"
        )


def test_the_file_of_all_defaults_is_read(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(yaml_file())
    assert read_parameter_files([tmp_path / "all.yaml"], "/frontend") == {
        name: record.default for name, record in PARAMETERS.items()
    }


def test_options_win_over_files_and_later_files_over_earlier_ones(tmp_path: Path) -> None:
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text("/**:\n  ros__parameters:\n    border: 1\n    nms_radius: 1\n    grid_rows: 1\n")
    second.write_text("frontend:\n  ros__parameters:\n    nms_radius: 2\n    grid_rows: 2\n")
    settings = parse("--params-file", str(first), "--grid-rows", "3", "--params-file", str(second))
    assert (settings.border, settings.nms_radius, settings.grid_rows) == (1, 2, 3)
    assert parse("--params-file", "aliked-t16+mnn.yaml").extractor == "aliked-t16"


@pytest.mark.parametrize(
    ("section", "node", "counts"),
    [
        ("/**", "/a/b/frontend", True),
        ("/*/frontend", "/a/frontend", True),
        ("/*/frontend", "/a/b/frontend", False),
        ("/a/frontend", "/a/frontend", True),
        ("frontend", "/a/frontend", False),
        ("/other", "/frontend", False),
    ],
)
def test_sections_are_chosen_as_ros_does(tmp_path: Path, section: str, node: str, counts: bool) -> None:
    (tmp_path / "p.yaml").write_text(f"{section}:\n  ros__parameters:\n    border: 5\n    use_sim_time: true\n")
    assert parse("--params-file", str(tmp_path / "p.yaml"), node=node).border == (5 if counts else 0)
    (tmp_path / "n.yaml").write_text("a:\n  frontend:\n    ros__parameters:\n      border: 5\n")
    assert read_parameter_files([tmp_path / "n.yaml"], "/a/frontend") == {"border": 5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("border: 5\n", "has no section 'ros__parameters'"),
        ("a: [\n", "cannot be read"),
        ("/**: &all {ros__parameters: {border: 5}}\nfrontend: *all\n", "aliases .*line 2"),
        ("/**: {ros__parameters: {border: -5}}\n", "border is -5"),
    ],
)
def test_wrong_files_are_reported(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(SettingsError, match=expected):
        parse("--params-file", str(tmp_path / "p.yaml"))


def test_wrong_values_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        (("--border", "-1"), "--border: '-1'.* int from 0 to 1000"),
        (("--compile", "maybe"), "--compile: 'maybe'.* bool"),
    ):
        with pytest.raises(SystemExit):
            parse(*arguments)
        assert re.search(expected, capsys.readouterr().err)


def test_the_option_of_a_former_name_works(caplog: pytest.LogCaptureFixture) -> None:
    assert parse("--track-survival-share", "0.5").track_survival_fraction == 0.5
    assert re.search("track_survival_share .*track_survival_fraction", caplog.text)
    assert parse("--track-survival-share", "0.5", "--track-survival-fraction", "1").track_survival_fraction == 1.0
