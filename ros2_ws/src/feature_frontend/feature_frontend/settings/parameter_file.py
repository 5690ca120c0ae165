"""Reads ROS 2 parameter files without ROS, and finds the entries in them that have no effect, for a warning."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from feature_frontend.errors import SettingsError
from feature_frontend.settings import PARAMETERS
from feature_frontend.settings.parameter import with_present_names
from feature_frontend.system.text import nearest_name, printable, quoted, shown
from feature_frontend.system.yaml_text import YamlTextError, parse_yaml, read_small_text

__all__ = [
    "FORMER_NAMES",
    "applies_to",
    "ignored_entries",
    "parameter_sections",
    "read_parameter_files",
    "unused_names",
]

_VALUES = "ros__parameters"
# Parameters that ROS itself declares or looks up in every node.
_OF_ROS = {"use_sim_time", "start_type_description_service"}
FORMER_NAMES = {record.formerly for record in PARAMETERS.values() if record.formerly}
_QOS_OVERRIDES = "qos_overrides."
# How similar a name must be to one of our parameters to count as a misspelling: under a node's own name, where it is
# meant for us and certainly wrong; and under a pattern, where it may belong to another node.
_OWN_LIKENESS, _PATTERN_LIKENESS = 0.72, 0.82
_MOST_SHOWN, _SHOWN_CHARACTERS = 8, 40

_logger = logging.getLogger(__name__)

Sections = list[tuple[str, dict[str, object]]]


def read_parameter_files(paths: Sequence[Path], node: str | None = None) -> dict[str, object]:
    """Reads the front-end's parameters from ROS parameter files. Warns of entries without effect; checks no values.

    If a parameter is set several times, the same value wins as in ROS: sections are ordered by the first occurrence of
    their names over all files; a later file changes a section in its place, and a later section wins.

    Args:
        paths: YAML files.
        node: Full name of the node whose sections apply, with ROS's patterns: "/**" is every node, "/*" any one name.
            None for all sections, whatever nodes they name.

    Raises:
        SettingsError: A file cannot be read, or is not a parameter file.
    """
    merged: dict[str, dict[str, object]] = {}
    for path in paths:
        sections = parameter_sections(path)
        for text in ignored_entries(path, sections, node):
            _logger.warning("%s", text)
        for pattern, values in sections:
            merged.setdefault(pattern, {}).update(values)
    found: dict[str, object] = {}
    for pattern, values in merged.items():
        if node is None or applies_to(pattern, node):
            present = with_present_names(values, PARAMETERS.values(), _logger.warning)
            found.update({name: value for name, value in present.items() if name in PARAMETERS})
    return found


def parameter_sections(path: Path) -> Sections:
    """The sections of a parameter file in order: the node name as written, and the values by full parameter name.

    Raises:
        SettingsError: The file cannot be read, or is not a parameter file.
    """
    try:
        document = parse_yaml(read_small_text(path), aliases=False)
        sections = list(_sections(document, ""))
    except OSError as error:
        raise SettingsError(f"parameter file {path} cannot be read: {error.strerror or error}") from error
    except YamlTextError as error:
        raise SettingsError(f"parameter file {path} cannot be read: {error}") from error
    # ROS accepts an empty file too.
    if document and not sections:
        raise SettingsError(
            f"parameter file {path} has no section {_VALUES!r}; `feature_frontend parameters --yaml` prints one"
        )
    return sections


def applies_to(pattern: str, node: str) -> bool:
    """Whether a section with this name applies to the node with this full name, by the rules of rcl."""
    meanings = {"/**": r"(?:/\w+)*", "/*": r"/\w+"}
    parts = re.split(r"(/\*\*|/\*)", f"/{pattern.lstrip('/')}")
    return re.fullmatch("".join(meanings.get(part) or re.escape(part) for part in parts), node) is not None


def ignored_entries(path: Path, sections: Sections, node: str | None) -> list[str]:
    """Warnings about a file: no section applies to `node` (None: every section applies), or names are unknown."""
    applying = [(pattern, values) for pattern, values in sections if node is None or applies_to(pattern, node)]
    if not applying:
        given = (
            ", ".join(printable(pattern, _SHOWN_CHARACTERS) for pattern, _ in sections[:_MOST_SHOWN]) or "none at all"
        )
        return [
            f"parameter file {path} has no section for {node or 'any node'} (its sections: {given}): nothing in it has "
            f"an effect; name the section {node or '/frontend'}, or /** for every node"
        ]
    # A name that appears under the node's name and under a pattern is meant for the node.
    names = {name: "*" in pattern for pattern, values in applying for name in values if "*" in pattern}
    names |= {name: False for pattern, values in applying for name in values if "*" not in pattern}
    text = unused_names(names)
    return [f"parameter file {path}: {text}"] if text else []


def unused_names(names: Mapping[str, bool]) -> str:
    """A text that lists the names that are not parameters of the front-end, with suggestions; empty if there are none.

    Args:
        names: Each name with whether it may be meant for another node (it appears under a pattern such as "/**"). Of
            those, only names that resemble a parameter of the front-end are listed.
    """
    unused = []
    for name, may_be_of_others in names.items():
        if name in PARAMETERS or name in FORMER_NAMES or name in _OF_ROS:
            continue
        cut = printable(name, _SHOWN_CHARACTERS)
        if name.startswith(_QOS_OVERRIDES):
            if not may_be_of_others:
                unused.append(f"{cut} (set image_qos instead)")
            continue
        near = nearest_name(name, PARAMETERS, _PATTERN_LIKENESS if may_be_of_others else _OWN_LIKENESS)
        if near or not may_be_of_others:
            unused.append(f"{cut} (did you mean {near}?)" if near else cut)
    if not unused:
        return ""
    rest = len(unused) - _MOST_SHOWN
    every = ", ".join(unused[:_MOST_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
    verb, effect = ("is not a parameter", "has") if len(unused) == 1 else ("are not parameters", "have")
    return f"{every} {verb} of the front-end and {effect} no effect; `feature_frontend parameters` lists all"


def _sections(document: Any, above: str) -> Iterator[tuple[str, dict[str, object]]]:
    if not isinstance(document, dict):
        return
    for key, value in document.items():
        if key == _VALUES:
            # ROS also accepts an empty section.
            if not isinstance(value, dict) and value != "":
                found = f"section {quoted(above)} has {_VALUES} {shown(value)}"
                raise YamlTextError(f"{found}; expected names of parameters with their values")
            yield above, dict(_flat(value, "")) if isinstance(value, dict) else {}
        else:
            yield from _sections(value, f"{above}/{key}" if above else key)


def _flat(values: Mapping[str, object], above: str) -> Iterable[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
