"""One-line explanations of why ROS 2 cannot start, and what to do; rclpy's errors name places in its sources."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from feature_frontend.errors import SettingsError
from feature_frontend.system.files import readable_name
from feature_frontend.system.text import short_text

__all__ = ["check_domain", "check_ros_arguments", "readable_start"]

_HIGHEST_DOMAIN = 232
# The place in rcl's sources; the text before it is sometimes empty.
_PLACE = re.compile(r"(\. Error: error not set)?,? at /\S+:\d+")
_WITHOUT_SECURITY = "doesn't have the security libraries"


@contextmanager
def readable_start() -> Iterator[None]:
    """Context for `rclpy.init` and the creation of a node.

    Raises:
        SettingsError: The environment, the arguments or the machine prevent ROS 2 from starting.
    """
    from feature_frontend.ros.rclpy_private import start_errors

    check_domain()
    try:
        with warnings.catch_warnings():
            # rclpy's further warnings about its cleanup; the error itself is enough.
            warnings.filterwarnings("ignore", message="Failed to fini")
            yield
    except start_errors() as error:
        raise SettingsError(f"cannot start ROS 2: {_reason(error)}{_advice(error)}") from error


def check_ros_arguments(arguments: Sequence[str]) -> None:
    """Checks the arguments after `--ros-args` in advance; rcl itself would also print.

    Raises:
        SettingsError: rcl cannot parse them.
    """
    from rclpy.utilities import remove_ros_args

    with readable_start():
        # The result is not used: it cannot represent file names that are not UTF-8.
        remove_ros_args(["", *map(readable_name, arguments)])


def check_domain() -> None:
    """Checks the environment's ROS domain; FastDDS ends the process if it has no ports for it.

    Raises:
        SettingsError: It is out of range.
    """
    text = os.environ.get("ROS_DOMAIN_ID", "")
    if text.strip().isdecimal() and int(text) > _HIGHEST_DOMAIN:
        raise SettingsError(
            f"cannot start ROS 2: ROS_DOMAIN_ID is {short_text(text):.40}; expected 0 to {_HIGHEST_DOMAIN}"
        )


def _reason(error: Exception) -> str:
    return " ".join(short_text(_PLACE.sub("", str(error))).splitlines())


def _advice(error: Exception) -> str:
    if os.environ.get("ROS_SECURITY_ENABLE", "").lower() != "true":
        return ""
    if _WITHOUT_SECURITY in str(error):
        return (
            "; the Fast DDS of PyPI's wheels is one without SROS 2: use ROS 2 from apt, or unset ROS_SECURITY_ENABLE "
            "(docs/security.md)"
        )
    keystore = os.environ.get("ROS_SECURITY_KEYSTORE", "")
    if not keystore:
        return "; ROS_SECURITY_ENABLE is true, but ROS_SECURITY_KEYSTORE names no keystore (docs/security.md)"
    return (
        f"; ROS_SECURITY_ENABLE is true: make the enclave that --enclave names in the keystore {short_text(keystore)} "
        "(docs/security.md)"
    )
