"""The arguments of the launch files, and which of them were given to the file being launched.

Launch keeps the arguments of all files in one table: an included file also sees what parent files and earlier includes
have set. So a value counts only if it was given to this file.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from launch import Action, LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
    SetLaunchConfiguration,
)
from launch.events import IncludeLaunchDescription as IncludeEvent
from launch.logging import get_logger
from launch.utilities import normalize_to_list_of_substitutions, perform_substitutions
from launch_ros.descriptions import Parameter

from feature_frontend.errors import SettingsError
from feature_frontend.settings import PARAMETERS
from feature_frontend.settings.parameter import with_present_names
from feature_frontend.settings.parameter_file import FORMER_NAMES
from feature_frontend.system.text import nearest_name

__all__ = ["Argument", "Launched", "launch_description"]

# Arguments whose meaning differs from the parameter of the same name.
_NOT_PARAMETERS = {"mask_topic"}
# Arguments of launch itself; `ros2 launch --launch-prefix` sets the first two.
_OF_LAUNCH = {"launch-prefix", "launch-prefix-filter", "emulate_tty", "sigterm_timeout", "sigkill_timeout"}
# Actions allowed next to the only launched file: `ros2 launch --secure` adds them.
_ONLY_SETS = (DeclareLaunchArgument, SetEnvironmentVariable, SetLaunchConfiguration)
_LIKENESS = 0.6


class Argument(DeclareLaunchArgument):
    """Declares an argument for `--show-args` without changing launch's table: `Launched` holds the values."""

    def execute(self, context: LaunchContext) -> None:
        """Does nothing: a value of the same name set by a parent file is neither checked nor used."""


@dataclass(frozen=True)
class Launched:
    """A launch file of this package being launched.

    Attributes:
        context: Of launch.
        arguments: The value of every argument; the default if it was not given or is empty.
        given: Names of the non-empty arguments given.
        is_alone: Whether only this file was launched, not as part of a larger launch.
    """

    context: LaunchContext
    arguments: Mapping[str, str]
    given: frozenset[str]
    is_alone: bool

    def parameters(self) -> list[Parameter]:
        """The front-end's parameters that were given as arguments of the same name.

        Raises:
            SettingsError: A value has a wrong type or is out of range.
        """
        # Not as a dictionary: launch_ros would write it to a file in /tmp and leave it there.
        return [
            Parameter(record.name, value, value_type=str) if isinstance(value, str) else Parameter(record.name, value)
            for record in PARAMETERS.values()
            if record.name in self.given and record.name not in _NOT_PARAMETERS
            for value in [record.read(self.arguments[record.name])]
        ]


def launch_description(arguments: Iterable[Argument], start: Callable[[Launched], list[Action]]) -> LaunchDescription:
    """Creates the launch description that a launch file returns.

    Args:
        arguments: Of the file; every parameter is added as an argument.
        start: Creates the actions for the given arguments.
    """
    own = list(arguments)
    names = {argument.name for argument in own}
    description = LaunchDescription([*own, *_parameter_arguments(names)])
    description.add_action(OpaqueFunction(function=lambda context: start(_launched(context, description))))
    return description


def _parameter_arguments(taken: set[str]) -> Iterator[Argument]:
    for record in PARAMETERS.values():
        if record.name not in taken:
            unit = f" Unit: {record.unit}." if record.unit else ""
            yield Argument(
                record.name,
                default_value="",
                choices=list(dict.fromkeys(("", *record.choices))) if record.choices else None,
                description=f"{record.description}{unit} Left empty, the parameter files say it; else it is "
                f"{json.dumps(record.default)}",
            )


def _launched(context: LaunchContext, description: LaunchDescription) -> Launched:
    declared = {entity.name: entity for entity in description.entities if isinstance(entity, Argument)}
    include = _include_of(description)
    is_alone = _is_alone(context, description, include)
    table = context.launch_configurations
    # Without an include, the description was added to another by hand: only the table is available.
    names = (*declared, *FORMER_NAMES) if include is None else _names_given(context, include)
    warn = get_logger("feature_frontend").warning
    table = with_present_names({name: table[name] for name in names if name in table}, PARAMETERS.values(), warn)
    _report_unknown([name for name in table if name not in declared], declared, is_alone)
    values, given = {}, {name for name, value in table.items() if name in declared and value}
    for name, argument in declared.items():
        values[name] = table[name] if name in given else _default(context, argument)
        if argument.choices is not None and values[name] not in argument.choices:
            expected = ", ".join(choice for choice in argument.choices if choice)
            raise SettingsError(f"argument {name} is {values[name]!r}; expected one of {expected}")
    return Launched(context, values, frozenset(given), is_alone)


def _include_of(description: LaunchDescription) -> IncludeLaunchDescription | None:
    """The action that includes `description`; None if there is none.

    Launch does not tell a file what included it. But it visits a file within the call that visits the include, so the
    action is a local variable in one of our callers.
    """
    frame = inspect.currentframe()
    while frame is not None:
        for value in list(frame.f_locals.values()):
            if isinstance(value, IncludeLaunchDescription):
                source = value.launch_description_source
                if source.try_get_launch_description_without_context() is description:
                    return value
        frame = frame.f_back
    return None


def _is_alone(context: LaunchContext, description: LaunchDescription, include: IncludeLaunchDescription | None) -> bool:
    """Whether `ros2 launch`, or a program like it, launches only this file.

    Then the event's description holds the include and no other actions. An include in a robot's launch file is nested
    deeper, or comes with another event (such as a timer's).
    """
    event = context.get_locals_as_dict().get("event")
    if not isinstance(event, IncludeEvent):
        return False
    top = event.launch_description
    acting = [entity for entity in _entities(top) if not isinstance(entity, _ONLY_SETS)]
    return top is description or (include is not None and acting == [include])


def _entities(description: LaunchDescription) -> Iterator[LaunchDescriptionEntity]:
    for entity in description.entities:
        if isinstance(entity, LaunchDescription):
            yield from _entities(entity)
        else:
            yield entity


def _names_given(context: LaunchContext, include: IncludeLaunchDescription) -> list[str]:
    return [
        perform_substitutions(context, normalize_to_list_of_substitutions(name)) for name, _ in include.launch_arguments
    ]


def _report_unknown(unknown: list[str], declared: Iterable[str], is_alone: bool) -> None:
    """Refuses unknown arguments. As part of a larger launch, which would then not start, only warns."""
    listed = []
    for name in unknown:
        if name not in _OF_LAUNCH:
            near = nearest_name(name, declared, _LIKENESS)
            listed.append(f"{name} (did you mean {near}?)" if near else name)
    if not listed:
        return
    msg = f"no such argument: {', '.join(listed)}; --show-args lists all"
    if is_alone:
        raise SettingsError(msg)
    get_logger("feature_frontend").warning(f"{msg}. It has no effect")


def _default(context: LaunchContext, argument: Argument) -> str:
    if argument.default_value is None:
        raise SettingsError(f"argument {argument.name} is missing: {argument.description}")
    return perform_substitutions(context, argument.default_value)
