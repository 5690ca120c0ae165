"""Whether ROS 2 can be started with the arguments of a command line, and why not, in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rclpy.utilities import remove_ros_args

from feature_frontend.errors import SettingsError
from feature_frontend.runtime.files import readable_name
from feature_frontend.runtime.text import short_text

__all__ = ["check_ros_arguments", "readable_ros_errors"]

# Where in rcl's sources; what follows "Error: " is empty without it now and then.
_POSITION = re.compile(r"(\. Error: error not set)?, at /\S+:\d+")


def check_ros_arguments(arguments: Sequence[str]) -> None:
    """Accepts what stands behind `--ros-args` before anything is begun; rcl itself would print besides.

    Raises:
        SettingsError: rcl cannot read it.
    """
    with readable_ros_errors():
        # What it returns is of no use: it takes no name of a file that is no UTF-8.
        remove_ros_args(["", *map(readable_name, arguments)])


@contextmanager
def readable_ros_errors() -> Iterator[None]:
    """For the start of rclpy, whose errors come from its C extension and share no base class.

    Raises:
        SettingsError: Anything was raised inside.
    """
    try:
        yield
    except SettingsError:
        raise
    except Exception as error:
        msg = f"cannot start ROS 2: {_POSITION.sub('', short_text(error))}"
        raise SettingsError(msg) from error
