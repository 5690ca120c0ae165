"""Two cameras with one front-end each, as part of a robot: `ros2 launch examples/bringup/two_cameras.launch.py`.

A front-end that dies is restarted after two seconds; other nodes of the robot's launch keep running.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

# Name and namespace of each camera: its results are on /front/features, /front/tracks and so on.
CAMERAS = {"front": "/camera/front/image_raw", "rear": "/camera/rear/image_raw"}


def frontend(name: str, image_topic: str) -> IncludeLaunchDescription:
    """The front-end of a camera. Arguments not set here have their defaults, even if the robot's files set `device`."""
    launch_file = PathJoinSubstitution([FindPackageShare("feature_frontend"), "launch", "camera.launch.py"])
    arguments = {
        "namespace": name,
        "image_topic": image_topic,
        "device": LaunchConfiguration("frontend_device"),
        "max_num_keypoints": "500",
        "respawn": "true",
        "respawn_delay": "2.0",
    }
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(launch_file), launch_arguments=list(arguments.items())
    )


def generate_launch_description() -> LaunchDescription:
    """The launch description; add your drivers and the rest of the robot."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("frontend_device", default_value="auto", description="Where the networks run"),
            *(frontend(name, topic) for name, topic in CAMERAS.items()),
        ]
    )
