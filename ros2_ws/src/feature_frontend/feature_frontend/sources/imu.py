"""Measurements of an inertial measurement unit (IMU) that belong to a sequence of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["ImuMeasurements", "ImuNoise", "gaps_between"]

# An IMU that measures at 10 Hz still has no gap.
_LONGEST_INTERVAL_NS = 100_000_000


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


def gaps_between(stamps_ns: Sequence[int], images_ns: Sequence[int]) -> list[str]:
    """One sentence on the times from the first to the last image without a measurement for over 0.1 s; else none.

    Args:
        stamps_ns: Of the measurements, ascending.
        images_ns: Of the images, ascending.
    """
    if len(images_ns) < 2:
        return []
    first_ns, last_ns = images_ns[0], images_ns[-1]
    within = [stamp_ns for stamp_ns in stamps_ns if first_ns < stamp_ns < last_ns]
    pairs = list(pairwise([first_ns, *within, last_ns]))
    gaps = [(later - earlier, earlier) for earlier, later in pairs if later - earlier > _LONGEST_INTERVAL_NS]
    if not gaps:
        return []
    longest_ns, begin_ns = max(gaps)
    if not within:
        return [
            f"no measurement between the first image, at {first_ns} ns, and the last, at {last_ns} ns: it has those of "
            f"{stamps_ns[0]} to {stamps_ns[-1]} ns; expected stamps of the images' clock"
        ]
    return [
        f"{len(gaps)} gap{'' if len(gaps) == 1 else 's'} of over 0.1 s while there are images, the longest of "
        f"{longest_ns / 1e9:g} s from {begin_ns} ns on; estimators may lose track there"
    ]
