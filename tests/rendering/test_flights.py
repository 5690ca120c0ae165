"""Rendered flights: what the IMU measures is the motion that the poses show, and images show the scene from there."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend_lab.rendering import FLIGHTS, Flight, exact_imu, flight

GRAVITY = np.array([0, 0, -9.81])


def integrated(flown: Flight, rate_hz: int, duration_s: float) -> tuple[npt.NDArray[np.float64], ...]:
    """Position and rotation at the end of the motion, by dead reckoning from the true start on the exact IMU."""
    times = np.arange(round(duration_s * rate_hz) + 1) / rate_hz
    period = 1 / rate_hz
    turning, force = exact_imu(flown.trajectory, times)
    rotation = flown.trajectory.rotation(times[:1])[0]
    position, velocity = flown.trajectory.position(times[:1])[0], flown.trajectory.velocity(times[:1])[0]
    for number in range(len(times) - 1):
        following = rotation @ cv2.Rodrigues((turning[number] + turning[number + 1]) / 2 * period)[0]
        acceleration = (rotation @ force[number] + following @ force[number + 1]) / 2 + GRAVITY
        position = position + velocity * period + acceleration * period**2 / 2
        velocity, rotation = velocity + acceleration * period, following
    return position, rotation


@pytest.mark.parametrize("name", FLIGHTS)
def test_the_exact_imu_integrates_to_the_poses(name: str) -> None:
    flown = flight(name)
    end_s = 10.0
    expected = flown.trajectory.pose(np.array([end_s]))[0]
    position, rotation = integrated(flown, 200, end_s)
    assert np.linalg.norm(position - expected[:3, 3]) < 0.02
    assert np.linalg.norm(cv2.Rodrigues(rotation.T @ expected[:3, :3])[0]) < np.radians(0.01)
    # What is left comes from the sampling: it shrinks with the square of the period.
    finer, _ = integrated(flown, 800, end_s)
    assert np.linalg.norm(finer - expected[:3, 3]) < np.linalg.norm(position - expected[:3, 3]) / 8
