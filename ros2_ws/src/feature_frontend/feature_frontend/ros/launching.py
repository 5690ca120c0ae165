"""What the launch files share: arguments, topics, the front-end's process and how its end ends the launch.

Only launch files import this module: it needs `launch` and `launch_ros`, which the node and the tools do without.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch import LaunchContext
from launch.action import Action
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.events.process import ProcessExited
from launch_ros.actions import Node
from launch_ros.descriptions import Parameter

from feature_frontend.errors import FeatureFrontendError, SettingsError

__all__ = [
    "SIDES",
    "common_arguments",
    "config_file",
    "dds_environment",
    "end_launch_with",
    "find_params_file",
    "frontend_node",
    "live_arguments",
    "live_parameters",
    "mask_remappings",
    "required_package",
    "stereo_params_file",
    "topic_arguments",
    "topic_remappings",
]

PACKAGE = "feature_frontend"
SIDES = ("left", "right")
DEFAULT_COMPOSITION = "aliked-n16+mnn.yaml"
DDS_PROFILE = "fastdds_shared_memory.xml"
# FastDDS 2 (Humble, Jazzy) reads the first, FastDDS 3 (Kilted and later) the second and warns of the first.
DDS_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
FAST_DDS_2_DISTRIBUTIONS = ("humble", "iron", "jazzy")
# Ended by Ctrl-C, which the terminal also sends to the processes, perhaps before launch itself has seen it, or by kill.
STOPPED_BY_USER = (0, -2, 130, -15, 143)


def config_file(name: str) -> Path:
    """A file of the package's installed `config/`."""
    return Path(get_package_share_directory(PACKAGE)) / "config" / name


def common_arguments() -> list[DeclareLaunchArgument]:
    """The arguments that every launch file of this package takes."""
    return [
        DeclareLaunchArgument(
            "params_file",
            default_value=str(config_file(DEFAULT_COMPOSITION)),
            description="Parameter file of the front-end: a path, or the name of a file of the package's config folder "
            "(aliked-n32+mnn.yaml)",
        ),
        DeclareLaunchArgument(
            "namespace",
            default_value="",
            description="Namespace of the node; topics without a leading slash are relative to it",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Least severity of the front-end's log",
        ),
        DeclareLaunchArgument(
            "shared_memory",
            default_value="true",
            choices=["true", "false"],
            description="Start the processes with the package's FastDDS profile, whose shared memory holds images of "
            "1 MB and more; a profile named in the environment goes first, false leaves FastDDS's defaults",
        ),
    ]


def topic_arguments(side: str = "") -> list[DeclareLaunchArgument]:
    """The arguments that name a camera's topics; those of the left and the right of two begin with `left_`, `right_`.

    Args:
        side: "left" or "right"; empty for the only camera.
    """
    prefix, whose = (f"{side}_", f"{side} ") if side else ("", "")
    return [
        DeclareLaunchArgument(
            f"{prefix}image_topic",
            default_value=f"{side}/image" if side else "image",
            description=f"Topic of the {whose}images (sensor_msgs/Image); for compressed ones without its ending "
            "/compressed",
        ),
        DeclareLaunchArgument(
            f"{prefix}camera_info_topic",
            default_value="",
            description=f"Topic of the {whose}calibration (sensor_msgs/CameraInfo); empty: camera_info beside the "
            f"{whose}image topic",
        ),
    ]


def stereo_params_file() -> DeclareLaunchArgument:
    """The argument that names what has the node take pairs."""
    return DeclareLaunchArgument(
        "stereo_params_file",
        default_value=str(config_file("stereo.yaml")),
        description="Parameter file whose values take the place of params_file's: has the node take pairs",
    )


def live_arguments() -> list[DeclareLaunchArgument]:
    """The arguments of the launch files that take images from running cameras."""
    return [
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="",
            choices=["", "true", "false"],
            description="true: take the time from /clock, for simulators; empty: as params_file says",
        ),
        DeclareLaunchArgument(
            "image_transport",
            default_value="",
            choices=["", "raw", "compressed"],
            description="How the images come; empty: as params_file says",
        ),
        DeclareLaunchArgument(
            "mask_topic",
            default_value="",
            description="Topic of the masks (sensor_msgs/Image, mono8), for which each image then waits; empty: as "
            "params_file says, on `mask`",
        ),
    ]


def live_parameters(context: LaunchContext) -> list[Parameter]:
    """The parameters that the live arguments set; those that are empty are left to the parameter files."""
    # Not as a dictionary: launch_ros would write that to a file in /tmp and leave it there.
    arguments = context.launch_configurations
    parameters = []
    if arguments["use_sim_time"]:
        parameters.append(Parameter("use_sim_time", arguments["use_sim_time"] == "true"))
    if arguments["image_transport"]:
        parameters.append(Parameter("image_transport", arguments["image_transport"]))
    if arguments["mask_topic"]:
        parameters.append(Parameter("mask_topic", value=True))
    return parameters


def mask_remappings(context: LaunchContext) -> list[tuple[str, str]]:
    """The rule that brings the front-end to the chosen masks."""
    topic = context.launch_configurations["mask_topic"]
    return [("mask", topic)] if topic else []


def frontend_node(
    context: LaunchContext,
    *,
    remappings: list[tuple[str, str]],
    further_params_files: tuple[str, ...] = (),
    parameters: Sequence[Parameter] = (),
) -> Node:
    """The process of the front-end, as the common arguments describe it.

    Args:
        context: Holds the values of the arguments.
        remappings: The rules that bring it to its topics.
        further_params_files: Parameter files whose values take the place of `params_file`'s.
        parameters: Single parameters, which take the place of the files'.

    Raises:
        SettingsError: A parameter file does not exist.
    """
    arguments = context.launch_configurations
    files = [find_params_file(name) for name in (arguments["params_file"], *further_params_files)]
    return Node(
        package=PACKAGE,
        executable="frontend",
        name="frontend",
        namespace=arguments["namespace"],
        parameters=[*files, *parameters],
        remappings=remappings,
        ros_arguments=["--log-level", arguments["log_level"]],
        additional_env=dds_environment(context),
        output="screen",
        on_exit=end_launch_with("the front-end"),
    )


def find_params_file(name: str) -> str:
    """The parameter file `name`, as it is or in the package's `config/`.

    launch_ros itself only warns of a missing one and starts the node with its defaults.
    """
    for path in (Path(name).expanduser(), config_file(name)):
        if path.is_file():
            return str(path)
    shipped = sorted(path.name for path in config_file("").glob("*.yaml"))
    msg = f"no parameter file {name!r}; expected a path or one of {', '.join(shipped)}"
    raise SettingsError(msg)


def topic_remappings(context: LaunchContext, *, image: str = "image", side: str = "") -> list[tuple[str, str]]:
    """The rules that bring a process to the chosen topics.

    The calibration goes beside the image unless told otherwise: that is where image_transport's camera publishers
    and subscribers look for it.

    Args:
        context: Holds the values of the arguments.
        image: What the process itself calls its image topic.
        side: "left" or "right" of two cameras; empty for the only one.
    """
    prefix, own_namespace = (f"{side}_", f"{side}/") if side else ("", "")
    image_topic = context.launch_configurations[f"{prefix}image_topic"]
    namespace, slash, _ = image_topic.rpartition("/")
    info_topic = context.launch_configurations[f"{prefix}camera_info_topic"] or f"{namespace}{slash}camera_info"
    return [(f"{own_namespace}{image}", image_topic), (f"{own_namespace}camera_info", info_topic)]


def dds_environment(context: LaunchContext) -> dict[str, str]:
    """The variable that gives a process the package's FastDDS profile; empty where the user decided otherwise."""
    if context.launch_configurations["shared_memory"] != "true" or any(map(os.environ.get, DDS_PROFILE_VARIABLES)):
        return {}
    fast_dds_2 = os.environ.get("ROS_DISTRO", "jazzy") in FAST_DDS_2_DISTRIBUTIONS
    return {DDS_PROFILE_VARIABLES[0 if fast_dds_2 else 1]: str(config_file(DDS_PROFILE))}


def end_launch_with(what: str) -> Callable[[ProcessExited, LaunchContext], list[Action]]:
    """An `on_exit` that ends the launch with the process, and makes the launch fail if the process did.

    Launch's own `Shutdown` action would leave exit status 0, which scripts and service managers read as success.

    Args:
        what: What the process is called in the message.
    """

    def on_exit(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if context.is_shutdown:
            return []
        if event.returncode not in STOPPED_BY_USER:
            msg = f"{what} ended with exit status {event.returncode}; its own message is above"
            raise FeatureFrontendError(msg)
        return [Shutdown(reason=f"{what} has ended")]

    return on_exit


def required_package(name: str, *, wanted_by: str, instead: str) -> str:
    """Returns `name` if that ROS package is installed.

    Raises:
        SettingsError: It is not; the text says what to install or to type instead.
    """
    try:
        get_package_prefix(name)
    except PackageNotFoundError as error:
        distribution = os.environ.get("ROS_DISTRO", "$ROS_DISTRO")
        msg = (
            f"{wanted_by} needs the package {name}, which is not installed: "
            f"sudo apt install ros-{distribution}-{name.replace('_', '-')}, or {instead}"
        )
        raise SettingsError(msg) from error
    return name
