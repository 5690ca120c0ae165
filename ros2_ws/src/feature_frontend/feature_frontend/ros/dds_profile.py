"""The FastDDS profile of large images: its name, and the variable by which each distribution's FastDDS finds it."""

from __future__ import annotations

import os

__all__ = ["DDS_PROFILE", "DDS_PROFILE_VARIABLES", "profile_variable"]

DDS_PROFILE = "fastdds_shared_memory.xml"
# FastDDS 2 (Humble, Jazzy) reads the first, FastDDS 3 (Kilted and later) the second and warns of the first.
DDS_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_FAST_DDS_2_DISTRIBUTIONS = ("humble", "iron", "jazzy")


def profile_variable() -> str:
    """The variable that FastDDS of the distribution in the environment reads; Jazzy's where none is named."""
    fast_dds_2 = os.environ.get("ROS_DISTRO", "jazzy") in _FAST_DDS_2_DISTRIBUTIONS
    return DDS_PROFILE_VARIABLES[0 if fast_dds_2 else 1]
