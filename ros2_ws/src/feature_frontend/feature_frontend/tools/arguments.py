"""Types of command-line arguments that several tools take, and their exit status where a source is incomplete.

argparse turns the errors of the types into usage messages.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from feature_frontend.runtime.files import readable_name

__all__ = ["INCOMPLETE", "above_zero", "natural", "non_negative", "positive", "text", "without_ros_arguments"]

INCOMPLETE = 3
"""Exit status where all that is whole was read, but something is known to be lost; 2 is argparse's for wrong usage."""


def without_ros_arguments(arguments: Sequence[str]) -> list[str]:
    """Arguments without ROS's own, which begin with "--ros-args" and end at a "--"; `ros2 run` may add them.

    rclpy's own function takes no name of a file that is no UTF-8.
    """
    rest = list(arguments)
    while "--ros-args" in rest:
        start = rest.index("--ros-args")
        end = rest.index("--", start) + 1 if "--" in rest[start:] else len(rest)
        rest[start:end] = []
    return rest


def positive(text: str) -> int:
    """A whole number from 1 up."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """A whole number from 0 up."""
    return _whole(text, 0)


def non_negative(text: str) -> float:
    """A finite number from 0 up."""
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        msg = f"{text} is not a number from 0 up"
        raise argparse.ArgumentTypeError(msg)
    return value


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        msg = f"{text} is not a number above 0"
        raise argparse.ArgumentTypeError(msg)
    return value


def text(words: str) -> str:
    """What goes into messages: UTF-8."""
    if readable_name(words) != words:
        msg = f"{words} is no UTF-8; expected a text that messages can hold"
        raise argparse.ArgumentTypeError(msg)
    return words


def _whole(text: str, minimum: int) -> int:
    value = int(text)
    if value < minimum:
        msg = f"{text} is not a whole number from {minimum} up"
        raise argparse.ArgumentTypeError(msg)
    return value
