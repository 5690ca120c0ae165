"""A simulated IMU: what an ADIS16448, the sensor of EuRoC's drone, measures along a trajectory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_frontend.sources.imu import ImuMeasurements, ImuNoise
from feature_frontend_lab.rendering.camera import FloatArray
from feature_frontend_lab.rendering.trajectory import SplineTrajectory

__all__ = ["ADIS16448", "GRAVITY_M_S2", "SimulatedImu", "exact_imu", "simulate_imu"]

GRAVITY_M_S2 = 9.81
# EuRoC's sensor.yaml.
ADIS16448 = ImuNoise(
    gyroscope_noise_density=1.6968e-4,
    gyroscope_random_walk=1.9393e-5,
    accelerometer_noise_density=2.0e-3,
    accelerometer_random_walk=3.0e-3,
)
# Standard deviation of the bias at the start, about as in EuRoC's recordings.
_START_BIAS_GYROSCOPE = 0.03
_START_BIAS_ACCELEROMETER = 0.08


@dataclass(frozen=True, eq=False)
class SimulatedImu:
    """Measurements and what is wrong with them.

    Attributes:
        measurements: Truth plus bias plus white noise. Each is the value at its stamp, not a mean since the last one.
        gyroscope_biases: (M, 3) true bias at each stamp, rad/s.
        accelerometer_biases: (M, 3) true bias at each stamp, m/s^2.
    """

    measurements: ImuMeasurements
    gyroscope_biases: FloatArray
    accelerometer_biases: FloatArray


def exact_imu(trajectory: SplineTrajectory, times_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The angular velocity (N, 3), rad/s, and the specific force (N, 3), m/s^2, both in the body frame."""
    to_body = np.swapaxes(trajectory.rotation(times_s), 1, 2)
    force = trajectory.acceleration(times_s) + np.array([0, 0, GRAVITY_M_S2])
    return trajectory.angular_velocity(times_s), np.einsum("nij,nj->ni", to_body, force)


def simulate_imu(
    trajectory: SplineTrajectory,
    times_s: FloatArray,
    stamps_ns: npt.NDArray[np.int64],
    body_from_camera: FloatArray,
    rng: np.random.Generator,
    noise: ImuNoise = ADIS16448,
) -> SimulatedImu:
    """Measurements at the equally spaced `times_s` (M,) of the trajectory, with the stamps `stamps_ns` (M,)."""
    period_s = float(times_s[1] - times_s[0])
    starts = rng.standard_normal((2, 3))
    # Drawn at once: a longer recording begins alike.
    draws = rng.standard_normal((len(times_s), 4, 3))
    measured, biases = [], []
    for number, (exact, spread, walk, density) in enumerate(
        zip(
            exact_imu(trajectory, times_s),
            (_START_BIAS_GYROSCOPE, _START_BIAS_ACCELEROMETER),
            (noise.gyroscope_random_walk, noise.accelerometer_random_walk),
            (noise.gyroscope_noise_density, noise.accelerometer_noise_density),
            strict=True,
        )
    ):
        bias = spread * starts[number] + walk * np.sqrt(period_s) * np.cumsum(draws[:, 2 * number], axis=0)
        biases.append(bias)
        measured.append(exact + bias + density / np.sqrt(period_s) * draws[:, 2 * number + 1])
    measurements = ImuMeasurements(stamps_ns, measured[0], measured[1], body_from_camera, noise)
    return SimulatedImu(measurements, biases[0], biases[1])
