"""The parameters of `settings.py` as ROS 2 parameters."""

from __future__ import annotations

from collections.abc import Iterable

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from feature_frontend.errors import SettingsError
from feature_frontend.mask_file import read_mask_file
from feature_frontend.parameter_record import ParameterRecord
from feature_frontend.settings import PARAMETERS, Settings

__all__ = ["changed_settings", "declare_parameters", "describe", "read_settings"]


def describe(record: ParameterRecord) -> ParameterDescriptor:
    """What `ros2 param describe` shows of a parameter, when a change acts included. Not live means read-only."""
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


def declare_parameters(node: Node) -> Settings:
    """Declares every parameter on `node` and returns their values.

    Raises:
        SettingsError: A value given on the command line or in a file has a wrong type or is out of range, or the file
            of `mask_path` cannot be read.
    """
    values: dict[str, object] = {}
    for record in PARAMETERS.values():
        try:
            values[record.name] = node.declare_parameter(record.name, record.default, describe(record)).value
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            msg = f"{str(error).rstrip(record.name).rstrip(': ')}; expected {record.expectation}"
            raise SettingsError(msg) from error
    return _with_readable_mask(Settings.from_mapping(values), "")


def read_settings(node: Node) -> Settings:
    """What the parameters of `node` say now."""
    return Settings.from_mapping({name: node.get_parameter(name).value for name in PARAMETERS})


def changed_settings(settings: Settings, changes: Iterable[Parameter]) -> Settings:
    """`settings` with the changes that concern them; parameters of others (use_sim_time) are passed over.

    Raises:
        SettingsError: A new value has a wrong type or is out of range, or the file of `mask_path` cannot be read.
    """
    values: dict[str, object] = {name: getattr(settings, name) for name in PARAMETERS}
    values.update({change.name: change.value for change in changes if change.name in PARAMETERS})
    return _with_readable_mask(Settings.from_mapping(values), settings.mask_path)


def _with_readable_mask(settings: Settings, earlier_path: str) -> Settings:
    """`settings`, once a new mask has been seen to be readable: what fails here is refused before a frame needs it."""
    if settings.mask_path not in {"", earlier_path}:
        read_mask_file(settings.mask_path)
    return settings
