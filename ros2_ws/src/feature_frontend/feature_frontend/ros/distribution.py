"""Differences between ROS 2 distributions. Imports nothing of ROS: launch files and tools use it too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["DDS_PROFILE", "apt_package", "dds_profile", "dds_profile_variable", "localhost_only", "named_dds_profile"]

DDS_PROFILE = "fastdds_shared_memory.xml"

# Assumed if ROS_DISTRO is not set, as in a virtual environment of wheels without env.sh.
_USUAL = "jazzy"
# Fast DDS 2 reads only the first. Fast DDS 3 reads the second; its rmw_fastrtps accepts the first too, with a warning.
_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_HAVE_FAST_DDS_2 = ("humble", "iron", "jazzy")


def _distribution(environment: Mapping[str, str]) -> str:
    return environment.get("ROS_DISTRO") or _USUAL


def dds_profile_variable(environment: Mapping[str, str] = os.environ) -> str:
    """The environment variable that names the profile for this distribution's Fast DDS."""
    return _PROFILE_VARIABLES[0 if _distribution(environment) in _HAVE_FAST_DDS_2 else 1]


def named_dds_profile(environment: Mapping[str, str] = os.environ) -> str:
    """The profile that Fast DDS will read; empty if none is named, or only by a variable that it does not read."""
    own = environment.get(dds_profile_variable(environment), "")
    return own or environment.get(_PROFILE_VARIABLES[0], "")


def dds_profile(profile: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variable that makes Fast DDS read `profile`; empty if the user has named another profile."""
    return {} if named_dds_profile(environment) else {dds_profile_variable(environment): str(profile)}


def localhost_only(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variable that restricts communication to this machine."""
    if _distribution(environment) == "humble":
        return {"ROS_LOCALHOST_ONLY": "1"}
    return {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def apt_package(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """The apt name of the ROS package `name`, such as ros-jazzy-message-filters."""
    return f"ros-{environment.get('ROS_DISTRO') or '$ROS_DISTRO'}-{name.replace('_', '-')}"
