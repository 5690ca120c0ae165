"""A stereo camera and a consumer of the node's results, in a process other than the node."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from feature_frontend_msgs.msg import FrameStatus
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from benchmarks.node_process import NodeProcess, ros_environment
from benchmarks.spinning_node import SpinningNode
from benchmarks.types import Canvas
from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.errors import FeatureFrontendError
from feature_frontend.ros.input.camera_info import camera_info_message
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns, stamp_to_ns

__all__ = ["StereoClient"]

_SIDES = ("left", "right")
_START_TIMEOUT_S = 60.0


class StereoClient(SpinningNode):
    """Publishes rectified pairs with their calibrations, and receives `status` and `points`.

    A pair's stamp is the monotonic clock at the start of its publishing; all processes of a machine share that clock.

    Args:
        pairs: Left and right image, (H, W) uint8 each, all of one size.
        focal_px: Focal length of both cameras.
        baseline_m: Distance between them.
    """

    def __init__(self, pairs: Sequence[tuple[Canvas, Canvas]], focal_px: float, baseline_m: float) -> None:
        super().__init__("stereo_client", int(ros_environment()["ROS_DOMAIN_ID"]))
        qos = qos_profile("sensor_data", 10)
        self._images = [self.node.create_publisher(Image, f"{side}/image", qos) for side in _SIDES]
        self._infos = [self.node.create_publisher(CameraInfo, f"{side}/camera_info", qos) for side in _SIDES]
        zero = stamp_from_ns(0)
        self._pairs = [
            [array_to_image(image, "mono8", zero, side) for image, side in zip(pair, _SIDES, strict=True)]
            for pair in pairs
        ]
        height, width = pairs[0][0].shape
        self._calibrations = [
            camera_info_message(_calibration(height, width, focal_px, shift), zero, side)
            for shift, side in zip((0.0, baseline_m), _SIDES, strict=True)
        ]
        self.sent: list[int] = []
        self.statuses: dict[int, Any] = {}
        self.points_ns: dict[int, int] = {}
        self.point_counts: list[int] = []
        self.node.create_subscription(FrameStatus, "status", self._take_status, qos_profile("reliable", 100))
        self.node.create_subscription(PointCloud2, "points", self._take_points, qos_profile("reliable", 100))
        self.start()

    def publish(self) -> int:
        """Publishes the next pair and returns its stamp."""
        messages = self._pairs[len(self.sent) % len(self._pairs)]
        stamp_ns = time.monotonic_ns()
        stamp = stamp_from_ns(stamp_ns)
        for publisher, message in zip((*self._infos, *self._images), (*self._calibrations, *messages), strict=True):
            message.header.stamp = stamp
            publisher.publish(message)
        self.sent.append(stamp_ns)
        return stamp_ns

    def wait_for_node(self, process: NodeProcess) -> None:
        """Waits until a first pair has been returned as points.

        Raises:
            FeatureFrontendError: The node ended, or nothing was received in time.
        """
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        publishers = (*self._images, *self._infos)
        while time.monotonic() < deadline_s and process.is_running and not self.points_ns:
            if all(publisher.get_subscription_count() for publisher in publishers):
                self.publish()
            time.sleep(0.2)
        if not self.points_ns:
            msg = f"the node gave no points within {_START_TIMEOUT_S:g} s; it printed: {process.output or 'nothing'}"
            raise FeatureFrontendError(msg)

    def _take_status(self, message: FrameStatus) -> None:
        self.statuses[stamp_to_ns(message.header.stamp)] = message

    def _take_points(self, message: PointCloud2) -> None:
        self.points_ns[stamp_to_ns(message.header.stamp)] = time.monotonic_ns()
        self.point_counts.append(message.width * message.height)


def _calibration(height: int, width: int, focal_px: float, shift_m: float) -> CameraCalibration:
    matrix = np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1]])
    projection = np.column_stack([matrix, [-focal_px * shift_m, 0, 0]])
    return CameraCalibration(
        height,
        width,
        "",
        "plumb_bob",
        tuple(matrix.ravel().tolist()),
        (0.0,) * 5,
        projection_matrix=tuple(projection.ravel().tolist()),
    )
