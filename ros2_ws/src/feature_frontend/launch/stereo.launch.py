"""The front-end on two cameras: `ros2 launch feature_frontend stereo.launch.py left_image_topic:=... ...`."""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from feature_frontend.ros.launching import (
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


def start(context: LaunchContext) -> list[Node]:
    """The process that the arguments ask for."""
    arguments = context.launch_configurations
    remappings = [
        *(rule for side in SIDES for rule in topic_remappings(context, side=side)),
        *((name, arguments[f"{name}_topic"]) for name in OUTPUTS),
        *mask_remappings(context),
    ]
    return [
        frontend_node(
            context,
            remappings=remappings,
            further_params_files=(arguments["stereo_params_file"],),
            parameters=live_parameters(context),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments and what is started."""
    return LaunchDescription(
        [
            *common_arguments(),
            *(argument for side in SIDES for argument in topic_arguments(side)),
            *(
                DeclareLaunchArgument(f"{name}_topic", default_value=name, description=f"Topic for the node's `{name}`")
                for name in OUTPUTS
            ),
            *live_arguments(),
            stereo_params_file(),
            OpaqueFunction(function=start),
        ]
    )
