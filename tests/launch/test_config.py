"""The files of config/: valid, minimal, and consistent with the parameters. Mostly without ROS."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from feature_frontend.matchers.registry import MATCHERS
from feature_frontend.models.catalog import MATCHER_MODELS
from feature_frontend.settings import PARAMETERS, Settings
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "ros2_ws" / "src" / "feature_frontend"
PARAMETER_FILES = sorted((PACKAGE / "config").glob("*.yaml"))
COMPOSITIONS = [path for path in PARAMETER_FILES if "+" in path.name]
LAUNCH_SOURCES = [
    *sorted((PACKAGE / "launch").glob("*.launch.py")),
    PACKAGE / "feature_frontend" / "ros" / "playback" / "launch_support.py",
]
# A launch argument that sets the parameter of its name where it is given, but is a topic.
_SET_WHERE_GIVEN = {"mask_topic"}
_ALL_NODES = "/**"


def _name(path: Path) -> str:
    return path.name


def _parameters(path: Path) -> dict[str, object]:
    document = yaml.safe_load(path.read_text())
    assert list(document) == [_ALL_NODES], "only the wildcard reaches the node in every namespace and under every name"
    assert list(document[_ALL_NODES]) == ["ros__parameters"]
    parameters = document[_ALL_NODES]["ros__parameters"]
    assert isinstance(parameters, dict), "rcl refuses an empty ros__parameters; {} it takes"
    return parameters


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=_name)
def test_a_parameter_file_is_accepted_by_the_settings(path: Path) -> None:
    Settings.from_mapping(_parameters(path))


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=_name)
def test_a_parameter_file_holds_only_what_differs_from_the_defaults(path: Path) -> None:
    repeated = {name: value for name, value in _parameters(path).items() if value == PARAMETERS[name].default}
    assert not repeated


@pytest.mark.parametrize("path", COMPOSITIONS, ids=_name)
def test_a_composition_is_what_its_name_says(path: Path) -> None:
    settings = Settings.from_mapping(_parameters(path))
    assert path.stem == f"{settings.extractor}+{settings.matcher}"


def test_every_pair_of_extractor_and_matcher_has_a_composition() -> None:
    assert {path.stem for path in COMPOSITIONS} == {
        f"{extractor}+{matcher}"
        for matcher in MATCHERS
        for extractor in (MATCHER_MODELS[matcher].extractors or PARAMETERS["extractor"].choices)
    }


def test_a_replay_loses_nothing() -> None:
    settings = Settings.from_mapping(_parameters(PACKAGE / "config" / "replay.yaml"))
    assert settings.queue_policy == "every_frame"
    assert settings.output_depth == 0


@pytest.mark.parametrize("path", LAUNCH_SOURCES, ids=_name)
def test_launch_files_leave_parameters_to_parameter_files(path: Path) -> None:
    texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert texts & set(PARAMETERS) <= _SET_WHERE_GIVEN


@pytest.mark.parametrize("name", ["launch", "config"])
def test_the_links_at_the_top_show_the_packages_folders(name: str) -> None:
    link = REPOSITORY / name
    assert link.is_symlink()
    assert not os.path.isabs(os.readlink(link))
    assert link.resolve() == PACKAGE / name


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=_name)
@pytest.mark.parametrize("namespace", ["/", "/robot/front"])
def test_ros_reads_a_parameter_file_in_every_namespace(path: Path, namespace: str, domain_id: int) -> None:
    pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
    program = (
        "import json, sys, rclpy\n"
        "from rclpy.node import Node\n"
        "rclpy.init(args=sys.argv)\n"
        "node = Node('frontend', automatically_declare_parameters_from_overrides=True)\n"
        "print(json.dumps({name: p.value for name, p in node.get_parameters_by_prefix('').items()}))\n"
    )
    arguments = ["--ros-args", "--params-file", str(path), "-r", f"__ns:={namespace}"]
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    rclpys_own = {"use_sim_time", "start_type_description_service"}
    read = {name: value for name, value in yaml.safe_load(run.stdout).items() if name not in rclpys_own}
    assert read == _parameters(path)


def test_the_dds_profile_has_room_for_images() -> None:
    space = {"dds": "http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"}
    root = ElementTree.parse(PACKAGE / "config" / "fastdds_shared_memory.xml").getroot()
    transports = {
        transport.findtext("dds:transport_id", "", space): transport
        for transport in root.iterfind(".//dds:transport_descriptor", space)
    }
    used = [element.text for element in root.iterfind(".//dds:userTransports/dds:transport_id", space)]
    assert set(used) == set(transports)
    assert {transport.findtext("dds:type", "", space) for transport in transports.values()} == {"SHM", "UDPv4"}
    (segment_size,) = (int(element.text or 0) for element in root.iterfind(".//dds:segment_size", space))
    assert segment_size == 64 * 1024 * 1024
