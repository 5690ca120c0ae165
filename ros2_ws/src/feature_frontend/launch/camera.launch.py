"""The front-end on a live camera: `ros2 launch feature_frontend camera.launch.py image_topic:=/camera/image_raw`."""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from feature_frontend.ros.launching import (
    common_arguments,
    dds_environment,
    end_launch_with,
    find_params_file,
    frontend_node,
    live_arguments,
    live_parameters,
    mask_remappings,
    required_package,
    topic_arguments,
    topic_remappings,
)

# camera:=NAME -> package and executable. Both drivers publish `image_raw` and `camera_info`.
CAMERA_DRIVERS = {
    "usb_cam": ("usb_cam", "usb_cam_node_exe"),
    "v4l2": ("v4l2_camera", "v4l2_camera_node"),
}


def start(context: LaunchContext) -> list[Node]:
    """The processes that the arguments ask for."""
    remappings = [*topic_remappings(context), *mask_remappings(context)]
    nodes = [frontend_node(context, remappings=remappings, parameters=live_parameters(context))]
    camera = context.launch_configurations["camera"]
    if camera in CAMERA_DRIVERS:
        nodes.append(camera_node(context, camera))
    return nodes


def camera_node(context: LaunchContext, camera: str) -> Node:
    """The process of a camera driver, publishing where the front-end listens."""
    package, executable = CAMERA_DRIVERS[camera]
    params_file = context.launch_configurations["camera_params_file"]
    return Node(
        package=required_package(
            package,
            wanted_by=f"camera:={camera}",
            instead="start another driver and give its topic with image_topic:=",
        ),
        executable=executable,
        name="camera",
        namespace=context.launch_configurations["namespace"],
        parameters=[find_params_file(params_file)] if params_file else [],
        remappings=topic_remappings(context, image="image_raw"),
        additional_env=dds_environment(context),
        output="screen",
        on_exit=end_launch_with("the camera driver"),
    )


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments and what is started."""
    return LaunchDescription(
        [
            *common_arguments(),
            *topic_arguments(),
            *live_arguments(),
            DeclareLaunchArgument(
                "camera",
                default_value="none",
                choices=["none", *CAMERA_DRIVERS],
                description="Camera driver to start too; none: one runs already",
            ),
            DeclareLaunchArgument(
                "camera_params_file",
                default_value="",
                description="Parameter file of the camera driver (device, size, calibration); empty: its defaults",
            ),
            OpaqueFunction(function=start),
        ]
    )
