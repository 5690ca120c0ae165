from collections.abc import Iterable, Sequence
from typing import Any

from launch import Action
from launch_ros.descriptions import Parameter

class Node(Action):
    def __init__(
        self,
        *,
        executable: str,
        package: str | None = None,
        name: str | None = None,
        namespace: str | None = None,
        parameters: Sequence[str | Parameter] | None = None,
        remappings: Iterable[tuple[str, str]] | None = None,
        ros_arguments: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None: ...
