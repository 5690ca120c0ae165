"""The argument parser of all tools, and common argument types and exit status.

argparse turns errors of the types into usage messages.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from feature_frontend.errors import SettingsError
from feature_frontend.settings import PARAMETERS
from feature_frontend.settings.parameter import ParameterRecord
from feature_frontend.system.files import readable_name
from feature_frontend.system.text import printable, quoted, short_text

__all__ = [
    "INCOMPLETE",
    "Parser",
    "above_zero",
    "add_parameters",
    "finite",
    "keypoints",
    "natural",
    "non_negative",
    "parameter_reader",
    "positive",
    "text",
    "topic",
    "without_ros_arguments",
]

INCOMPLETE = 3
"""Exit status if all intact data was read but something is lost; 2 is argparse's for wrong usage."""

# More images, keypoints or steps than anyone needs; accepted by every library.
_MOST = 2**31 - 1
_MOST_KEYPOINTS = 1_000_000
_LEAST_SIZE, _MOST_SIZE = 1e-9, 1e9
_TOPIC_TOKEN = r"[A-Za-z_][A-Za-z0-9_]*"
_TOPIC = re.compile(rf"(~/|/)?{_TOPIC_TOKEN}(/{_TOPIC_TOKEN})*")
_MOST_TOPIC_CHARACTERS = 200


class Parser(argparse.ArgumentParser):
    """Reports wrong usage in two short lines; the usage of `process` alone would take sixty."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with status 2."""
        self.exit(2, f"{self.prog}: error: {short_text(message)}\nsee: feature_frontend {self.prog} --help\n")


def without_ros_arguments(arguments: Sequence[str]) -> list[str]:
    """Removes ROS arguments, from "--ros-args" to "--"; `ros2 run` may add them.

    rclpy's own function fails for file names that are not UTF-8.
    """
    rest = list(arguments)
    while "--ros-args" in rest:
        start = rest.index("--ros-args")
        end = rest.index("--", start) + 1 if "--" in rest[start:] else len(rest)
        rest[start:end] = []
    return rest


def parameter_reader(record: ParameterRecord) -> Callable[[str], object]:
    """The argument type of a parameter of the front-end."""

    def read(text: str) -> object:
        try:
            return record.read(text)
        except SettingsError as error:
            raise argparse.ArgumentTypeError(f"{quoted(text)}; expected {record.expectation}") from error

    return read


def add_parameters(parser: argparse.ArgumentParser, names: Iterable[str], prefix: str = "") -> None:
    """Adds an option for each of these parameters of the front-end, with its default; `prefix` begins its help."""
    for name in names:
        record = PARAMETERS[name]
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=parameter_reader(record),
            default=record.default,
            metavar="VALUE",
            help=f"{prefix}{record.description} (default {record.default!r})".replace("%", "%%"),
        )


def positive(text: str) -> int:
    """An integer >= 1."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """An integer >= 0."""
    return _whole(text, 0)


def keypoints(text: str) -> int:
    """A keypoint budget; limited, because OpenCV allocates memory for all of them."""
    return _whole(text, 1, _MOST_KEYPOINTS)


def finite(text: str) -> float:
    """A finite number."""
    return _number(text, "a finite number", lambda value: True)


def non_negative(text: str) -> float:
    """A finite number >= 0."""
    return _number(text, "a number from 0 up", lambda value: value >= 0)


def above_zero(text: str) -> float:
    """A finite number > 0."""
    return _number(text, "a number above 0", lambda value: value > 0)


def text(words: str) -> str:
    """Text for messages: UTF-8, printable, and not empty (the same as not given)."""
    if not words or readable_name(words) != words or printable(words) != words:
        raise argparse.ArgumentTypeError(
            f"{quoted(words)} is no text that messages can hold; expected UTF-8, not empty"
        )
    return words


def topic(name: str) -> str:
    """The name of a ROS topic."""
    if not _TOPIC.fullmatch(name) or len(name) > _MOST_TOPIC_CHARACTERS:
        raise argparse.ArgumentTypeError(
            f"{quoted(name)} is no name of a topic; expected one such as image or /camera/image_raw"
        )
    return name


def _number(text: str, expected: str, admits: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # Beyond these limits, seconds or Hz cannot be converted to nanoseconds.
    if not (value == 0 or _LEAST_SIZE <= abs(value) <= _MOST_SIZE) or not admits(value):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not {expected}, {_LEAST_SIZE:g} to {_MOST_SIZE:g} in size")
    return value


def _whole(text: str, minimum: int, maximum: int = _MOST) -> int:
    try:
        value = int(text)
    except ValueError:
        value = minimum - 1
    if not minimum <= value <= maximum:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a whole number from {minimum} up to {maximum}")
    return value
