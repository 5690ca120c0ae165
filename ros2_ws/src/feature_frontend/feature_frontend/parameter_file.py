"""Parameter files as ROS 2 nodes take them, read without ROS."""

from __future__ import annotations

from pathlib import Path

import yaml

from feature_frontend.errors import SettingsError

__all__ = ["read_parameter_file"]


def read_parameter_file(path: Path) -> dict[str, object]:
    """The front-end's parameters in a ROS parameter file, whatever nodes it names; their values are not checked.

    Raises:
        SettingsError: The file cannot be read, or is no parameter file.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        groups = [group["ros__parameters"] for group in document.values()]
        return {name: value for group in groups for name, value in group.items() if name != "use_sim_time"}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        msg = f"parameter file {path} cannot be read ({error}); expected NODE: {{ros__parameters: {{name: value}}}}"
        raise SettingsError(msg) from error
