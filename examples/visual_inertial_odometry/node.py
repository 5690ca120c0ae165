#!/usr/bin/env python3
"""Visual-inertial odometry as a ROS 2 node: `Tracks` and `sensor_msgs/Imu` in, `Odometry`, `Path` and tf out.

    cd examples/visual_inertial_odometry
    python node.py --ros-args --params-file euroc.yaml

It requires `normalized_keypoints`, that is, `camera_info` for the front-end. The frame `odom` has z up and begins where
the odometry starts; the child frame is the IMU's. The estimator is `feature_frontend_lab.odometry`, on GTSAM.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt
import rclpy
from feature_frontend_msgs.msg import Tracks
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Transform, TransformStamped, Vector3
from nav_msgs.msg import Odometry, Path
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Imu
from std_msgs.msg import Header

from feature_frontend.sources.imu import ImuNoise
from feature_frontend_lab.odometry.inertial import DEFAULT_NOISE
from feature_frontend_lab.odometry.library import gtsam
from feature_frontend_lab.odometry.smoother import SmootherStep, VisualInertialSmoother
from feature_frontend_lab.odometry.views import TrackedView, pixel_size

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # the wheels of ROS on PyPI lack it
    TFMessage = None

FloatArray = npt.NDArray[np.float64]

_NS_PER_S = 1_000_000_000
_TRACKS_DEPTH, _IMU_DEPTH = 1000, 5000
_LOG_PERIOD_S, _WAITING_LOG_PERIOD_S = 1.0, 5.0
# No estimate lives on for so long without an image.
_IMU_KEPT_NS = 60 * _NS_PER_S
_RELIABILITY = {"reliable": QoSReliabilityPolicy.RELIABLE, "best_effort": QoSReliabilityPolicy.BEST_EFFORT}


class VisualInertialOdometryNode(Node):
    """Its parameters, read at start-up, are in docs/back_ends.md."""

    def __init__(self) -> None:
        super().__init__("visual_inertial_odometry")
        noise = DEFAULT_NOISE
        defaults = [
            noise.gyroscope_noise_density,
            noise.gyroscope_random_walk,
            noise.accelerometer_noise_density,
            noise.accelerometer_random_walk,
        ]
        self._body_from_camera = self._numbers("body_from_camera", np.eye(4).ravel().tolist()).reshape(4, 4)
        self._noise = ImuNoise(*self._numbers("imu_noise", defaults).tolist())
        self._odom_frame = self.declare_parameter("odom_frame", "odom").value
        self._max_path_poses = max(1, self.declare_parameter("max_path_poses", 10_000).value)
        rotation = self._body_from_camera[:3, :3]
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
            raise ValueError("parameter body_from_camera holds no rotation; expected 16 numbers, row by row")
        self._begin()
        self._odometry_publisher = self.create_publisher(Odometry, "odometry", 10)
        self._path_publisher = self.create_publisher(Path, "path", 10)
        self._tf_publisher = None
        if self.declare_parameter("publish_tf", True).value:
            if TFMessage is None:
                self.get_logger().warning("tf2_msgs is not installed: no tf is published")
            else:
                self._tf_publisher = self.create_publisher(TFMessage, "/tf", 100)
        self.create_subscription(Tracks, "tracks", self._take_tracks, QoSProfile(depth=_TRACKS_DEPTH))
        imu_qos = self.declare_parameter("imu_qos", "reliable").value
        if imu_qos not in _RELIABILITY:
            raise ValueError(f"parameter imu_qos is {imu_qos!r}; expected {' or '.join(_RELIABILITY)}")
        profile = QoSProfile(depth=_IMU_DEPTH, reliability=_RELIABILITY[imu_qos])
        self.create_subscription(Imu, "imu", self._take_imu, profile)

    def _numbers(self, name: str, default: list[float]) -> FloatArray:
        values = np.array(self.declare_parameter(name, default).value, np.float64)
        if len(values) != len(default) or not np.isfinite(values).all():
            raise ValueError(f"parameter {name} holds {len(values)} numbers; expected {len(default)}, all finite")
        return values

    def _begin(self) -> None:
        self._smoother = VisualInertialSmoother(self._body_from_camera, self._noise)
        self._waiting: deque[tuple[Header, TrackedView, bool]] = deque()
        self._path = Path()
        self._last_stamp_ns = self._run_id = self._resets = 0
        self._body_frame = "imu"
        self._rate = np.zeros(3)

    def _take_imu(self, message: Imu) -> None:
        stamp_ns = _stamp_ns(message.header)
        if stamp_ns < (self._smoother.imu.end_ns or 0) - _NS_PER_S:
            self.get_logger().warning("the IMU's stamps went back: a new sequence begins")
            self._begin()
        rate, acceleration = message.angular_velocity, message.linear_acceleration
        refused = self._smoother.imu.refused
        self._smoother.imu.add(
            np.array([stamp_ns]),
            np.array([[rate.x, rate.y, rate.z]]),
            np.array([[acceleration.x, acceleration.y, acceleration.z]]),
        )
        if self._smoother.imu.refused > refused:
            self.get_logger().warning(
                f"the IMU's measurement at {stamp_ns} ns is impossible, or not later than the last one: left out",
                throttle_duration_sec=_LOG_PERIOD_S,
            )
        self._smoother.imu.forget_before(stamp_ns - _IMU_KEPT_NS)
        self._rate = np.array([rate.x, rate.y, rate.z])
        self._body_frame = message.header.frame_id or self._body_frame
        self._process()

    def _take_tracks(self, message: Tracks) -> None:
        keypoints, rays = _points(message.keypoints), _points(message.normalized_keypoints)
        if not len(message.ids) == len(keypoints) == len(rays):
            self.get_logger().warning(
                f"tracks with {len(message.ids)} ids, {len(keypoints)} keypoints and {len(rays)} normalized keypoints; "
                "expected as many of each: does the front-end get camera_info?",
                throttle_duration_sec=_LOG_PERIOD_S,
            )
            return
        stamp_ns = _stamp_ns(message.header)
        if stamp_ns < self._last_stamp_ns:
            self.get_logger().warning("the stamp went back: a new sequence begins")
            self._begin()
        elif stamp_ns == self._last_stamp_ns:
            self.get_logger().warning(f"two images at {stamp_ns} ns: the second is left out")
            return
        is_new = (message.run_id, message.resets) != (self._run_id, self._resets)
        self._last_stamp_ns, self._run_id, self._resets = stamp_ns, message.run_id, message.resets
        view = TrackedView.of(stamp_ns, np.asarray(message.ids), rays, pixel_size(keypoints, rays))
        self._waiting.append((message.header, view, is_new))
        if len(self._waiting) > _TRACKS_DEPTH:
            self._waiting.popleft()
        self._process()
        if self._waiting and stamp_ns - self._waiting[0][1].stamp_ns >= _NS_PER_S:
            end_ns = self._smoother.imu.end_ns
            self.get_logger().warning(
                f"{len(self._waiting)} images from {self._waiting[0][1].stamp_ns} ns on wait for the IMU: "
                + ("no measurement has arrived" if end_ns is None else f"its latest measurement is at {end_ns} ns"),
                throttle_duration_sec=_WAITING_LOG_PERIOD_S,
            )

    def _process(self) -> None:
        """Processes the images up to whose stamps the IMU has measured."""
        while self._waiting and (self._smoother.imu.end_ns or 0) >= self._waiting[0][1].stamp_ns:
            header, view, is_new = self._waiting.popleft()
            if is_new:
                self._smoother.forget_tracks()
            step = self._smoother.update(view)
            if step.lost:
                self.get_logger().warning(f"{step.lost}: the odometry restarts")
            if step.waiting:
                self.get_logger().warning(f"no start yet: {step.waiting}", throttle_duration_sec=_WAITING_LOG_PERIOD_S)
            if step.pose is not None:
                self._publish(header, step)

    def _publish(self, header: Header, step: SmootherStep) -> None:
        placed = Header(stamp=header.stamp, frame_id=self._odom_frame)
        turn = gtsam.Rot3(step.pose[:3, :3]).toQuaternion()
        rotation = Quaternion(x=turn.x(), y=turn.y(), z=turn.z(), w=turn.w())
        pose = Pose(position=Point(**_xyz(step.pose[:3, 3])), orientation=rotation)
        self._path.poses.append(PoseStamped(header=placed, pose=pose))
        del self._path.poses[: -self._max_path_poses]
        self._path.header = placed
        self._path_publisher.publish(self._path)
        odometry = Odometry(header=placed, child_frame_id=self._body_frame)
        odometry.pose.pose = pose
        odometry.twist.twist.linear = Vector3(**_xyz(step.pose[:3, :3].T @ step.velocity))
        odometry.twist.twist.angular = Vector3(**_xyz(self._rate - step.gyroscope_bias))
        self._odometry_publisher.publish(odometry)
        if self._tf_publisher is not None:
            transform = Transform(translation=Vector3(**_xyz(step.pose[:3, 3])), rotation=rotation)
            stamped = TransformStamped(header=placed, child_frame_id=self._body_frame, transform=transform)
            self._tf_publisher.publish(TFMessage(transforms=[stamped]))


def _stamp_ns(header: Header) -> int:
    return header.stamp.sec * _NS_PER_S + header.stamp.nanosec


def _points(values: object) -> FloatArray:
    """A message's flat array as (N, 2); an odd last element is dropped."""
    flat = np.asarray(values, np.float64)
    return flat[: len(flat) // 2 * 2].reshape(-1, 2)


def _xyz(values: FloatArray) -> dict[str, float]:
    return dict(zip("xyz", map(float, values), strict=True))


def main() -> None:
    """Runs until Ctrl-C."""
    rclpy.init()
    node = None
    try:
        node = VisualInertialOdometryNode()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        if node is not None:
            # At interpreter exit, this may block forever on the middleware's threads.
            node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
