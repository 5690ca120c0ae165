"""The launch files, if ROS's launch is installed: their arguments, processes and shutdown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

# Not `launch`: the folder of that name at the top of the repository would do for a module.
pytest.importorskip("launch.launch_service", reason="needs the Python package launch (ROS 2)")
pytest.importorskip("launch_ros.actions", reason="needs the Python package launch_ros (ROS 2)")
pytest.importorskip("ament_index_python.packages", reason="needs ament_index_python (ROS 2)")

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch.utilities import perform_substitutions
from launch_ros.actions import Node

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.settings import PARAMETERS
from tests.conftest import REPOSITORY

_COMMON = {"params_file", "namespace", "log_level", "shared_memory", "end_launch"}
_TOPICS = {"image_topic", "camera_info_topic"}
_BOTH = {f"{side}_{topic}" for side in ("left", "right") for topic in _TOPICS}
_LIVE = {"use_sim_time", "mask_topic", "respawn", "respawn_delay"}
_ARGUMENTS = {
    "camera.launch.py": _COMMON | _TOPICS | _LIVE | {"camera", "camera_params_file"},
    "replay.launch.py": _COMMON
    | _TOPICS
    | _BOTH
    | {"bag", "player", "player_args", "replay_params_file", "stereo", "stereo_params_file"},
    "stereo.launch.py": _COMMON | _LIVE | _BOTH | {"points_topic", "stereo_matches_topic", "stereo_params_file"},
}
# The file that a launch file gives after the composition.
_SECOND_FILE = {"replay.launch.py": ["replay.yaml"], "stereo.launch.py": ["stereo.yaml"]}
_END_S = 60.0
_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")

# What `ros2 launch` does, without ros2cli.
_LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
path, *arguments = sys.argv[1:]
service = LaunchService(noninteractive=True)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    AnyLaunchDescriptionSource(path), launch_arguments=[a.split(":=", 1) for a in arguments])]))
sys.exit(service.run())
"""


@pytest.fixture(scope="module")
def launch_folder() -> Path:
    """The installed launch files; skips where the workspace is not built and sourced."""
    try:
        return Path(get_package_share_directory("feature_frontend")) / "launch"
    except PackageNotFoundError:
        pytest.skip("needs feature_frontend built and sourced (make setup, source env.sh)")


@pytest.fixture
def no_dds_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in _PROFILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def _description(path: Path) -> LaunchDescription:
    return get_launch_description_from_python_launch_file(str(path))


def _started(path: Path, **arguments: str) -> tuple[LaunchContext, list[Node]]:
    """The nodes that a launch file would start, with what their command lines depend on worked out."""
    context = LaunchContext()
    context.launch_configurations.update(arguments)
    nodes = []
    for entity in _description(path).entities:
        if isinstance(entity, OpaqueFunction):
            nodes = [action for action in entity.execute(context) if isinstance(action, Node)]
        else:
            entity.visit(context)
    for node in nodes:
        node._perform_substitutions(context)
    return context, nodes


def _command(context: LaunchContext, node: Node) -> list[str]:
    context.extend_locals({"ros_specific_arguments": {"name": "", "ns": ""}})
    return [perform_substitutions(context, part) for part in node.cmd]


def _environment(context: LaunchContext, node: Node) -> dict[str, str]:
    return {
        perform_substitutions(context, list(name)): perform_substitutions(context, list(value))
        for name, value in node.additional_env or ()
    }


@pytest.mark.parametrize("name", _ARGUMENTS)
def test_arguments_are_complete_and_described(launch_folder: Path, name: str) -> None:
    arguments = _description(launch_folder / name).get_launch_arguments()
    names = [argument.name for argument in arguments]
    assert set(names) == _ARGUMENTS[name] | set(PARAMETERS)
    assert len(names) == len(set(names))
    undescribed = [argument.name for argument in arguments if argument.description in {"", "no description given"}]
    assert not undescribed


@pytest.mark.parametrize("name", _ARGUMENTS)
def test_the_node_gets_parameter_files_and_no_parameters(launch_folder: Path, name: str) -> None:
    context, (node, *_) = _started(launch_folder / name, bag=str(REPOSITORY), player="play")
    command = _command(context, node)
    files = [Path(value) for flag, value in pairwise(command) if flag == "--params-file"]
    assert [path.name for path in files] == ["auto+mnn.yaml", *_SECOND_FILE.get(name, [])]
    assert all(path.is_file() for path in files)
    single = [value.strip() for flag, value in pairwise(command) if flag == "-p"]
    assert [value.split()[0] for value in single] == (["use_sim_time:=true"] if name == "replay.launch.py" else [])


@pytest.mark.parametrize(
    ("image_topic", "camera_info_topic", "expected"),
    [
        ("image", "", "camera_info"),
        ("/cam0/image_raw", "", "/cam0/camera_info"),
        ("cam0/image_raw", "", "cam0/camera_info"),
        ("/image", "", "/camera_info"),
        ("/cam0/image_raw", "/calibration", "/calibration"),
    ],
)
def test_topics_are_remapped(launch_folder: Path, image_topic: str, camera_info_topic: str, expected: str) -> None:
    _, (node,) = _started(
        launch_folder / "camera.launch.py", image_topic=image_topic, camera_info_topic=camera_info_topic
    )
    assert node.expanded_remapping_rules == [("image", image_topic), ("camera_info", expected)]


def test_both_cameras_topics_are_remapped(launch_folder: Path) -> None:
    _, (node,) = _started(
        launch_folder / "stereo.launch.py",
        left_image_topic="/stereo/left/image_rect",
        right_image_topic="/stereo/right/image_rect",
        right_camera_info_topic="/calibration",
        points_topic="/cloud",
        mask_topic="/left/mask",
    )
    assert node.expanded_remapping_rules == [
        ("left/image", "/stereo/left/image_rect"),
        ("left/camera_info", "/stereo/left/camera_info"),
        ("right/image", "/stereo/right/image_rect"),
        ("right/camera_info", "/calibration"),
        ("stereo_matches", "stereo_matches"),
        ("points", "/cloud"),
        ("mask", "/left/mask"),
    ]


@pytest.mark.parametrize("name", ["camera.launch.py", "stereo.launch.py"])
def test_transport_and_masks_are_left_to_the_parameter_file_unless_given(launch_folder: Path, name: str) -> None:
    def chosen(**arguments: str) -> list[str]:
        context, (node,) = _started(launch_folder / name, **arguments)
        assert (("mask", "/mask_of") in node.expanded_remapping_rules) == ("mask_topic" in arguments)
        return [value.split()[0] for flag, value in pairwise(_command(context, node)) if flag == "-p"]

    assert chosen() == []
    given = {"image_transport": "compressed", "mask_topic": "/mask_of"}
    assert chosen(**given) == ["image_transport:=compressed", "mask_topic:=true"]


def test_the_namespace_and_the_log_level_reach_the_node(launch_folder: Path) -> None:
    context, (node,) = _started(launch_folder / "camera.launch.py", namespace="robot", log_level="debug")
    assert node.node_name == "/robot/frontend"
    command = _command(context, node)
    assert command[command.index("--log-level") + 1] == "robot.frontend:=debug"


@pytest.mark.parametrize(
    ("given", "expected"), [("", None), ("true", "use_sim_time:=true"), ("false", "use_sim_time:=false")]
)
def test_the_time_is_left_to_the_parameter_file_unless_given(
    launch_folder: Path, given: str, expected: str | None
) -> None:
    context, (node,) = _started(launch_folder / "camera.launch.py", use_sim_time=given)
    assert [part.split()[0] for part in _command(context, node) if part.startswith("use_sim_time")] == (
        [] if expected is None else [expected]
    )


@pytest.mark.parametrize("name", _ARGUMENTS)
def test_every_parameter_can_be_given_as_an_argument(launch_folder: Path, name: str) -> None:
    def text(value: object) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    # `mask_topic` is a topic's name there.
    values = {record.name: record.default for record in PARAMETERS.values() if record.name != "mask_topic"}
    given = {parameter: text(value) for parameter, value in values.items()}
    context, (node, *_) = _started(launch_folder / name, bag=str(REPOSITORY), player="play", **given)
    pairs = [value.split(":=") for flag, value in pairwise(_command(context, node)) if flag == "-p"]
    passed = {parameter: yaml.safe_load(value) for parameter, value in pairs if parameter != "use_sim_time"}
    # An empty argument is one that is not given.
    assert passed == {parameter: value for parameter, value in values.items() if value != ""}
    assert {parameter: type(value) for parameter, value in passed.items()} == {
        parameter: type(values[parameter]) for parameter in passed
    }


def test_the_former_name_of_a_parameter_is_an_argument_too(launch_folder: Path) -> None:
    context, (node,) = _started(launch_folder / "camera.launch.py", track_survival_share="0.5")
    given = [part.split(":=") for part in _command(context, node) if part.startswith("track_survival")]
    assert [(name, yaml.safe_load(value)) for name, value in given] == [("track_survival_fraction", 0.5)]


def test_a_shipped_parameter_file_is_found_by_its_name(launch_folder: Path) -> None:
    context, (node,) = _started(launch_folder / "camera.launch.py", params_file="aliked-n32+mnn.yaml")
    assert str(launch_folder.parent / "config" / "aliked-n32+mnn.yaml") in _command(context, node)


def test_a_missing_parameter_file_is_an_error(launch_folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"'nothing\.yaml'.* aliked-n16\+"):
        _started(launch_folder / "camera.launch.py", params_file="nothing.yaml")


@pytest.mark.usefixtures("no_dds_profile")
def test_the_processes_get_the_dds_profile(launch_folder: Path) -> None:
    context, nodes = _started(launch_folder / "camera.launch.py")
    for node in nodes:
        (profile,) = _environment(context, node).values()
        assert Path(profile) == launch_folder.parent / "config" / "fastdds_shared_memory.xml"


@pytest.mark.usefixtures("no_dds_profile")
@pytest.mark.parametrize(
    ("distribution", "variable"),
    [("humble", _PROFILE_VARIABLES[0]), ("jazzy", _PROFILE_VARIABLES[0]), ("kilted", _PROFILE_VARIABLES[1])],
)
def test_the_profile_goes_by_the_name_that_the_distributions_fastdds_reads(
    launch_folder: Path, monkeypatch: pytest.MonkeyPatch, distribution: str, variable: str
) -> None:
    monkeypatch.setenv("ROS_DISTRO", distribution)
    context, (node,) = _started(launch_folder / "camera.launch.py")
    assert list(_environment(context, node)) == [variable]


@pytest.mark.usefixtures("no_dds_profile")
def test_the_dds_profile_can_be_declined(launch_folder: Path) -> None:
    context, (node,) = _started(launch_folder / "camera.launch.py", shared_memory="false")
    assert _environment(context, node) == {}


@pytest.mark.usefixtures("no_dds_profile")
@pytest.mark.parametrize(
    ("distribution", "variable"),
    [("jazzy", _PROFILE_VARIABLES[0]), ("kilted", _PROFILE_VARIABLES[0]), ("kilted", _PROFILE_VARIABLES[1])],
)
def test_a_users_dds_profile_stays(
    launch_folder: Path, monkeypatch: pytest.MonkeyPatch, distribution: str, variable: str
) -> None:
    monkeypatch.setenv("ROS_DISTRO", distribution)
    monkeypatch.setenv(variable, "/home/user/profile.xml")
    context, (node,) = _started(launch_folder / "camera.launch.py")
    assert _environment(context, node) == {}


@pytest.mark.parametrize(("camera", "package"), [("usb_cam", "usb_cam"), ("v4l2", "v4l2_camera")])
def test_a_camera_driver_is_started_where_the_node_listens(launch_folder: Path, camera: str, package: str) -> None:
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        with pytest.raises(SettingsError, match=f"camera:={camera} .*{package}.*sudo apt install ros-"):
            _started(launch_folder / "camera.launch.py", camera=camera)
    else:
        _, (_, driver) = _started(launch_folder / "camera.launch.py", camera=camera, image_topic="/cam0/image")
        assert driver.expanded_remapping_rules == [("image_raw", "/cam0/image"), ("camera_info", "/cam0/camera_info")]


def test_a_bag_that_is_not_there_is_an_error(launch_folder: Path) -> None:
    with pytest.raises(FeatureFrontendError, match=r"'/nowhere'|ros2bag"):
        _started(launch_folder / "replay.launch.py", bag="/nowhere")


def test_a_bag_of_two_cameras_reaches_both_sides(
    launch_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As far as the launch file can see, rosbag2 is installed.
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "ros2bag").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path), prepend=os.pathsep)
    replay, topics = launch_folder / "replay.launch.py", {"left_image_topic": "/cam0/image_raw"}
    context, (node,) = _started(replay, bag=str(tmp_path), stereo="true", **topics)
    assert node.expanded_remapping_rules == [
        ("left/image", "/cam0/image_raw"),
        ("left/camera_info", "/cam0/camera_info"),
        ("right/image", "right/image"),
        ("right/camera_info", "right/camera_info"),
    ]
    files = [Path(value).name for flag, value in pairwise(_command(context, node)) if flag == "--params-file"]
    assert files == ["auto+mnn.yaml", "stereo.yaml", "replay.yaml"]
    with pytest.raises(SettingsError, match=r"player:=bag .*stereo:=true"):
        _started(replay, bag=str(tmp_path), stereo="true", player="play")


def test_launch_files_need_no_network_library(launch_folder: Path) -> None:
    """`ros2` runs with the system's Python, but torch mostly lies in a virtual environment."""
    program = (
        "import sys\n"
        "sys.modules.update(torch=None, cv2=None)\n"
        "from launch.launch_description_sources import get_launch_description_from_python_launch_file as load\n"
        f"[load({str(launch_folder)!r} + '/' + name) for name in {list(_ARGUMENTS)}]\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=_END_S, check=False)
    assert run.returncode == 0, run.stderr


def _run_launch(
    path: Path, folder: Path, *arguments: str, timeout_s: float = _END_S
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ROS_LOG_DIR": str(folder / "log"), "ROS_HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", _LAUNCH, str(path), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.mark.parametrize("name", _ARGUMENTS)
@pytest.mark.slow
def test_a_node_that_cannot_start_ends_the_launch_with_failure(
    launch_folder: Path, tmp_path: Path, domain_id: int, name: str
) -> None:
    params_file = tmp_path / "wrong.yaml"
    params_file.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"extractor": "aliked-n64"}}}))
    replay = ["player:=play", f"bag:={REPOSITORY}"] if name == "replay.launch.py" else []
    run = _run_launch(launch_folder / name, tmp_path, f"params_file:={params_file}", *replay)
    assert run.returncode == 1
    assert "Traceback" not in run.stdout
    assert re.search(r"\[frontend-1\] error: .*aliked-n64.* aliked-t16", run.stdout), run.stdout
    assert "exit status 1;" in run.stdout


@pytest.mark.slow
def test_a_replay_processes_every_image_and_ends(
    launch_folder: Path, tmp_path: Path, domain_id: int, weights_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATURE_FRONTEND_WEIGHTS", weights_dir)
    images = REPOSITORY / "tests" / "data" / "tum_fr2_desk"
    count = len(list(images.glob("*.jpg")))
    run = _run_launch(
        launch_folder / "replay.launch.py",
        tmp_path,
        "player:=play",
        f"bag:={images}",
        "namespace:=robot",
        "params_file:=aliked-t16+mnn.yaml",
        timeout_s=240.0,
    )
    assert run.returncode == 0, run.stdout
    assert f"{count} images received: {count} processed, 0 dropped, 0 refused" in run.stdout
