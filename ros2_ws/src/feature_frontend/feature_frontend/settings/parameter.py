"""`ParameterRecord` describes one parameter, `SettingsGroup` holds several; the other files here declare them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from feature_frontend.errors import SettingsError
from feature_frontend.system.text import listed, printable, shown

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ParameterRecord", "SettingsGroup", "parameter", "with_present_names"]

Value = bool | int | float | str
T = TypeVar("T", bool, int, float, str)
V = TypeVar("V")
_logger = logging.getLogger(__name__)
_BOOLS = {"true": True, "false": False}


@dataclass(frozen=True)
class ParameterRecord:
    """The declaration of one parameter.

    Attributes:
        name: Its name, in ROS, in YAML and in Python.
        default: Its default value; the type of the default is the parameter's type.
        description: What it does, in one or two sentences.
        unit: Its unit; empty for a dimensionless number or a string.
        minimum: Minimum value; None without a bound.
        maximum: Maximum value; None without a bound.
        choices: The allowed strings; empty if any string is allowed.
        unlisted: Strings that are also allowed, but that no list shows.
        live: Whether it can change while the node runs, from the next frame on.
        reloads: Whether a change reloads the model, in the background.
        formerly: Its name in earlier versions, which still works with a warning; empty if it had none.
    """

    name: str
    default: Value
    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    live: bool = False
    reloads: bool = False
    formerly: str = ""

    @property
    def when(self) -> str:
        """When a change takes effect, as a sentence."""
        if not self.live:
            return "Read at start-up only."
        if self.reloads:
            return "Live: the model is loaded in the background and swapped in between two frames."
        return "Live: acts from the next frame on."

    @property
    def expectation(self) -> str:
        """The valid values, for an error message: "a float from 0 to 1, such as 0.5"."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        bounds = "" if self.minimum is None or self.maximum is None else f" from {self.minimum} to {self.maximum}"
        return f"a value of type {type(self.default).__name__}{bounds}, such as {self.default!r}"

    def check(self, value: object) -> Value:
        """Returns `value` converted to the parameter's type.

        Raises:
            SettingsError: It has the wrong type, is not finite, is out of bounds, or is not one of the choices.
        """
        wanted = type(self.default)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted or not self._admits(value):
            is_text = wanted is str and type(value) is str and not self.choices
            expectation = "text without zero bytes" if is_text else self.expectation
            raise SettingsError(f"parameter {self.name} is {shown(value)}; expected {expectation}")
        assert isinstance(value, (bool, int, float, str))
        return value

    def read(self, text: str) -> Value:
        """Parses the value of a command-line option or launch argument.

        Raises:
            SettingsError: It cannot be parsed as the parameter's type, is out of bounds or not one of the choices.
        """
        kind = type(self.default)
        try:
            value = _BOOLS[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError) as error:
            raise SettingsError(f"parameter {self.name} is {shown(text)}; expected {self.expectation}") from error
        return self.check(value)

    def _admits(self, value: object) -> bool:
        if self.choices:
            return value in self.choices or value in self.unlisted
        if isinstance(value, str):
            # Neither a path nor a ROS parameter can contain a zero byte.
            return "\0" not in value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return True
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        return low <= value <= high


def parameter(
    default: T,
    description: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    unlisted: tuple[str, ...] = (),
    live: bool = False,
    reloads: bool = False,
    formerly: str = "",
) -> T:
    """Declares a parameter as the field of a settings class."""
    metadata = {
        "description": description,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "unlisted": unlisted,
        "live": live or reloads,
        "reloads": reloads,
        "formerly": formerly,
    }
    value: T = field(default=default, metadata=metadata)
    return value


def with_present_names(
    values: Mapping[str, V], records: Iterable[ParameterRecord], warn: Callable[[str], object]
) -> dict[str, V]:
    """`values` with former names of parameters replaced by the present ones, and a warning for each.

    If both names are given, the value of the present one counts.
    """
    found = dict(values)
    for record in records:
        if record.formerly and record.formerly in found:
            warn(f"parameter {record.formerly} is now called {record.name}; the old name will go in a later version")
            former = found.pop(record.formerly)
            found.setdefault(record.name, former)
    return found


class SettingsGroup:
    """Base class of the settings: the constructor checks every value.

    Raises:
        SettingsError: A value has the wrong type or is out of range; the text names the first five such values.
    """

    def __post_init__(self) -> None:
        """Checks every field against its record."""
        problems = []
        for name, record in self.records().items():
            try:
                object.__setattr__(self, name, record.check(getattr(self, name)))
            except SettingsError as error:
                problems.append(str(error))
        if problems:
            raise SettingsError(listed(problems, "; "))

    @classmethod
    def records(cls) -> dict[str, ParameterRecord]:
        """The group's parameters by name, in the order of declaration."""
        own: Any = cls
        return {f.name: ParameterRecord(name=f.name, default=getattr(cls, f.name), **f.metadata) for f in fields(own)}

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Self:
        """Creates settings from names and values; parameters that are not named keep their defaults.

        Raises:
            SettingsError: A name is unknown, or a value has the wrong type or is out of range.
        """
        names = cls.records()
        values = with_present_names(values, names.values(), _logger.warning)
        unknown = sorted(set(values) - set(names))
        if unknown:
            names_shown = listed(printable(name, 60) for name in unknown)
            raise SettingsError(f"unknown parameter(s) {names_shown}; expected some of {', '.join(names)}")
        arguments: dict[str, Any] = dict(values)
        return cls(**arguments)
