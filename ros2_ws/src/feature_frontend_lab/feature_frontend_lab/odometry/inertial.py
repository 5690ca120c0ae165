"""Measurements of an IMU between images, preintegrated by GTSAM.

World frames have z up. The body frame is the IMU's.
"""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import numpy.typing as npt

from feature_frontend.sources.imu import ImuNoise
from feature_frontend_lab.odometry.library import gtsam

__all__ = ["DEFAULT_NOISE", "GRAVITY", "ImuBuffer", "Preintegrator"]

FloatArray = npt.NDArray[np.float64]

GRAVITY = 9.81
"""Acceleration of gravity, m/s^2."""

DEFAULT_NOISE = ImuNoise(1e-3, 5e-5, 1e-2, 3e-3)
"""Of a small MEMS IMU whose noise nobody has measured."""

# An IMU that is silent for longer leaves the motion unknown.
_LONGEST_HOLE_NS = 100_000_000
_NS_PER_S = 1e9
# What no IMU measures, rad/s and m/s^2: a driver's fault, or memory that was never written.
_MOST_MEASURED = np.repeat([1e3, 1e4], 3)
# Of the integration itself, per second: GTSAM's examples.
_INTEGRATION_VARIANCE = 1e-8


class ImuBuffer:
    """The latest measurements, in the order of their stamps."""

    def __init__(self) -> None:
        self._stamps_ns = np.zeros(0, np.int64)
        self._values = np.zeros((0, 6))
        self.refused = 0
        """Measurements left out: not finite, beyond what any IMU measures, or not later than the one before."""

    @property
    def end_ns(self) -> int | None:
        """Stamp of the latest measurement; None if there is none."""
        return int(self._stamps_ns[-1]) if len(self._stamps_ns) else None

    def add(
        self, stamps_ns: npt.NDArray[np.int64], angular_velocity: FloatArray, linear_acceleration: FloatArray
    ) -> None:
        """Appends measurements: stamps (M,) in ns, (M, 3) in rad/s, (M, 3) specific force in m/s^2."""
        stamps_ns = np.asarray(stamps_ns, np.int64).reshape(-1)
        values = np.hstack([np.reshape(angular_velocity, (-1, 3)), np.reshape(linear_acceleration, (-1, 3))])
        latest = np.iinfo(np.int64).min if self.end_ns is None else self.end_ns
        highest = np.maximum.accumulate(np.concatenate([[latest], stamps_ns]))[:-1]
        is_good = (np.abs(values) <= _MOST_MEASURED).all(axis=1) & (stamps_ns > highest)
        self.refused += int(np.count_nonzero(~is_good))
        self._stamps_ns = np.concatenate([self._stamps_ns, stamps_ns[is_good]])
        self._values = np.concatenate([self._values, values[is_good].astype(np.float64)])

    def forget_before(self, stamp_ns: int) -> None:
        """Drops what is not needed for times from `stamp_ns` on."""
        first = max(int(np.searchsorted(self._stamps_ns, stamp_ns, side="right")) - 1, 0)
        self._stamps_ns, self._values = self._stamps_ns[first:], self._values[first:]

    def clear(self) -> None:
        """Drops all measurements."""
        self._stamps_ns, self._values = self._stamps_ns[:0], self._values[:0]

    def covers(self, begin_ns: int, end_ns: int) -> bool:
        """Whether the time between is measured without a hole of more than 0.1 s."""
        first, last = self._range(begin_ns, end_ns)
        if first < 0 or last >= len(self._stamps_ns):
            return False
        return bool((np.diff(self._stamps_ns[first : last + 1]) <= _LONGEST_HOLE_NS).all())

    def between(self, begin_ns: int, end_ns: int) -> tuple[FloatArray, FloatArray]:
        """Durations (M,) in s and mean values (M, 6) of the pieces from `begin_ns` to `end_ns`, which it `covers`."""
        first, last = self._range(begin_ns, end_ns)
        times = (self._stamps_ns[first : last + 1] - begin_ns) / _NS_PER_S
        inside = times[1:-1]
        ends = np.concatenate([[0.0], inside, [(end_ns - begin_ns) / _NS_PER_S]])
        values = np.column_stack([np.interp(ends, times, column) for column in self._values[first : last + 1].T])
        return np.diff(ends), (values[:-1] + values[1:]) / 2

    def samples(self, begin_ns: int, end_ns: int) -> FloatArray:
        """(M, 6) measurements with stamps from `begin_ns` to `end_ns`: rad/s, then m/s^2."""
        first, last = np.searchsorted(self._stamps_ns, [begin_ns, end_ns + 1])
        return self._values[first:last]

    def _range(self, begin_ns: int, end_ns: int) -> tuple[int, int]:
        """The measurement at or before the begin, and the one at or after the end; outside the array if missing."""
        first = int(np.searchsorted(self._stamps_ns, begin_ns, side="right")) - 1
        return first, int(np.searchsorted(self._stamps_ns, end_ns, side="left"))


class Preintegrator:
    """Makes GTSAM's preintegrated measurements.

    Args:
        noise: Noise densities of the IMU; None, or one that is not above 0, for those of a small MEMS one: without any
            noise, nothing can be weighed.
    """

    def __init__(self, noise: ImuNoise | None) -> None:
        given, default = astuple(noise or DEFAULT_NOISE), astuple(DEFAULT_NOISE)
        noise = ImuNoise(*(own if own > 0 else usual for own, usual in zip(given, default, strict=True)))
        self._params = gtsam.PreintegrationCombinedParams.MakeSharedU(GRAVITY)
        self._params.setGyroscopeCovariance(noise.gyroscope_noise_density**2 * np.eye(3))
        self._params.setAccelerometerCovariance(noise.accelerometer_noise_density**2 * np.eye(3))
        self._params.setBiasOmegaCovariance(noise.gyroscope_random_walk**2 * np.eye(3))
        self._params.setBiasAccCovariance(noise.accelerometer_random_walk**2 * np.eye(3))
        self._params.setIntegrationCovariance(_INTEGRATION_VARIANCE * np.eye(3))

    def preintegrate(
        self, imu: ImuBuffer, begin_ns: int, end_ns: int, bias: gtsam.imuBias.ConstantBias
    ) -> gtsam.PreintegratedCombinedMeasurements:
        """The motion of the body between two times that the buffer covers, linearized at `bias`."""
        measurements = gtsam.PreintegratedCombinedMeasurements(self._params, bias)
        durations_s, values = imu.between(begin_ns, end_ns)
        for duration_s, value in zip(durations_s.tolist(), values, strict=True):
            if duration_s > 0:
                measurements.integrateMeasurement(value[3:], value[:3], duration_s)
        return measurements
