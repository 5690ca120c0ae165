#!/usr/bin/env python3
"""Monocular visual odometry as a ROS 2 node: `feature_frontend_msgs/Tracks` in, `Odometry` and `Path` out.

    python examples/visual_odometry/node.py --ros-args -p baseline:=0.5 -r tracks:=/front/tracks

It requires `normalized_keypoints`, that is, `camera_info` for the front-end. The frame `odom` is the first camera pose,
rotated to ROS axes (x forward, y left, z up); the child frame is the camera's optical frame. Lengths are scaled so that
the first motion has length `baseline`.
"""

from __future__ import annotations

from dataclasses import fields

import cv2
import numpy as np
import numpy.typing as npt
import rclpy
from feature_frontend_msgs.msg import Tracks
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Vector3
from nav_msgs.msg import Odometry, Path
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Header

from feature_frontend_lab.odometry.monocular import FloatArray, Options, View, VisualOdometry
from feature_frontend_lab.odometry.views import pixel_size

# From optical axes (x right, y down, z forward) to ROS axes (x forward, y left, z up).
_TO_ROS = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
_DEPTH = 1000  # queue depth: odometry needs every view
_LOG_PERIOD_S = 1.0


class VisualOdometryNode(Node):
    """Each field of `Options` is a parameter, read at start-up; so are `odom_frame` and `max_path_poses`."""

    def __init__(self) -> None:
        super().__init__("visual_odometry")
        values = {field.name: self.declare_parameter(field.name, field.default).value for field in fields(Options)}
        self._options = Options(**values)
        self._odom_frame = self.declare_parameter("odom_frame", "odom").value
        self._max_path_poses = max(1, self.declare_parameter("max_path_poses", 10_000).value)
        self._odometry = VisualOdometry(self._options)
        self._path = Path()
        self._before: tuple[int, FloatArray] | None = None
        self._start_header = Header()
        self._last_stamp_ns = self._run_id = self._resets = 0
        self._odometry_publisher = self.create_publisher(Odometry, "odometry", 10)
        self._path_publisher = self.create_publisher(Path, "path", 10)
        self.create_subscription(Tracks, "tracks", self._take, QoSProfile(depth=_DEPTH))

    def _take(self, message: Tracks) -> None:
        keypoints, rays = _points(message.keypoints), _points(message.normalized_keypoints)
        if not len(message.ids) == len(keypoints) == len(rays):
            self.get_logger().warning(
                f"tracks with {len(message.ids)} ids, {len(keypoints)} keypoints and {len(rays)} normalized keypoints; "
                "expected as many of each: does the front-end get camera_info?",
                throttle_duration_sec=_LOG_PERIOD_S,
            )
            return
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        if stamp_ns < self._last_stamp_ns or (self._run_id and message.run_id != self._run_id):
            why = "the stamp went back" if stamp_ns < self._last_stamp_ns else "the front-end was restarted"
            self.get_logger().warning(f"{why}: a new sequence has begun")
            self._odometry, self._path = VisualOdometry(self._options), Path()
            self._before = None
        elif message.resets != self._resets:
            self._odometry.forget_tracks()
        self._last_stamp_ns, self._run_id, self._resets = stamp_ns, message.run_id, message.resets
        step = self._odometry.update(View.of(np.asarray(message.ids), rays), pixel_size(keypoints, rays))
        if step.note:
            self.get_logger().warning(step.note, throttle_duration_sec=_LOG_PERIOD_S)
        if step.begins:
            self._start_header = message.header
        if step.pose is None:
            return
        if step.first_pose is not None:
            self._add_to_path(self._start_header, step.first_pose)
        self._add_to_path(message.header, step.pose)
        self._path.header = Header(stamp=message.header.stamp, frame_id=self._odom_frame)
        del self._path.poses[: -self._max_path_poses]
        self._path_publisher.publish(self._path)
        self._publish_odometry(message.header, stamp_ns, step.pose)

    def _add_to_path(self, header: Header, pose: FloatArray) -> None:
        placed = Header(stamp=header.stamp, frame_id=self._odom_frame)
        self._path.poses.append(PoseStamped(header=placed, pose=_pose_message(_TO_ROS @ pose)))

    def _publish_odometry(self, header: Header, stamp_ns: int, pose: FloatArray) -> None:
        odometry = Odometry(child_frame_id=header.frame_id)
        odometry.header = Header(stamp=header.stamp, frame_id=self._odom_frame)
        odometry.pose.pose = _pose_message(_TO_ROS @ pose)
        if self._before is not None and stamp_ns > self._before[0]:
            elapsed_s = (stamp_ns - self._before[0]) / 1e9
            motion = np.linalg.solve(self._before[1], pose)
            odometry.twist.twist.linear = Vector3(**_xyz(motion[:3, :3].T @ motion[:3, 3] / elapsed_s))
            odometry.twist.twist.angular = Vector3(**_xyz(cv2.Rodrigues(motion[:3, :3])[0].ravel() / elapsed_s))
        self._before = stamp_ns, pose
        self._odometry_publisher.publish(odometry)


def _points(values: object) -> npt.NDArray[np.float64]:
    """A message's flat array as (N, 2); an odd last element is dropped."""
    flat = np.asarray(values, np.float64)
    return flat[: len(flat) // 2 * 2].reshape(-1, 2)


def _pose_message(pose: FloatArray) -> Pose:
    turn = cv2.Rodrigues(pose[:3, :3])[0].ravel()
    angle = float(np.linalg.norm(turn))
    axis = turn * (np.sin(angle / 2) / angle if angle > 1e-12 else 0.5)
    return Pose(position=Point(**_xyz(pose[:3, 3])), orientation=Quaternion(**_xyz(axis), w=float(np.cos(angle / 2))))


def _xyz(values: npt.NDArray[np.floating]) -> dict[str, float]:
    return dict(zip("xyz", map(float, values), strict=True))


def main() -> None:
    """Runs until Ctrl-C."""
    rclpy.init()
    node = None
    try:
        node = VisualOdometryNode()
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
