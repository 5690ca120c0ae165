"""Parses the names given to `--compare` (trackers, settings, parameter files, baselines) into front-ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from feature_frontend.errors import SettingsError
from feature_frontend.models.catalog import AUTO
from feature_frontend.settings import PARAMETERS, Settings
from feature_frontend.settings.parameter_file import read_parameter_files
from feature_frontend_lab.evaluation.tracks.baselines import (
    FrontendSequence,
    LucasKanadeSequence,
    OrbSequence,
    SequenceFrontend,
)

__all__ = ["BASELINES", "TRACKERS", "Configuration", "parse_assignment", "parse_configurations"]

BASELINES: dict[str, Callable[[int], SequenceFrontend]] = {"lk": LucasKanadeSequence, "orb": OrbSequence}
_TRACKER = "tracker"
# A table must not say "auto" of what it measures; tracker=auto works.
TRACKERS = tuple(name for name in PARAMETERS[_TRACKER].choices if name != AUTO)
_BUDGET = "max_num_keypoints"

# "+" joins the parts of a configuration; the name of a parameter file may contain it, too.
_PART = re.compile(r"[^=]+?\.ya?ml(?=\+|$)|[^+]+")


@dataclass(frozen=True)
class Configuration:
    """A front-end to evaluate.

    Attributes:
        name: Name in tables and files.
        make: Creates a new, unused front-end.
    """

    name: str
    make: Callable[[], SequenceFrontend]


def parse_configurations(texts: Sequence[str], common: Mapping[str, object]) -> list[Configuration]:
    """Parses configurations, keeping their order.

    Args:
        texts: Each holds one configuration, or several separated by commas: a tracker, a baseline, KEY=VALUE of any
            parameter, or a parameter file. "+" joins the parts of one configuration; later parts win.
        common: Parameters of all configurations, unless a configuration overrides them.

    Raises:
        SettingsError: A name or value is invalid, a file cannot be read, or a configuration is listed twice.
    """
    found: dict[str, Configuration] = {}
    for text in (part.strip() for joined in texts for part in joined.split(",")):
        configuration = _parse(text, common)
        if configuration.name in found:
            raise SettingsError(f"configuration {configuration.name} is named twice; expected different ones")
        found[configuration.name] = configuration
    return list(found.values())


def parse_assignment(text: str) -> tuple[str, object]:
    """Splits KEY=VALUE into a parameter's name and value.

    Raises:
        SettingsError: The text is not an assignment, or the parameter does not exist.
    """
    name, separator, value = text.partition("=")
    if not separator or name not in PARAMETERS:
        raise SettingsError(f"{text!r} sets no parameter; expected KEY=VALUE with one of {', '.join(PARAMETERS)}")
    if isinstance(PARAMETERS[name].default, str):
        return name, value
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        return name, value


def _parse(text: str, common: Mapping[str, object]) -> Configuration:
    names, baseline, own = [], "", dict[str, object]()
    for part in _PART.findall(text):
        names.append(Path(part).stem if part.endswith((".yaml", ".yml")) else part)
        if part in BASELINES:
            baseline = part
        elif part in TRACKERS:
            own[_TRACKER] = part
        elif "=" in part:
            name, value = parse_assignment(part)
            own[name] = value
        elif part.endswith((".yaml", ".yml")):
            own |= read_parameter_files([Path(part)])
        else:
            names = []
            break
    if not names:
        choices = ", ".join([*TRACKERS, *BASELINES])
        raise SettingsError(
            f"no configuration is called {text!r}; expected one of {choices}, KEY=VALUE, or a parameter file (.yaml)"
        )
    settings = Settings.from_mapping({**common, **own})
    if not baseline:
        return Configuration("+".join(names), partial(FrontendSequence, settings))
    if set(own) - {_BUDGET}:
        raise SettingsError(
            f"{text!r} sets {', '.join(sorted(set(own) - {_BUDGET}))}; {baseline} has no parameter but {_BUDGET}"
        )
    return Configuration("+".join(names), partial(BASELINES[baseline], settings.max_num_keypoints))
