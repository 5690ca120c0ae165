"""The front-end on a live camera: `ros2 launch feature_frontend camera.launch.py image_topic:=/camera/image_raw`."""

from __future__ import annotations

from launch import LaunchDescription
from launch_ros.actions import Node

from feature_frontend.ros.playback.launch_arguments import Argument, Launched, launch_description
from feature_frontend.ros.playback.launch_support import (
    common_arguments,
    find_params_file,
    frontend_node,
    live_arguments,
    live_parameters,
    mask_remappings,
    process_options,
    required_package,
    topic_arguments,
    topic_remappings,
)

# camera:=NAME -> package and executable. Both drivers publish `image_raw` and `camera_info`.
CAMERA_DRIVERS = {
    "usb_cam": ("usb_cam", "usb_cam_node_exe"),
    "v4l2": ("v4l2_camera", "v4l2_camera_node"),
}


def start(launched: Launched) -> list[Node]:
    """The processes to start for the given arguments."""
    remappings = [*topic_remappings(launched), *mask_remappings(launched)]
    nodes = [frontend_node(launched, remappings=remappings, parameters=live_parameters(launched))]
    camera = launched.arguments["camera"]
    if camera in CAMERA_DRIVERS:
        nodes.append(camera_node(launched, camera))
    return nodes


def camera_node(launched: Launched, camera: str) -> Node:
    """The process of a camera driver, remapped to the front-end's topics."""
    package, executable = CAMERA_DRIVERS[camera]
    params_file = launched.arguments["camera_params_file"]
    return Node(
        package=required_package(
            package,
            wanted_by=f"camera:={camera}",
            instead="start another driver and give its topic with image_topic:=",
        ),
        executable=executable,
        name="camera",
        namespace=launched.arguments["namespace"],
        parameters=[find_params_file(params_file)] if params_file else [],
        remappings=topic_remappings(launched, image="image_raw"),
        **process_options(launched, "the camera driver"),
    )


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments and the processes."""
    return launch_description(
        [
            *common_arguments(),
            *topic_arguments(),
            *live_arguments(),
            Argument(
                "camera",
                default_value="none",
                choices=["none", *CAMERA_DRIVERS],
                description="Camera driver to start too; none: one runs already",
            ),
            Argument(
                "camera_params_file",
                default_value="",
                description="Parameter file of the camera driver (device, size, calibration); empty: its defaults",
            ),
        ],
        start,
    )
