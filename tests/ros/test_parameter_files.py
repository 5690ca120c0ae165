"""Parameter files in the node: the same values as in ROS, and the same warnings as in the tools."""

from __future__ import annotations

import random
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import rclpy
from rclpy.context import Context
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from feature_frontend.errors import SettingsError
from feature_frontend.ros.parameters import declare_parameters
from feature_frontend.ros.rclpy_private import given_parameters
from feature_frontend.settings.parameter_file import read_parameter_files

_SECTIONS = (
    "/**",
    "/*",
    "/*/frontend",
    "/**/frontend",
    "/ns/**",
    "frontend",
    "/frontend",
    "ns/frontend",
    "/ns/frontend",
    "ns:\n  frontend",
    "other",
    "/ns/other",
)
_NAMES = ("border", "max_num_keypoints", "extractor", "detection_threshold", "framerate", "bordr")
# By type: rcl keeps the earlier value of a name whose type a later file changes.
_VALUES = (
    ("1", "-3", "+5", "010", "0x1F", "-0x10"),
    ("1e-5", "1E5", "1.5e3", "5.", ".5", ".inf", "-.inf", "inf", "99999999999999999999", "08"),
    ("1e400", "1_000", "0b11", "2024-01-01", "null", '"5"', "'a b'", "text", "a b", "/dev/video0"),
    ("y", "No", "TRUE", "off", "on"),
    ("[1, 2]", "[3]"),
    ("[1.5, 2.0]",),
    ("[a, b]",),
    ("[true, false]",),
)


@contextmanager
def _node(domain_id: int, *arguments: str) -> Iterator[Node]:
    context = Context()
    rclpy.init(
        args=["--ros-args", *arguments],
        context=context,
        domain_id=domain_id,
        signal_handler_options=SignalHandlerOptions.NO,
    )
    node = rclpy.create_node("frontend", context=context, start_parameter_services=False, enable_rosout=False)
    try:
        yield node
    finally:
        node.destroy_node()
        context.try_shutdown()


def _file(rng: random.Random, values: dict[str, tuple[str, ...]]) -> str:
    text = ""
    for _ in range(rng.randint(1, 4)):
        section = rng.choice(_SECTIONS)
        margin = "    " if "\n" in section else "  "
        text += f"{section}:\n{margin}ros__parameters:\n"
        for name in rng.sample(_NAMES, rng.randint(1, 3)):
            text += f"{margin}  {name}: {rng.choice(values[name])}\n"
    return text


def _plain(value: object) -> object:
    """ROS keeps arrays of numbers as arrays of Python's."""
    return value.tolist() if isinstance(value, array) else value


@pytest.mark.slow
def test_tools_take_the_values_that_ros_takes(
    domain_id: int, tmp_path: Path, report_figure: Callable[[str], None]
) -> None:
    rng = random.Random(0)
    outcomes: Counter[str] = Counter()
    for _ in range(60):
        paths, arguments = [], []
        values = {name: rng.choice(_VALUES) for name in _NAMES}
        for number in range(rng.randint(1, 3)):
            paths.append(tmp_path / f"{number}.yaml")
            paths[-1].write_text(_file(rng, values))
            arguments += ["--params-file", str(paths[-1])]
        namespace = rng.choice(("", "/ns"))
        if namespace:
            arguments += ["-r", f"__ns:={namespace}"]
        with _node(domain_id, *arguments) as node:
            theirs = {
                name: _plain(given.value)
                for name, given in given_parameters(node).items()
                if name not in {"framerate", "bordr"}
            }
        ours = read_parameter_files(paths, f"{namespace}/frontend")
        assert ours == theirs, "\n".join(path.read_text() for path in paths)
        assert {name: type(value) for name, value in ours.items()} == {n: type(v) for n, v in theirs.items()}
        outcomes["with values" if ours else "without"] += 1
    report_figure(f"parameter files: 60 random sets of 1 to 3 as ROS itself takes them, {dict(outcomes)}")
    assert outcomes["with values"] > 30


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/**:\n  ros__parameters:\n    framerate: 30.0\n    extractor: sift\n    max_num_keypoints: 77\n", ""),
        ("/camera/other:\n  ros__parameters:\n    max_num_keypoints: 77\n", "/frontend"),
        ("frontend:\n  ros__parameters:\n    max_keypoints: 77\n", "max_keypoints .*max_num_keypoints"),
    ],
)
def test_the_node_warns_of_a_file_as_the_tools_do(
    domain_id: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    text: str,
    expected: str,
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    arguments = ["--params-file", str(path)]
    with _node(domain_id, *arguments) as node:
        settings = declare_parameters(node, ["--ros-args", *arguments])
    assert settings.max_num_keypoints == (1000 if expected else 77)
    written = capfd.readouterr().err
    assert written.count("[WARN]") == (1 if expected else 0)
    read_parameter_files([path], "/frontend")
    assert [record.getMessage() in written for record in caplog.records] == ([True] if expected else [])
    assert re.search(expected, written)


def test_a_name_on_the_command_line_that_nobody_knows_is_said(
    domain_id: int, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-p", "max_keypoints:=5", "-p", "use_sim_time:=false", "-p", "border:=3"]
    with _node(domain_id, *arguments) as node:
        assert declare_parameters(node, ["--ros-args", *arguments]).border == 3
    written = capfd.readouterr().err
    assert re.search("command line: max_keypoints .*max_num_keypoints", written)
    assert written.count("[WARN]") == 1


def test_a_whole_number_is_taken_for_a_float(domain_id: int) -> None:
    with _node(domain_id, "-p", "detection_threshold:=1") as node:
        settings = declare_parameters(node)
    assert settings.detection_threshold == 1.0
    with (
        _node(domain_id, "-p", "detection_threshold:=true") as node,
        pytest.raises(SettingsError, match=r"float from 0"),
    ):
        declare_parameters(node)


def test_the_former_name_of_a_parameter_works_with_one_warning(
    tmp_path: Path, domain_id: int, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("/**:\n  ros__parameters: {track_survival_share: 1}\n")
    for arguments in (["-p", "track_survival_share:=1"], ["--params-file", str(path)]):
        with _node(domain_id, *arguments) as node:
            settings = declare_parameters(node, ["--ros-args", *arguments])
            assert settings.track_survival_fraction == 1.0
            assert not node.has_parameter("track_survival_share")
        written = capfd.readouterr().err
        assert written.count("[WARN]") == written.count("track_survival_fraction") == 1


def test_only_the_name_is_cut_from_what_rclpy_says(monkeypatch: pytest.MonkeyPatch, domain_id: int) -> None:
    with _node(domain_id) as node:
        declare = node.declare_parameter

        def refuse(name: str, *rest: Any) -> Any:
            if name != "device":
                return declare(name, *rest)
            error = InvalidParameterValueException(name, "", "")
            error.args = ("no device",)
            raise error

        monkeypatch.setattr(node, "declare_parameter", refuse)
        with pytest.raises(SettingsError, match=r"^no device; expected"):
            declare_parameters(node)
