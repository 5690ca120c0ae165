"""Measurements of an inertial measurement unit (IMU) that belong to a sequence of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ImuMeasurements", "ImuNoise"]


@dataclass(frozen=True)
class ImuNoise:
    """Noise of an IMU, as continuous-time densities (EuRoC's `sensor.yaml`, Kalibr's `imu.yaml`).

    Attributes:
        gyroscope_noise_density: White noise of the angular velocity, rad/s/sqrt(Hz).
        gyroscope_random_walk: Random walk of the gyroscope's bias, rad/s^2/sqrt(Hz).
        accelerometer_noise_density: White noise of the acceleration, m/s^2/sqrt(Hz).
        accelerometer_random_walk: Random walk of the accelerometer's bias, m/s^3/sqrt(Hz).
    """

    gyroscope_noise_density: float
    gyroscope_random_walk: float
    accelerometer_noise_density: float
    accelerometer_random_walk: float


@dataclass(frozen=True, eq=False)
class ImuMeasurements:
    """All measurements of an IMU, in its own frame, the body frame.

    Attributes:
        stamps_ns: (M,) int64 stamps in ns, ascending, on the clock of the images.
        angular_velocity: (M, 3) float64 in rad/s.
        linear_acceleration: (M, 3) float64 specific force in m/s^2: +9.81 upwards at rest.
        body_from_camera: (4, 4) float64 pose of the camera's optical frame in the body frame.
        noise: Noise densities; None if unknown.
        frame_id: Coordinate frame of the IMU in ROS messages.
    """

    stamps_ns: npt.NDArray[np.int64]
    angular_velocity: npt.NDArray[np.float64]
    linear_acceleration: npt.NDArray[np.float64]
    body_from_camera: npt.NDArray[np.float64]
    noise: ImuNoise | None = None
    frame_id: str = "imu"
