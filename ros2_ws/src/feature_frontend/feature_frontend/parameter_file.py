"""Parameter files as ROS 2 nodes take them, read without ROS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from feature_frontend.errors import SettingsError

__all__ = ["read_parameter_file"]

_VALUES = "ros__parameters"
_OF_EVERY_NODE = {"use_sim_time"}


def read_parameter_file(path: Path, node: str | None = None) -> dict[str, object]:
    """The front-end's parameters in a ROS parameter file; their names and values are not checked.

    Args:
        path: A YAML file.
        node: Full name of a node whose sections count, as ROS reads them: "/**" is every node, "*" any one name. None
            for all sections, whatever nodes they name.

    Raises:
        SettingsError: The file cannot be read, or is no parameter file.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"parameter file {path} cannot be read: {error}"
        raise SettingsError(msg) from error
    sections = list(_sections(document, ""))
    if not sections:
        msg = f"parameter file {path} has no section {_VALUES!r}; `feature_frontend parameters --yaml` prints one"
        raise SettingsError(msg)
    found: dict[str, object] = {}
    for pattern, values in sections:
        if node is None or re.fullmatch(_expression(pattern), node):
            found.update({name: value for name, value in values.items() if name not in _OF_EVERY_NODE})
    return found


def _sections(document: Any, above: str) -> Iterator[tuple[str, dict[str, object]]]:
    if not isinstance(document, dict):
        return
    for key, value in document.items():
        if key == _VALUES:
            yield above, value if isinstance(value, dict) else {}
        else:
            yield from _sections(value, f"{above}/{str(key).strip('/')}")


def _expression(pattern: str) -> str:
    parts = re.split(r"(/\*\*|\*)", pattern)
    meanings = {"/**": "(?:/.*)?", "*": "[^/]*"}
    return "".join(meanings.get(part) or re.escape(part) for part in parts)
