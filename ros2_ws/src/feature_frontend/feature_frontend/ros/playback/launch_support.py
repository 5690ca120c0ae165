"""Common parts of the launch files: arguments, topics, the front-end's process, and what happens when it ends.

Only launch files import this module: it needs `launch` and `launch_ros`, which node and tools do not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch import Action, LaunchContext
from launch.actions import Shutdown
from launch.events.process import ProcessExited
from launch.logging import get_logger
from launch_ros.actions import Node
from launch_ros.descriptions import Parameter
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.ros.distribution import DDS_PROFILE, apt_package, dds_profile
from feature_frontend.ros.playback.launch_arguments import Argument, Launched
from feature_frontend.system.files import user_path
from feature_frontend.system.text import quoted

__all__ = [
    "SIDES",
    "common_arguments",
    "config_file",
    "dds_environment",
    "ends_launch",
    "find_params_file",
    "frontend_node",
    "live_arguments",
    "live_parameters",
    "mask_remappings",
    "on_exit_of",
    "process_options",
    "required_package",
    "respawns",
    "stereo_params_file",
    "topic_arguments",
    "topic_remappings",
]

PACKAGE = "feature_frontend"
SIDES = ("left", "right")
DEFAULT_COMPOSITION = "auto+mnn.yaml"
_MOST_DELAY_S = 3600.0
# Ended by kill, or by Ctrl-C, which the terminal also sends to the processes, perhaps before launch has seen it.
STOPPED_BY_USER = (0, -2, 130, -15, 143)


def config_file(name: str) -> Path:
    """A file in the package's installed `config/`."""
    return Path(get_package_share_directory(PACKAGE)) / "config" / name


def common_arguments() -> list[Argument]:
    """The arguments of all launch files of this package."""
    return [
        Argument(
            "params_file",
            default_value=str(config_file(DEFAULT_COMPOSITION)),
            description="Parameter file of the front-end: a path, or the name of a file in the package's config folder "
            "(aliked-n32+mnn.yaml)",
        ),
        Argument(
            "namespace",
            default_value="",
            description="Namespace of the node; topics without a leading slash are relative to it",
        ),
        Argument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Minimum severity of the front-end's log; debug: one line per frame",
        ),
        Argument(
            "shared_memory",
            default_value="true",
            choices=["true", "false"],
            description="Start the processes with the package's FastDDS profile, whose shared memory holds images of "
            "1 MB and more; a profile named in the environment has priority; false keeps FastDDS's defaults",
        ),
        Argument(
            "end_launch",
            default_value="",
            choices=["", "true", "false"],
            description="Whether the end of one of the processes ends the whole launch; empty: true if this file is "
            "launched alone, without respawn",
        ),
    ]


def topic_arguments(side: str = "") -> list[Argument]:
    """The arguments that name a camera's topics; with the prefix `left_` or `right_` for a stereo camera.

    Args:
        side: "left" or "right"; empty for the only camera.
    """
    prefix, whose = (f"{side}_", f"{side} ") if side else ("", "")
    return [
        Argument(
            f"{prefix}image_topic",
            default_value=f"{side}/image" if side else "image",
            description=f"Topic of the {whose}images (sensor_msgs/Image); for compressed images, without the "
            "suffix /compressed",
        ),
        Argument(
            f"{prefix}camera_info_topic",
            default_value="",
            description=f"Topic of the {whose}calibration (sensor_msgs/CameraInfo); empty: camera_info next to the "
            f"{whose}image topic",
        ),
    ]


def stereo_params_file() -> Argument:
    """The argument that names the parameter file for stereo."""
    return Argument(
        "stereo_params_file",
        default_value=str(config_file("stereo.yaml")),
        description="Parameter file that overrides params_file: enables stereo",
    )


def live_arguments() -> list[Argument]:
    """The arguments of the launch files for live cameras."""
    return [
        Argument(
            "use_sim_time",
            default_value="",
            choices=["", "true", "false"],
            description="true: use the time from /clock, for simulators; empty: as in params_file",
        ),
        Argument(
            "mask_topic",
            default_value="",
            description="Topic of the masks (sensor_msgs/Image, mono8), for which each image then waits; empty: as "
            "in params_file, on `mask`",
        ),
        Argument(
            "respawn",
            default_value="false",
            choices=["true", "false"],
            description="true: restart a process whenever it ends, until the launch ends",
        ),
        Argument("respawn_delay", default_value="1.0", description="Delay before a restart, s"),
    ]


def live_parameters(launched: Launched) -> list[Parameter]:
    """Parameters set by live arguments whose names differ from the parameters'."""
    parameters = []
    if launched.arguments["use_sim_time"]:
        parameters.append(Parameter("use_sim_time", launched.arguments["use_sim_time"] == "true"))
    if launched.arguments["mask_topic"]:
        parameters.append(Parameter("mask_topic", value=True))
    return parameters


def mask_remappings(launched: Launched) -> list[tuple[str, str]]:
    """The remapping to the chosen mask topic."""
    topic = launched.arguments["mask_topic"]
    return [("mask", topic)] if topic else []


def frontend_node(
    launched: Launched,
    *,
    remappings: list[tuple[str, str]],
    further_params_files: tuple[str, ...] = (),
    parameters: Sequence[Parameter] = (),
) -> Node:
    """The process of the front-end, configured by the common arguments and the parameter arguments.

    Args:
        launched: Holds the values of the arguments.
        remappings: Of its topics.
        further_params_files: Parameter files whose values override those of `params_file`.
        parameters: Single parameters, which override the files.

    Raises:
        SettingsError: A parameter file does not exist, or a parameter's value is wrong.
    """
    arguments = launched.arguments
    files = [find_params_file(name) for name in (arguments["params_file"], *further_params_files)]
    return Node(
        package=PACKAGE,
        executable="frontend",
        name="frontend",
        namespace=arguments["namespace"],
        parameters=[*files, *launched.parameters(), *parameters],
        remappings=remappings,
        # With the logger's name: without one, the level would also apply to ROS's own log messages in the process.
        ros_arguments=["--log-level", f"{_logger_name(launched)}:={arguments['log_level']}"],
        **process_options(launched, "the front-end"),
    )


def _logger_name(launched: Launched) -> str:
    """Logger name of the node `frontend`, including the namespaces of parent launch files: robot.frontend."""
    above = launched.context.launch_configurations.get("ros_namespace")
    namespace = make_namespace_absolute(prefix_namespace(above, launched.arguments["namespace"])) or ""
    return f"{namespace}/frontend".strip("/").replace("/", ".")


def process_options(launched: Launched, what: str) -> dict[str, Any]:
    """Keyword arguments common to all processes of the launch files.

    Args:
        launched: Holds the values of the arguments.
        what: Name of the process in messages.
    """
    options: dict[str, Any] = {
        "additional_env": dds_environment(launched),
        "output": "screen",
        "on_exit": on_exit_of(launched, what),
    }
    if respawns(launched):
        options |= {"respawn": True, "respawn_delay": _respawn_delay_s(launched)}
    return options


def _respawn_delay_s(launched: Launched) -> float:
    text = launched.arguments["respawn_delay"]
    try:
        delay_s = float(text)
    except ValueError:
        delay_s = math.nan
    if not 0.0 <= delay_s <= _MOST_DELAY_S:
        raise SettingsError(
            f"argument respawn_delay is {text!r}; expected seconds from 0 to {_MOST_DELAY_S:g}, such as 1.0"
        )
    return delay_s


def respawns(launched: Launched) -> bool:
    """Whether processes that end are restarted."""
    return launched.arguments.get("respawn") == "true"


def ends_launch(launched: Launched) -> bool:
    """Whether the end of a process ends the launch.

    Raises:
        SettingsError: Both ending the launch and restarting processes were requested.
    """
    asked = launched.arguments["end_launch"]
    if asked == "true" and respawns(launched):
        raise SettingsError("arguments end_launch and respawn are both true; expected at most one of them")
    return asked == "true" or (not asked and launched.is_alone and not respawns(launched))


def find_params_file(name: str) -> str:
    """The parameter file `name`, as a path or in the package's `config/`.

    launch_ros itself only warns of a missing file and starts the node with its defaults.
    """
    for path in (user_path(name), config_file(name)):
        # Not `Path.is_file`, which raises for invalid file names.
        if os.path.isfile(path):
            return str(path)
    shipped = sorted(path.name for path in config_file("").glob("*.yaml"))
    raise SettingsError(f"no parameter file {quoted(name)}; expected a path or one of {', '.join(shipped)}")


def topic_remappings(launched: Launched, *, image: str = "image", side: str = "") -> list[tuple[str, str]]:
    """The remappings of a process to the chosen topics.

    By default, `camera_info` is in the namespace of the image, where image_transport's camera publishers and
    subscribers look for it.

    Args:
        launched: Holds the values of the arguments.
        image: Name of the image topic in the process.
        side: "left" or "right" of two cameras; empty for the only one.
    """
    prefix, own_namespace = (f"{side}_", f"{side}/") if side else ("", "")
    image_topic = launched.arguments[f"{prefix}image_topic"]
    namespace, slash, _ = image_topic.rpartition("/")
    info_topic = launched.arguments[f"{prefix}camera_info_topic"] or f"{namespace}{slash}camera_info"
    return [(f"{own_namespace}{image}", image_topic), (f"{own_namespace}camera_info", info_topic)]


def dds_environment(launched: Launched) -> dict[str, str]:
    """The variable that gives a process the package's FastDDS profile; empty if the user has chosen another."""
    return dds_profile(config_file(DDS_PROFILE)) if launched.arguments["shared_memory"] == "true" else {}


def on_exit_of(launched: Launched, what: str) -> Callable[[ProcessExited, LaunchContext], list[Action]]:
    """Returns the handler for the end of a process: ends the launch if `ends_launch`; fails if the process failed.

    Launch's own `Shutdown` action would exit with status 0, which scripts and service managers read as success.

    Args:
        launched: Holds the values of the arguments.
        what: Name of the process in messages.
    """
    ends = ends_launch(launched)

    def on_exit(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if context.is_shutdown:
            return []
        if ends:
            if event.returncode not in STOPPED_BY_USER:
                raise FeatureFrontendError(
                    f"{what} ended with exit status {event.returncode}; its own message is above"
                )
            return [Shutdown(reason=f"{what} has ended")]
        follow = "it is started again" if respawns(launched) else "the launch goes on without it"
        get_logger(PACKAGE).warning(f"{what} ended with exit status {event.returncode}; {follow}")
        return []

    return on_exit


def required_package(name: str, *, wanted_by: str, instead: str) -> str:
    """Returns `name` if that ROS package is installed.

    Raises:
        SettingsError: It is not; the text says what to install or to use instead.
    """
    try:
        get_package_prefix(name)
    except PackageNotFoundError as error:
        raise SettingsError(
            f"{wanted_by} needs the package {name}, which is not installed: "
            f"sudo apt install {apt_package(name)}, or {instead}"
        ) from error
    return name
