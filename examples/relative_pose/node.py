#!/usr/bin/env python3
"""Relative poses as a ROS 2 node: `feature_frontend_msgs/Matches` in, `geometry_msgs/PoseStamped` out.

    python examples/relative_pose/node.py --ros-args -r matches:=/front/matches

`relative_pose` is the pose of image 0's camera in the frame of image 1's, with a translation of length 1, and the
header of image 1. It requires `camera_info` for the front-end and works best with `epipolar_check:=true`. One message
contains everything needed: the node has no state, so restarts and resets of the front-end need no handling.
"""

from __future__ import annotations

import numpy as np
import rclpy
from feature_frontend_msgs.msg import Matches
from geometry_msgs.msg import Point, PoseStamped, Quaternion
from pose import relative_pose
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile


class RelativePoseNode(Node):
    """Publishes the relative pose for each message whose matches determine it."""

    def __init__(self) -> None:
        super().__init__("relative_pose")
        self._publisher = self.create_publisher(PoseStamped, "relative_pose", QoSProfile(depth=1000))
        self.create_subscription(Matches, "matches", self._take, QoSProfile(depth=1000))

    def _take(self, message: Matches) -> None:
        found = relative_pose(message)
        if found is None:
            return
        (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = found[0]
        w = np.sqrt(max(1 + xx + yy + zz, 1e-12)) / 2  # rotations are far from 180 degrees
        pose = PoseStamped(header=message.header)
        pose.pose.orientation = Quaternion(x=(zy - yz) / 4 / w, y=(xz - zx) / 4 / w, z=(yx - xy) / 4 / w, w=w)
        pose.pose.position = Point(**dict(zip("xyz", map(float, found[1]), strict=True)))
        self._publisher.publish(pose)


def main() -> None:
    """Runs until Ctrl-C."""
    rclpy.init()
    node = None
    try:
        node = RelativePoseNode()
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
