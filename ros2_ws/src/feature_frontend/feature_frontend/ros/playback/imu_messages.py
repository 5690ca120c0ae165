"""Measurements of an IMU as `sensor_msgs/Imu`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Imu

from feature_frontend.sources import ImuMeasurements

__all__ = ["ImuMessages"]


class ImuMessages:
    """Makes messages of measurements.

    The covariances are diagonal, with the variance of one measurement: the noise density squared times the rate. All
    zeros mean that the noise is unknown. There is no orientation, which the message says by a covariance of -1.
    """

    def __init__(self, imu: ImuMeasurements) -> None:
        self._imu = imu
        self._angular_velocity_covariance = np.zeros(9)
        self._linear_acceleration_covariance = np.zeros(9)
        if imu.noise is not None and len(imu.stamps_ns) > 1:
            rate_hz = 1e9 / float(np.median(np.diff(imu.stamps_ns)))
            self._angular_velocity_covariance = _diagonal(imu.noise.gyroscope_noise_density**2 * rate_hz)
            self._linear_acceleration_covariance = _diagonal(imu.noise.accelerometer_noise_density**2 * rate_hz)

    def message(self, index: int, stamp: Time) -> Imu:
        """The message of the measurement at `index`, with this stamp."""
        message = Imu()
        message.header.stamp = stamp
        message.header.frame_id = self._imu.frame_id
        message.orientation_covariance[0] = -1.0
        message.angular_velocity_covariance = self._angular_velocity_covariance
        message.linear_acceleration_covariance = self._linear_acceleration_covariance
        rate, acceleration = self._imu.angular_velocity[index], self._imu.linear_acceleration[index]
        message.angular_velocity.x, message.angular_velocity.y, message.angular_velocity.z = map(float, rate)
        message.linear_acceleration.x, message.linear_acceleration.y, message.linear_acceleration.z = map(
            float, acceleration
        )
        return message


def _diagonal(variance: float) -> npt.NDArray[np.float64]:
    return np.diag([variance] * 3).ravel()
