"""The front-end on two cameras: `ros2 launch feature_frontend stereo.launch.py left_image_topic:=... ...`."""

from __future__ import annotations

from launch import LaunchDescription
from launch_ros.actions import Node

from feature_frontend.ros.playback.launch_arguments import Argument, Launched, launch_description
from feature_frontend.ros.playback.launch_support import (
    SIDES,
    common_arguments,
    frontend_node,
    live_arguments,
    live_parameters,
    mask_remappings,
    stereo_params_file,
    topic_arguments,
    topic_remappings,
)

OUTPUTS = ("stereo_matches", "points")


def start(launched: Launched) -> list[Node]:
    """The process to start for the given arguments."""
    arguments = launched.arguments
    remappings = [
        *(rule for side in SIDES for rule in topic_remappings(launched, side=side)),
        *((name, arguments[f"{name}_topic"]) for name in OUTPUTS),
        *mask_remappings(launched),
    ]
    return [
        frontend_node(
            launched,
            remappings=remappings,
            further_params_files=(arguments["stereo_params_file"],),
            parameters=live_parameters(launched),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments and the process."""
    return launch_description(
        [
            *common_arguments(),
            *(argument for side in SIDES for argument in topic_arguments(side)),
            *(
                Argument(f"{name}_topic", default_value=name, description=f"Topic for the node's `{name}`")
                for name in OUTPUTS
            ),
            *live_arguments(),
            stereo_params_file(),
        ],
        start,
    )
