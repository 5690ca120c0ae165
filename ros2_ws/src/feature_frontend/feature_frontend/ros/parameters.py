"""The parameters of `settings/` as ROS 2 parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from feature_frontend.errors import SettingsError
from feature_frontend.ros.rclpy_private import given_parameters
from feature_frontend.settings import PARAMETERS, Settings
from feature_frontend.settings.parameter import ParameterRecord, with_present_names
from feature_frontend.settings.parameter_file import ignored_entries, parameter_sections, unused_names
from feature_frontend.system.files import open_regular_file, user_path
from feature_frontend.system.text import quoted

__all__ = ["changed_settings", "check_file", "declare_parameters", "describe", "read_settings", "settable"]


def describe(record: ParameterRecord) -> ParameterDescriptor:
    """The text for `ros2 param describe`, including when a change takes effect. Not live means read-only."""
    descriptor = ParameterDescriptor()
    descriptor.name = record.name
    unit = f" Unit: {record.unit}." if record.unit else ""
    descriptor.description = f"{record.description}{unit} {record.when}"
    descriptor.read_only = not record.live
    if record.choices:
        descriptor.additional_constraints = f"one of: {', '.join(record.choices)}"
    if record.minimum is not None and record.maximum is not None:
        if isinstance(record.default, float):
            limits = FloatingPointRange(from_value=float(record.minimum), to_value=float(record.maximum))
            descriptor.floating_point_range = [limits]
        else:
            steps = IntegerRange(from_value=int(record.minimum), to_value=int(record.maximum), step=1)
            descriptor.integer_range = [steps]
    return descriptor


def check_file(name: str, path: str, expected: str) -> None:
    """Checks that a parameter names a file that can be opened, without checking its content.

    Raises:
        SettingsError: It cannot be opened or is not a regular file; `expected` describes a valid value.
    """
    try:
        open_regular_file(user_path(path)).close()
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        reason = "where there is no file" if is_missing else f"which cannot be opened ({error.strerror or error})"
        raise SettingsError(f"parameter {name} is {quoted(path)}, {reason}; expected {expected}") from error


def declare_parameters(node: Node, arguments: Sequence[str] = ()) -> Settings:
    """Declares every parameter on `node` and returns their values. Accepts an integer for a float.

    Args:
        node: The node.
        arguments: ROS command line; warns of parameters in it that have no effect.

    Raises:
        SettingsError: A value given on the command line or in a file has a wrong type or is out of range.
    """
    values: dict[str, object] = {}
    _warn_of_unused(node, arguments)
    given = given_parameters(node)
    present = with_present_names(given, PARAMETERS.values(), node.get_logger().warning)
    for name in set(present) - set(given):
        given[name] = Parameter(name, present[name].type_, present[name].value)
    for record in PARAMETERS.values():
        if record.name in given:
            given[record.name] = _in_own_type(given[record.name])
        try:
            values[record.name] = node.declare_parameter(record.name, record.default, describe(record)).value
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise SettingsError(
                f"{str(error).removesuffix(f': {record.name}')}; expected {record.expectation}"
            ) from error
    return Settings.from_mapping(values)


def _warn_of_unused(node: Node, arguments: Sequence[str]) -> None:
    """Warns of parameters given to `node` that it does not have, and of files without a section for it.

    rclpy ignores them silently. Parameters that may be meant for other nodes (under "/**", with names unlike ours) are
    skipped.
    """
    in_files: set[str] = set()
    for path in _parameter_files(arguments):
        try:
            sections = parameter_sections(path)
        except SettingsError as error:
            # ROS accepted the file, so only our reader rejects it.
            node.get_logger().debug(str(error))
            continue
        in_files.update(name for _, values in sections for name in values)
        for text in ignored_entries(path, sections, node.get_fully_qualified_name()):
            node.get_logger().warning(text)
    given = {name: False for name in given_parameters(node) if name not in in_files}
    text = unused_names(given)
    if text:
        node.get_logger().warning(f"command line: {text}")


def _parameter_files(arguments: Sequence[str]) -> Iterator[Path]:
    """The parameter files that ROS reads: those between --ros-args and --."""
    is_ros, is_file = False, False
    for argument in arguments:
        if is_file:
            yield Path(argument)
            is_file = False
        elif argument in {"--ros-args", "--"}:
            is_ros = argument == "--ros-args"
        else:
            is_file = is_ros and argument == "--params-file"


def read_settings(node: Node) -> Settings:
    """The current parameters of `node`."""
    return Settings.from_mapping({name: node.get_parameter(name).value for name in PARAMETERS})


def settable(node: Node, changes: Iterable[Parameter]) -> list[Parameter]:
    """`changes` as rclpy accepts them: integers for floats converted, unchanged read-only parameters removed.

    rclpy checks types and read-only parameters before it calls any callback: it would refuse `ratio_threshold 1`, and
    most of the file when a node loads its own `ros2 param dump`.
    """
    return [_in_own_type(change) for change in changes if not _repeats_read_only(node, change)]


def _in_own_type(given: Parameter) -> Parameter:
    record = PARAMETERS.get(given.name)
    if record is None or not isinstance(record.default, float) or type(given.value) is not int:
        return given
    return Parameter(given.name, Parameter.Type.DOUBLE, float(given.value))


def _repeats_read_only(node: Node, change: Parameter) -> bool:
    if not node.has_parameter(change.name) or not node.describe_parameter(change.name).read_only:
        return False
    present = node.get_parameter(change.name)
    return bool(change.type_ == present.type_ and change.value == present.value)


def changed_settings(settings: Settings, changes: Iterable[Parameter]) -> Settings:
    """`settings` with the changes applied; skips parameters of others (use_sim_time).

    Raises:
        SettingsError: A new value has a wrong type or is out of range.
    """
    values: dict[str, object] = {name: getattr(settings, name) for name in PARAMETERS}
    values.update({change.name: change.value for change in changes if change.name in PARAMETERS})
    return Settings.from_mapping(values)
