"""Checks of two cameras for `camera_type: stereo`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.errors import CalibrationError, SettingsError
from feature_frontend.ros.input.stereo_subscription import import_message_filters
from feature_frontend.stereo.rig import StereoRig
from feature_frontend.tools.doctor.finding import Finding, fail, ok, warn

__all__ = ["check_message_filters", "check_rig", "check_stamps"]

_NS_PER_MS = 1e6
_MAX_UNPAIRED_FRACTION = 0.1


def check_message_filters() -> Finding:
    """Checks that message_filters, which synchronises two cameras, is installed."""
    try:
        import_message_filters()
    except SettingsError as error:
        text, _, advice = str(error).rpartition(": ")
        return fail("stereo", text, advice)
    return ok("stereo", "message_filters is there")


def check_stamps(left_ns: Sequence[int], right_ns: Sequence[int], slop_ms: float) -> Finding:
    """Checks that the images of both sides can be paired.

    Args:
        left_ns: Stamps of left images received in some period.
        right_ns: Stamps of right images received in the same period.
        slop_ms: The parameter `stereo_slop_ms`.
    """
    nearest_ms = [min(abs(left - right) for right in right_ns) / _NS_PER_MS for left in left_ns]
    paired = [difference for difference in nearest_ms if difference < slop_ms]
    if not paired:
        text = f"no pair: the nearest stamps are {min(nearest_ms):.3f} ms apart, and stereo_slop_ms is {slop_ms:g}"
        advice = "trigger the cameras together and set their clocks alike; else raise stereo_slop_ms"
        return fail("stereo", text, advice)
    text = f"{len(paired)} of {len(left_ns)} left images have a right one, stamps {max(paired):.3f} ms apart at most"
    # The partners of the first and last images may be outside the period.
    if len(left_ns) - len(paired) > 2 + _MAX_UNPAIRED_FRACTION * len(left_ns):
        usual = f"half of them are {statistics.median(nearest_ms):.3f} ms or more from the next"
        return warn("stereo", f"{text}; {usual}", "the others are dropped: are both cameras' rates the same?")
    return ok("stereo", text)


def check_rig(calibrations: Sequence[CameraCalibration | None], *, rectified: bool) -> Finding:
    """Checks that left and right calibrations allow triangulation; None for a missing or invalid one."""
    left, right = calibrations
    try:
        if left is None or right is None:
            raise CalibrationError("both camera_info are needed")
        rig = StereoRig(left, right, rectified=rectified)
    except CalibrationError as error:
        if rectified:
            return warn("stereo", f"no points: {error}", "not needed for stereo_matches of rectified images")
        advice = "calibrate the two as one stereo camera; rows are searched without, if rectified says they correspond"
        return fail("stereo", f"neither stereo_matches nor points: {error}", advice)
    return ok("stereo", f"points by a baseline of {rig.baseline_m:.4g} m")
