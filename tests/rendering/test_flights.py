"""Rendered flights: what the IMU measures is the motion that the poses show, and the options do what they say."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend_lab.rendering import (
    ADIS16448,
    FLIGHTS,
    Flight,
    GreyScene,
    Quad,
    Scene,
    Texture,
    exact_imu,
    flight,
    textures,
)
from feature_frontend_lab.rendering.sensor import ImageSensor, motion_blurred

GRAVITY = np.array([0, 0, -9.81])
MOTIONS = ("hall", "fast_rotation", "street", "drive", "corridor")


def with_small_scene(flown: Flight) -> Flight:
    """The flight above nothing but a textured ground."""
    noise = 128 + 45 * textures.noise_octaves(np.random.default_rng(0), 512, 512, 64, 6)
    texture = Texture.from_image(np.clip(noise, 0, 255).astype(np.uint8))
    ground = Quad(np.array([-60.0, 60, 0]), np.array([120.0, 0, 0]), np.array([0, -120.0, 0]), texture)
    return replace(flown, _make_scene=lambda: GreyScene(Scene((ground,), background=(200, 200, 200))))


def seconds(flown: Flight, stamps_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.asarray((stamps_ns - flight(flown.name, flown.seed, count=1).stamps_ns[0]) / 1e9, np.float64)


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


@pytest.mark.parametrize("name", MOTIONS)
def test_the_exact_imu_integrates_to_the_poses(name: str) -> None:
    flown = flight(name, seed=3)
    end_s = 6.0
    expected = flown.trajectory.pose(np.array([end_s]))[0]
    position, rotation = integrated(flown, 200, end_s)
    assert np.linalg.norm(position - expected[:3, 3]) < 0.002
    assert np.linalg.norm(cv2.Rodrigues(rotation.T @ expected[:3, :3])[0]) < np.radians(0.005)
    # What is left comes from the sampling: it shrinks with the square of the period.
    finer, _ = integrated(flown, 800, end_s)
    assert np.linalg.norm(finer - expected[:3, 3]) < np.linalg.norm(position - expected[:3, 3]) / 8


@pytest.mark.parametrize("name", FLIGHTS)
def test_states_belong_to_the_stamps(name: str) -> None:
    flown = flight(name)
    assert len(flown) >= 600
    assert len(flown.poses) == len(flown.velocities) == len(flown.gyroscope_biases) == len(flown)
    times = seconds(flown, flown.stamps_ns)
    np.testing.assert_allclose(flown.body_poses, flown.trajectory.pose(times), atol=1e-12)
    moved = (flown.trajectory.position(times + 1e-4) - flown.trajectory.position(times - 1e-4)) / 2e-4
    np.testing.assert_allclose(flown.velocities, moved, atol=1e-6)
    imu = flown.imu
    assert (np.diff(imu.stamps_ns) == 5_000_000).all()
    assert imu.stamps_ns[0] <= flown.stamps_ns[0] - 10**9
    assert imu.stamps_ns[-1] > flown.stamps_ns[-1]
    assert np.abs(imu.body_from_camera - np.eye(4)).max() > 0.5
    turning, _ = exact_imu(flown.trajectory, seconds(flown, imu.stamps_ns))
    first_second = seconds(flown, imu.stamps_ns) < 1.0
    rest = np.ptp(flown.trajectory.position(seconds(flown, imu.stamps_ns[first_second])), axis=0).max() < 1e-9
    assert rest == flown.starts_at_rest
    assert not flown.starts_at_rest or np.abs(turning[first_second]).max() < 1e-9


def test_each_flight_moves_as_its_name_says() -> None:
    def steps(name: str) -> npt.NDArray[np.float64]:
        poses = flight(name, seed=1).poses
        return np.asarray(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1), np.float64)

    def turn_rates(name: str) -> npt.NDArray[np.float64]:
        flown = flight(name, seed=1)
        rates = np.linalg.norm(flown.trajectory.angular_velocity(seconds(flown, flown.stamps_ns)), axis=1)
        return np.asarray(np.degrees(rates), np.float64)

    assert np.abs(steps("street") - 0.5).max() < 0.02
    assert steps("drive").min() < 0.01
    assert 1.48 < steps("drive").max() < 1.52
    assert np.median(steps("drive")) > 0.4
    assert steps("corridor").min() < 0.01
    assert 190 < turn_rates("fast_rotation").max() < 215
    assert turn_rates("hall").max() < 70
    assert turn_rates("drive").max() > 20


def test_noise_and_biases_are_those_of_the_sensor() -> None:
    flown = flight("hall")
    times = seconds(flown, flown.imu.stamps_ns)
    for exact, measured, density, biases, walk, start in zip(
        exact_imu(flown.trajectory, times),
        (flown.imu.angular_velocity, flown.imu.linear_acceleration),
        (ADIS16448.gyroscope_noise_density, ADIS16448.accelerometer_noise_density),
        (flown.gyroscope_biases, flown.accelerometer_biases),
        (ADIS16448.gyroscope_random_walk, ADIS16448.accelerometer_random_walk),
        (0.03, 0.08),
        strict=True,
    ):
        # Second differences cancel the bias; those of white noise have 6 times its variance.
        noise = np.diff(measured - exact, n=2, axis=0)
        assert noise.std() == pytest.approx(np.sqrt(6) * density * np.sqrt(200), rel=0.03)
        assert np.diff(biases, axis=0).std() == pytest.approx(walk * np.sqrt(0.05), rel=0.05)
        assert 0 < np.abs(biases[0]).max() < 4 * start
        at_images = np.isin(flown.imu.stamps_ns, flown.stamps_ns)
        left = (measured - exact)[at_images] - biases
        assert np.abs(left.mean(axis=0)).max() < 5 * density * np.sqrt(200) / np.sqrt(len(flown))
    assert flown.imu.noise == ADIS16448


def test_seeds_change_path_and_noise_and_a_count_only_the_end() -> None:
    first, again, other = flight("street", 4, count=50), flight("street", 4), flight("street", 5)
    np.testing.assert_array_equal(first.poses, again.poses[:50])
    np.testing.assert_array_equal(first.imu.angular_velocity, again.imu.angular_velocity[: len(first.imu.stamps_ns)])
    assert np.abs(first.poses[49] - other.poses[49]).max() > 0.05
    assert np.abs(first.gyroscope_biases[0] - other.gyroscope_biases[0]).max() > 1e-4


def test_dropped_images_leave_gaps_in_the_stamps() -> None:
    whole, halved, thinned = flight("hall", count=30), flight("hall", count=30, dropped=2), flight("dropped", count=30)
    np.testing.assert_array_equal(halved.stamps_ns, whole.stamps_ns[::2])
    np.testing.assert_array_equal(halved.poses, whole.poses[::2])
    kept = [number for number in range(30) if number % 3 != 2]
    np.testing.assert_array_equal(thinned.stamps_ns, whole.stamps_ns[kept])
    np.testing.assert_array_equal(thinned.poses, whole.poses[kept])
    np.testing.assert_array_equal(halved.imu.stamps_ns, whole.imu.stamps_ns)
    # One path, whatever is done to its images.
    np.testing.assert_array_equal(flight("darkness").poses, flight("hall").poses[:600])


def test_darkness_and_brightness_change_the_images_alone() -> None:
    plain = with_small_scene(flight("street", count=80))
    changed = with_small_scene(flight("street", count=80, darkness=(0.5, 1.0), brightness_steps=(1.5, 3.0)))
    np.testing.assert_array_equal(plain.poses, changed.poses)
    ratio = {index: changed.image(index).mean() / plain.image(index).mean() for index in (9, 10, 55, 79)}
    assert ratio[9] == 1
    assert ratio[10] < 0.03
    assert ratio[55] == pytest.approx(0.5, abs=0.01)
    assert ratio[79] > 0.95


def test_images_come_one_at_a_time_and_are_always_the_same() -> None:
    flown = with_small_scene(flight("hall", count=3))
    images = list(flown.frames())
    assert len(images) == len(flown) == 3
    assert images[0].shape == flown.depth(0).shape == (480, 640)
    assert images[0].dtype == np.uint8
    np.testing.assert_array_equal(images[2], flown.image(2))
    # At rest only the noise differs.
    np.testing.assert_allclose(flown.poses[0], flown.poses[1], atol=1e-12)
    difference = images[0].astype(float) - images[1]
    assert 2 < difference.std() < 8


def test_wrong_requests_say_what_is_right() -> None:
    with pytest.raises(ValueError, match=r"flight 'moon' is unknown; expected one of hall, .*corridor"):
        flight("moon")
    with pytest.raises(ValueError, match="count is 601; expected 1 to 600, the images of street"):
        flight("street", count=601)
    with pytest.raises(ValueError, match="dropped is 1; expected 0, or 2 for every second image"):
        flight("street", dropped=1)
    flown = flight("street")
    with pytest.raises(ValueError, match="expected times from"):
        flown.trajectory.pose(np.array([31.0]))


def test_motion_blur_smears_along_the_motion() -> None:
    camera = flight("hall", count=1).camera
    light = np.zeros((480, 640), np.float32)
    light[:, 320] = 255  # a vertical line
    none = np.zeros(3)
    inverse_depth = np.full((480, 640), 0.5, np.float32)
    # 1 m/s to the right, at 2 m, for 40 ms: focal length * 0.02.
    expected_px = camera.matrix[0, 0] * 0.02
    blurred = motion_blurred(light, inverse_depth, camera, np.array([1.0, 0, 0]), none, 0.04)
    row = blurred[240]
    x = np.arange(640)
    centre = (row * x).sum() / row.sum()
    spread = np.sqrt((row * (x - centre) ** 2).sum() / row.sum())
    assert centre == pytest.approx(320, abs=0.01)
    assert spread == pytest.approx(expected_px / np.sqrt(12), rel=0.05)
    # The same motion of the image by a rotation about y.
    turned = motion_blurred(light, inverse_depth, camera, none, np.array([0, -0.5, 0]), 0.04)
    np.testing.assert_allclose(turned[240], row, atol=3)
    assert motion_blurred(light, inverse_depth, camera, np.array([0.05, 0, 0]), none, 0.04) is light


def test_image_noise_grows_with_the_light() -> None:
    sensor = ImageSensor(exposure_s=0.001)
    for level in (0.0, 40.0, 160.0):
        image = sensor.expose(np.full((300, 400), level, np.float32), 1.0, np.random.default_rng(0))
        if level:
            assert image.std() == pytest.approx(np.sqrt(1 + 0.02 * level + 1 / 12), rel=0.02)
        assert abs(float(image.mean()) - level) < (0.5 if level == 0 else 0.05)
