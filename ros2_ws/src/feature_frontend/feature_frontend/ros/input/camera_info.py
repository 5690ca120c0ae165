"""A camera calibration as `sensor_msgs/CameraInfo`."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo

from feature_frontend.camera.calibration import CameraCalibration

__all__ = ["camera_info_message"]


def camera_info_message(calibration: CameraCalibration, stamp: Time, frame_id: str) -> CameraInfo:
    """The message for `calibration`; the header must match that of its image."""
    message = CameraInfo()
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.height = calibration.height
    message.width = calibration.width
    message.distortion_model = calibration.distortion_model
    message.d = list(calibration.distortion_coefficients)
    message.k = list(calibration.camera_matrix)
    message.r = list(calibration.rectification_matrix)
    message.p = list(calibration.projection_matrix)
    message.binning_x = calibration.binning_x
    message.binning_y = calibration.binning_y
    roi = calibration.region_of_interest
    message.roi.x_offset = roi.x_offset
    message.roi.y_offset = roi.y_offset
    message.roi.height = roi.height
    message.roi.width = roi.width
    message.roi.do_rectify = roi.do_rectify
    return message
