"""`sensor_msgs/CameraInfo` as a calibration."""

from __future__ import annotations

from sensor_msgs.msg import CameraInfo

from feature_frontend.calibration_file import CameraCalibration, RegionOfInterest

__all__ = ["calibration_from_message"]


def calibration_from_message(message: CameraInfo) -> CameraCalibration:
    """The calibration that `message` carries.

    Raises:
        CalibrationError: A size, matrix, model or number of coefficients is not possible; an uncalibrated camera
            (K all zero) among them.
    """
    roi = message.roi
    return CameraCalibration(
        height=int(message.height),
        width=int(message.width),
        camera_name="",
        distortion_model=message.distortion_model,
        camera_matrix=tuple(map(float, message.k)),
        distortion_coefficients=tuple(map(float, message.d)),
        rectification_matrix=tuple(map(float, message.r)),
        projection_matrix=tuple(map(float, message.p)),
        binning_x=int(message.binning_x),
        binning_y=int(message.binning_y),
        region_of_interest=RegionOfInterest(
            x_offset=int(roi.x_offset),
            y_offset=int(roi.y_offset),
            height=int(roi.height),
            width=int(roi.width),
            do_rectify=bool(roi.do_rectify),
        ),
    )
