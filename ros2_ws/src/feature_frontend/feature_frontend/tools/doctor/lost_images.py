"""Images lost between the camera driver and the node, and the setting that the driver needs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from sensor_msgs.msg import CompressedImage, Image

from feature_frontend.ros.distribution import DDS_PROFILE, dds_profile_variable, named_dds_profile
from feature_frontend.ros.stamps import stamp_to_ns
from feature_frontend.runtime.input_loss import ARE_MISSING, PROFILE_ADVICE, InputLoss

__all__ = ["advice_on", "check_stamps_for_loss"]


def check_stamps_for_loss(images: Sequence[Image | CompressedImage], *, is_best_effort: bool) -> str:
    """Detects images that the doctor itself missed, by the stamps of those it received; empty text for none.

    Args:
        images: Messages in order of arrival.
        is_best_effort: Whether the subscription was best effort.
    """
    loss, now_s = InputLoss(), time.monotonic()
    for image in images:
        loss.arrived(stamp_to_ns(image.header.stamp), now_s, len(image.data))
    return loss.facts(now_s, is_best_effort=is_best_effort)[0]


def advice_on(warning: str) -> str:
    """Complete advice for a warning about missing images; empty for other texts."""
    if ARE_MISSING not in warning:
        return ""
    if PROFILE_ADVICE not in warning:
        return "docs/large_messages.md says how images are lost, and what to set"
    variable, profile = dds_profile_variable(), _profile()
    return (
        f'in the launch file of the camera\'s driver, before its node: SetEnvironmentVariable("{variable}", '
        f'"{profile}"); or in the shell that starts it: export {variable}={profile}'
    )


def _profile() -> str:
    """The DDS profile that this process uses, which also suits the node, else the package's."""
    named = named_dds_profile()
    if named:
        return os.path.abspath(named)
    try:
        return f"{get_package_share_directory('feature_frontend')}/config/{DDS_PROFILE}"
    except PackageNotFoundError:
        return f"$(ros2 pkg prefix --share feature_frontend)/config/{DDS_PROFILE}"
