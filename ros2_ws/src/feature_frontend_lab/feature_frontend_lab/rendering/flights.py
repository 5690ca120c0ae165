"""Rendered sequences, made on the fly: exact poses and depth, a simulated IMU, images as from a real camera.

flown = flight("hall", seed=0)
for stamp_ns, pose, image in zip(flown.stamps_ns, flown.poses, flown.frames()):
    ...
flown.imu, flown.velocities, flown.depth(10)
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.sources.imu import ImuMeasurements
from feature_frontend_lab.rendering.camera import Camera, FloatArray, invert_pose
from feature_frontend_lab.rendering.corridor_scene import corridor_along
from feature_frontend_lab.rendering.driven import CORRIDOR_RIDE, STEADY_DRIVE, VARIED_DRIVE, Ride, drive
from feature_frontend_lab.rendering.flown import fly, smooth_step
from feature_frontend_lab.rendering.grey_renderer import GreyScene
from feature_frontend_lab.rendering.indoor_scene import hall_around
from feature_frontend_lab.rendering.inertial import simulate_imu
from feature_frontend_lab.rendering.scene import Scene
from feature_frontend_lab.rendering.sensor import ImageSensor, motion_blurred
from feature_frontend_lab.rendering.street_scene import street_along
from feature_frontend_lab.rendering.trajectory import SplineTrajectory

__all__ = ["FLIGHTS", "Flight", "flight"]

FRAME_RATE_HZ = 20
IMU_RATE_HZ = 200
_FIRST_STAMP_NS = 1_700_000_000_000_000_000
_NS_PER_S = 1_000_000_000
# The IMU measures from this long before the first image to this long after the last.
_IMU_BEFORE_S, _IMU_AFTER_S = 1.5, 0.5
_CAMERA = Camera.with_field_of_view(75, height=480, width=640)
# Light that is left in the dark, relative to the day.
_DARK = 0.01
_CHANGE_S = 1.0

# The camera sits a hand's breadth before the IMU, not quite straight.
_TILT = np.radians((0.8, 1.9, -1.2))


def _body_from_camera() -> FloatArray:
    forward_left_up = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    mount = SplineTrajectory(0.0, 1.0, np.tile([0.07, -0.025, 0.04], (6, 1)), np.tile(_TILT, (6, 1)))
    pose = mount.pose(np.array([2.0]))[0]
    pose[:3, :3] = pose[:3, :3] @ forward_left_up
    return np.asarray(pose, np.float64)


@dataclass(frozen=True)
class _Plan:
    """What is behind a flight's name: `images` (before any is dropped) on a path that lasts `path_s`."""

    place: str
    move: Callable[[np.random.Generator, float, float], SplineTrajectory]
    build: Callable[[FloatArray, np.random.Generator], Scene]
    path_s: float
    images: int
    starts_at_rest: bool
    exposure_s: float
    dropped: int = 0
    darkness: tuple[float, float] | None = None


def _burst(rng: np.random.Generator, start_s: float, end_s: float) -> SplineTrajectory:
    return fly(rng, start_s, end_s, bursts=True)


def _drive(ride: Ride) -> Callable[[np.random.Generator, float, float], SplineTrajectory]:
    return lambda rng, start_s, end_s: drive(ride, rng, start_s, end_s)


_PLANS = {
    "hall": _Plan("hall", fly, hall_around, 60, 1200, True, 0.004),
    "fast_rotation": _Plan("hall", _burst, hall_around, 60, 600, True, 0.004),
    "darkness": _Plan("hall", fly, hall_around, 60, 600, True, 0.004, darkness=(15.0, 16.0)),
    "dropped": _Plan("hall", fly, hall_around, 60, 900, True, 0.004, dropped=3),
    "street": _Plan("street", _drive(STEADY_DRIVE), street_along, 30, 600, False, 0.001),
    "drive": _Plan("street", _drive(VARIED_DRIVE), street_along, 40, 800, False, 0.001),
    "corridor": _Plan("corridor", _drive(CORRIDOR_RIDE), corridor_along, 34, 680, False, 0.002),
}
FLIGHTS = tuple(_PLANS)


@dataclass(frozen=True, eq=False)
class Flight:
    """A sequence of N images with everything that is true about it. Nothing is rendered before it is asked for.

    Attributes:
        name: One of `FLIGHTS`.
        seed: Seed of scene, path and noise.
        camera: The camera, without distortion.
        stamps_ns: (N,) int64, middles of the exposures.
        poses: (N, 4, 4) camera-to-world, m; z is up in the world.
        velocities: (N, 3) of the body (the IMU) in the world, m/s.
        gyroscope_biases: (N, 3) true bias at the images, rad/s.
        accelerometer_biases: (N, 3) true bias at the images, m/s^2.
        imu: Measurements at 200 Hz from 1.5 s before the first image to 0.5 s after the last; also `body_from_camera`.
        starts_at_rest: Whether the body is at rest until 1 s after the first image; otherwise it moves from the start.
        trajectory: The motion of the body over the time since the first image.
    """

    name: str
    seed: int
    camera: Camera
    stamps_ns: npt.NDArray[np.int64]
    poses: FloatArray
    velocities: FloatArray
    gyroscope_biases: FloatArray
    accelerometer_biases: FloatArray
    imu: ImuMeasurements
    starts_at_rest: bool
    trajectory: SplineTrajectory
    _gains: FloatArray
    _sensor: ImageSensor
    _make_scene: Callable[[], GreyScene]

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def body_poses(self) -> FloatArray:
        """(N, 4, 4) body-to-world, m."""
        return np.asarray(self.poses @ invert_pose(self.imu.body_from_camera), np.float64)

    @property
    def calibration(self) -> CameraCalibration:
        """The camera as the front-end takes it."""
        matrix = tuple(float(value) for value in self.camera.matrix.ravel())
        return CameraCalibration(self.camera.height, self.camera.width, "rendered", "plumb_bob", matrix, ())

    @cached_property
    def scene(self) -> GreyScene:
        """The scene; building it takes seconds."""
        return self._make_scene()

    def frames(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Renders the images (H, W) one after the other."""
        return (self.image(index) for index in range(len(self)))

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """Renders an image (H, W), grey, with motion blur and noise; always the same one."""
        light, inverse_depth = self.scene.render(self.camera, self.poses[index])
        time_s = np.array([(self.stamps_ns[index] - _FIRST_STAMP_NS) / _NS_PER_S])
        to_camera = self.imu.body_from_camera[:3, :3].T
        turning = self.trajectory.angular_velocity(time_s)[0]
        moving = self.trajectory.rotation(time_s)[0].T @ self.velocities[index]
        moving += np.cross(turning, self.imu.body_from_camera[:3, 3])
        blurred = motion_blurred(
            light, inverse_depth, self.camera, to_camera @ moving, to_camera @ turning, self._sensor.exposure_s
        )
        rng = np.random.default_rng([self.seed, int(self.stamps_ns[index])])
        return self._sensor.expose(blurred, float(self._gains[index]), rng)

    def depth(self, index: int) -> npt.NDArray[np.float32]:
        """(H, W) float32 exact depth of an image, m along the optical axis; 0 in the sky."""
        return self.scene.depth(self.camera, self.poses[index])


def flight(
    name: str,
    seed: int = 0,
    *,
    count: int | None = None,
    dropped: int | None = None,
    darkness: tuple[float, float] | None = None,
    brightness_steps: Sequence[float] = (),
) -> Flight:
    """Plans a flight; its images are rendered when they are asked for.

    Args:
        name: One of `FLIGHTS`.
        seed: Changes the scene, its textures, the path and all noise.
        count: Use only the first images, this many before any is dropped; None for all, at least 600 after it.
        dropped: Drop every second (2), third (3), ... image; 0 drops none; None for the flight's own number.
        darkness: Begin and end of a time without light, s since the first image; None for the flight's own.
        brightness_steps: Times, s since the first image, from each of which on the brightness changes by a factor of 2
            within 1 s: down at the first, up again at the second, and so on.

    Raises:
        ValueError: The name is unknown, or an option is out of range.
    """
    if name not in _PLANS:
        raise ValueError(f"flight {name!r} is unknown; expected one of {', '.join(FLIGHTS)}")
    plan = _PLANS[name]
    step = plan.dropped if dropped is None else dropped
    total = plan.images if count is None else count
    if not 1 <= total <= plan.images:
        raise ValueError(f"count is {count}; expected 1 to {plan.images}, the images of {name}")
    if step < 0 or step == 1:
        raise ValueError(f"dropped is {dropped}; expected 0, or 2 for every second image, 3 for every third, ...")
    path_seed, scene_seed, imu_seed = (
        np.random.default_rng([seed, zlib.crc32(part.encode())]) for part in (plan.place, f"{plan.place} scene", "imu")
    )
    # Always the whole path, so that the first images are the same whatever `count` is.
    trajectory = plan.move(path_seed, -_IMU_BEFORE_S, plan.path_s + _IMU_AFTER_S)
    numbers = np.array([number for number in range(total) if not step or number % step != step - 1])
    times_s = numbers / FRAME_RATE_HZ
    stamps_ns = _FIRST_STAMP_NS + numbers * (_NS_PER_S // FRAME_RATE_HZ)

    last_s = (total - 1) / FRAME_RATE_HZ
    ticks = np.arange(-round(_IMU_BEFORE_S * IMU_RATE_HZ), round((last_s + _IMU_AFTER_S) * IMU_RATE_HZ) + 1)
    body_from_camera = _body_from_camera()
    imu = simulate_imu(
        trajectory,
        ticks / IMU_RATE_HZ,
        _FIRST_STAMP_NS + ticks * (_NS_PER_S // IMU_RATE_HZ),
        body_from_camera,
        imu_seed,
    )
    at_images = np.searchsorted(imu.measurements.stamps_ns, stamps_ns)

    def make_scene() -> GreyScene:
        whole = np.arange(0, plan.path_s, 0.1)
        return GreyScene(plan.build(trajectory.position(whole), scene_seed))

    return Flight(
        name=name,
        seed=seed,
        camera=_CAMERA,
        stamps_ns=stamps_ns,
        poses=trajectory.pose(times_s) @ body_from_camera,
        velocities=trajectory.velocity(times_s),
        gyroscope_biases=imu.gyroscope_biases[at_images],
        accelerometer_biases=imu.accelerometer_biases[at_images],
        imu=imu.measurements,
        starts_at_rest=plan.starts_at_rest,
        trajectory=trajectory,
        _gains=_gains(times_s, plan.darkness if darkness is None else darkness, brightness_steps),
        _sensor=ImageSensor(plan.exposure_s),
        _make_scene=make_scene,
    )


def _gains(times_s: FloatArray, darkness: tuple[float, float] | None, steps: Sequence[float]) -> FloatArray:
    """(N,) brightness of each image relative to the scene's."""
    halvings = np.zeros(len(times_s))
    for number, begin_s in enumerate(steps):
        halvings += (-1) ** number * smooth_step((times_s - begin_s) / _CHANGE_S)
    gains = np.asarray(0.5**halvings, np.float64)
    if darkness is not None:
        gains[(times_s >= darkness[0]) & (times_s < darkness[1])] *= _DARK
    return gains
