from launch import LaunchDescription

class IncludeLaunchDescription:
    @property
    def launch_description(self) -> LaunchDescription: ...
