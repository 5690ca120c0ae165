"""The launch files alone and included in a robot's, with stand-ins for the node as real processes.

Each stand-in writes its command line to a file named after its process, and sleeps.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

# Not `launch`: the folder of that name at the top of the repository would do for a module.
pytest.importorskip("launch.launch_service", reason="needs the Python package launch (ROS 2)")
pytest.importorskip("launch_ros.actions", reason="needs the Python package launch_ros (ROS 2)")
pytest.importorskip("ament_index_python.packages", reason="needs ament_index_python (ROS 2)")

from tests.conftest import REPOSITORY
from tests.launch.prefix import make_prefix
from tests.launch.test_launch_files import _LAUNCH

_TIMEOUT_S = 60.0
_STAND_IN = """#!/bin/sh
printf '%s\\0' "$@" > "$STARTED/$$.part"
mv "$STARTED/$$.part" "$STARTED/$$"
exec sleep 600
"""
# A robot: its own values under names that are ours, and the front-end included in each way that there is.
_ROBOT = """
from launch import LaunchDescription
from launch.actions import *
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import PushRosNamespace

def camera(**arguments):
    source = PythonLaunchDescriptionSource("CAMERA_FILE")
    return IncludeLaunchDescription(source, launch_arguments=list(arguments.items()))

def generate_launch_description():
    return LaunchDescription([
        DeclareLaunchArgument("device", default_value="/dev/ttyUSB0"),
        SetLaunchConfiguration("border", "wide"),
        SetLaunchConfiguration("camera", "front"),
        SetLaunchConfiguration("params_file", "robot.yaml"),
        SetLaunchConfiguration("respawn", "sometimes"),
        camera(namespace="plain", max_num_keypoints="77", min_similarity="1", weights_dir="5"),
        GroupAction([PushRosNamespace("robot"), camera(namespace="group", log_level="debug")]),
        OpaqueFunction(function=lambda context: [camera(namespace="function", compile="False")]),
        TimerAction(period=0.01, actions=[camera(namespace="timer", max_num_keypoint="5", OTHERS)]),
        ExecuteProcess(cmd=[
            "sh", "-c", 'echo "$0 $1 $2 $3" > "$STARTED/table"', LaunchConfiguration("device"),
            LaunchConfiguration("border"), LaunchConfiguration("camera"), LaunchConfiguration("params_file"),
        ]),
    ])
"""


class Launch:
    """A launch in a process of its own, with stand-ins for what it starts."""

    def __init__(self, folder: Path, file: Path, *arguments: str) -> None:
        self.started = folder / "started"
        self.started.mkdir()
        self._log = folder / "log.txt"
        environment = {
            **os.environ,
            **make_prefix(folder, _STAND_IN),
            "STARTED": str(self.started),
        }
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, str(file), *arguments],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text()

    def processes(self) -> dict[int, list[str]]:
        """The command lines of the stand-ins that were started so far, by process."""
        return {
            int(path.name): path.read_text().split("\0")[:-1] for path in self.started.iterdir() if path.name.isdigit()
        }

    def wait(self, condition: Callable[[], bool]) -> None:
        """Returns once that holds."""
        deadline_s = time.monotonic() + _TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline_s, self.log
            assert self.process.poll() is None or condition(), self.log
            time.sleep(0.02)

    def wait_for_processes(self, count: int) -> dict[int, list[str]]:
        """The command lines of that many stand-ins, once they run and launch has taken note of it."""
        # Before that, launch would not pass Ctrl-C on to one that it has just started again.
        self.wait(lambda: min(len(self.processes()), self.log.count("process started with pid")) >= count)
        return self.processes()

    def end(self) -> int:
        """Exit status, after Ctrl-C if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(_TIMEOUT_S)

    def clean_up(self) -> None:
        """Leaves no process behind, whatever became of the test."""
        try:
            self.end()
        finally:
            self.process.kill()
            for pid in self.processes():
                with suppress(FileNotFoundError, ProcessLookupError):
                    if str(self.started).encode() in Path(f"/proc/{pid}/environ").read_bytes():
                        os.kill(pid, signal.SIGKILL)


Start = Callable[..., Launch]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    launches = []

    def start(file: Path, *arguments: str) -> Launch:
        folder = tmp_path / str(len(launches))
        folder.mkdir()
        launches.append(Launch(folder, file, *arguments))
        return launches[-1]

    yield start
    for launch in launches:
        launch.clean_up()


def _parameters(command: list[str]) -> dict[str, str]:
    pairs = [value.split(":=") for flag, value in pairwise(command) if flag == "-p"]
    return {name: value.split("\n")[0] for name, value in pairs}


def _namespace(command: list[str]) -> str:
    return next(part.removeprefix("__ns:=") for part in command if part.startswith("__ns:="))


def _camera() -> Path:
    return REPOSITORY / "launch" / "camera.launch.py"


def _robot(folder: Path, others: str = "") -> Path:
    path = folder / "robot.launch.py"
    path.write_text(_ROBOT.replace("CAMERA_FILE", str(_camera())).replace("OTHERS", others))
    return path


def test_by_itself_it_ends_with_its_process_and_fails_if_that_did(start: Start) -> None:
    launch = start(_camera(), "tracker:=persistent", "max_num_keypoints:=77", "launch-prefix:=env")
    ((pid, command),) = launch.wait_for_processes(1).items()
    assert _parameters(command) == {"tracker": "persistent", "max_num_keypoints": "77"}
    os.kill(pid, signal.SIGKILL)
    assert launch.process.wait(_TIMEOUT_S) == 1
    assert "the front-end ended with exit status -9" in launch.log


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("max_num_keypoint:=77", "max_num_keypoint .*max_num_keypoints.*--show-args"),
        ("image-topic:=/image", "image-topic .*image_topic"),
        ("xyzzy:=1", "xyzzy.*--show-args"),
        ("max_num_keypoints:=many", "max_num_keypoints is 'many'.* int from 1"),
        ("ratio_threshold:=3", "ratio_threshold is 3.0.* float"),
        ("tracker:=chains", "tracker is 'chains'.* chain, persistent"),
        ("respawn_delay:=soon", "respawn_delay is 'soon'.* 0 to 3600"),
    ],
)
def test_by_itself_it_refuses_what_it_does_not_have(start: Start, argument: str, expected: str) -> None:
    launch = start(_camera(), argument, *(["respawn:=true"] if "respawn" in argument else []))
    assert launch.process.wait(_TIMEOUT_S) == 1
    assert re.search(expected, launch.log)
    assert "Traceback" not in launch.log
    assert not launch.processes()


def test_by_itself_it_refuses_to_end_with_what_is_started_again(start: Start) -> None:
    launch = start(_camera(), "respawn:=true", "end_launch:=true")
    assert launch.process.wait(_TIMEOUT_S) == 1
    assert re.search("end_launch .*respawn", launch.log)


def test_within_a_robot_only_what_its_include_gives_acts(start: Start, tmp_path: Path) -> None:
    launch = start(_robot(tmp_path))
    commands = {_namespace(command): command for command in launch.wait_for_processes(4).values()}
    given = {namespace: _parameters(command) for namespace, command in commands.items()}
    assert given == {
        "/plain": {"max_num_keypoints": "77", "min_similarity": "1.0", "weights_dir": "'5'"},
        "/robot/group": {},
        "/function": {"compile": "false"},
        "/timer": {},
    }
    for namespace, command in commands.items():
        options = dict(pairwise(command))
        assert Path(options["--params-file"]).name == "auto+mnn.yaml"
        level = "debug" if namespace == "/robot/group" else "info"
        assert options["--log-level"] == f"{namespace[1:].replace('/', '.')}.frontend:={level}"
    assert re.search("max_num_keypoint .*max_num_keypoints", launch.log)
    table = launch.started / "table"
    launch.wait(lambda: table.exists() and table.read_text().endswith("\n"))
    assert table.read_text() == "/dev/ttyUSB0 wide front robot.yaml\n", "the robot's own values stay as they are"


def test_within_a_robot_its_end_is_its_own(start: Start, tmp_path: Path) -> None:
    launch = start(_robot(tmp_path))
    pids = list(launch.wait_for_processes(4))
    for pid in pids[:3]:
        os.kill(pid, signal.SIGKILL)
    said = "exit status -9; the launch goes on without it"
    launch.wait(lambda: launch.log.count(said) == 3)
    os.kill(pids[3], 0)
    assert launch.end() == 0
    assert "Traceback" not in launch.log
    assert len(launch.processes()) == 4


def test_within_a_robot_it_ends_all_where_that_is_asked_for(start: Start, tmp_path: Path) -> None:
    launch = start(_robot(tmp_path, others="end_launch='true'"))
    (pid,) = (pid for pid, command in launch.wait_for_processes(4).items() if _namespace(command) == "/timer")
    os.kill(pid, signal.SIGKILL)
    assert launch.process.wait(_TIMEOUT_S) == 1
    assert "exit status -9" in launch.log


def test_the_xml_of_the_documentation_starts_two(start: Start, tmp_path: Path) -> None:
    pytest.importorskip("launch_xml", reason="needs the Python package launch_xml (ROS 2)")
    text = (REPOSITORY / "docs" / "launch.md").read_text(encoding="utf-8")
    file = tmp_path / "two_cameras.launch.xml"
    file.write_text(text.partition("```xml\n")[2].partition("```")[0])
    launch = start(file)
    before = launch.wait_for_processes(2)
    topics = {_namespace(command): [part for part in command if "image:=" in part] for command in before.values()}
    assert topics == {f"/{name}": [f"image:=/camera/{name}/image_raw"] for name in ("front", "rear")}
    os.kill(next(iter(before)), signal.SIGKILL)
    launch.wait_for_processes(3)
    assert launch.end() == 0


def test_the_example_of_two_cameras_starts_one_again_and_leaves_the_other(start: Start) -> None:
    launch = start(REPOSITORY / "examples" / "bringup" / "two_cameras.launch.py", "frontend_device:=cpu")
    before = launch.wait_for_processes(2)
    assert {_namespace(command) for command in before.values()} == {"/front", "/rear"}
    for command in before.values():
        assert _parameters(command) == {"device": "cpu", "max_num_keypoints": "500"}
        assert f"image:=/camera{_namespace(command)}/image_raw" in command
    victim, other = before
    os.kill(victim, signal.SIGKILL)
    after = launch.wait_for_processes(3)
    (again,) = set(after) - set(before)
    assert after[again] == before[victim]
    os.kill(other, 0)
    assert launch.end() == 0
    assert "it is started again" in launch.log
    assert "Traceback" not in launch.log
