"""`vins`: republishes `tracks` as the feature topic that VINS-Fusion takes from a front-end outside of it.

`sensor_msgs/PointCloud` with the image's header: points are (x, y, 1) on the normalised plane, and nine channels hold,
in this order, id, camera, u, v (px), velocity of x and y (normalised plane a second), and the true position gx, gy, gz.
The receiver reads channels 6 to 8 of any message with more than five, so they are always there; they are 0, as nothing
here knows a true position.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import rclpy
from feature_frontend_msgs.msg import Tracks
from geometry_msgs.msg import Point32
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import ChannelFloat32, PointCloud

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.ros.callback_guard import CallbackGuard, GuardedExecutor
from feature_frontend.ros.interrupts import OrderlyEnd
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.start_errors import check_ros_arguments, readable_start
from feature_frontend.system.files import readable_name

__all__ = ["CHANNELS", "VinsAdapter", "VinsEncoder", "main"]

CHANNELS = ("id_of_point", "camera_id", "u_of_point", "v_of_point", "velocity_x", "velocity_y", "gx", "gy", "gz")
TOPIC = "feature_tracker/feature"
# Channels are float32, which holds whole numbers exactly up to here.
_IDS = 1 << 24
# What VINS asks of its own front-end (max_cnt); it keeps at most 1000 points in its window.
_MAX_TRACKS = 150
_DEPTH = 100
_LOG_PERIOD_S = 5.0
_DESCRIPTION = f"""\
Republishes `tracks` as `{TOPIC}` (sensor_msgs/PointCloud) for VINS-Fusion. The front-end needs camera_info for it.
Parameters: max_tracks (default {_MAX_TRACKS}), the longest-lived ones; min_age (default 1), in frames."""


class VinsEncoder:
    """Turns one `Tracks` message after another into a point cloud.

    VINS knows ids only. Where the front-end was started anew, its ids begin at 1 again: here they go on behind the
    largest one so far, so that all tracks of before have ended.

    Args:
        max_tracks: Most points of a cloud; the longest-lived tracks win.
        min_age: Frames in which a track must have been seen.
    """

    def __init__(self, max_tracks: int = _MAX_TRACKS, min_age: int = 1) -> None:
        self._max_tracks = max(max_tracks, 1)
        self._min_age = min_age
        self._run_id = 0
        self._first_id = self._last_id = 0

    def convert(self, message: Tracks) -> PointCloud:
        """The cloud of the tracks that have a ray. Velocities are 0 at age 1 and where time does not advance."""
        if message.run_id != self._run_id:
            self._run_id, self._first_id = message.run_id, self._last_id
        rays, velocities = (
            np.frombuffer(field, np.float32).reshape(-1, 2)
            for field in (message.normalized_keypoints, message.normalized_velocities)
        )
        ids = np.frombuffer(message.ids, np.uint64) + np.uint64(self._first_id)
        self._last_id = max(self._last_id, int(ids.max(initial=0)))
        ages = np.frombuffer(message.ages, np.uint32)
        is_good = np.isfinite(rays).all(axis=1) & (ages >= self._min_age)
        oldest = np.argsort(-ages.astype(np.int64), kind="stable")
        chosen = oldest[is_good[oldest]][: self._max_tracks]
        keypoints = np.frombuffer(message.keypoints, np.float32).reshape(-1, 2)
        nothing = np.zeros(len(chosen), np.float32)
        columns = (
            ids[chosen] % _IDS,
            nothing,
            *keypoints[chosen].T,
            *np.nan_to_num(velocities[chosen], nan=0.0).T,
            nothing,
            nothing,
            nothing,
        )
        return PointCloud(
            header=message.header,
            points=[Point32(x=float(x), y=float(y), z=1.0) for x, y in rays[chosen]],
            channels=[
                ChannelFloat32(name=name, values=column.astype(np.float32).tolist())
                for name, column in zip(CHANNELS, columns, strict=True)
            ],
        )


class VinsAdapter(Node):
    """Subscribes to `tracks`, publishes `feature_tracker/feature`."""

    def __init__(self) -> None:
        super().__init__("vins_adapter")
        max_tracks = self.declare_parameter("max_tracks", _MAX_TRACKS).value
        self._encode = VinsEncoder(max_tracks, self.declare_parameter("min_age", 1).value)
        self._publisher = self.create_publisher(PointCloud, TOPIC, qos_profile("reliable", _DEPTH))
        self.create_subscription(Tracks, "tracks", self._take, qos_profile("reliable", _DEPTH))

    def _take(self, message: Tracks) -> None:
        points, coordinates = {len(message.ids), len(message.ages)}, {len(message.keypoints)}
        coordinates |= {len(message.normalized_keypoints), len(message.normalized_velocities)}
        if points != {message.count} or coordinates != {2 * message.count}:
            self.get_logger().warning(
                f"{message.count} tracks with {len(message.normalized_keypoints) / 2:g} normalized keypoints are left "
                "out; expected as many: does the front-end get camera_info?",
                throttle_duration_sec=_LOG_PERIOD_S,
            )
            return
        self._publisher.publish(self._encode.convert(message))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        check_ros_arguments(arguments)
        readable = [readable_name(argument) for argument in arguments]
        _parser().parse_args(remove_ros_args(["vins", *readable])[1:])
        with readable_start():
            rclpy.init(args=readable, signal_handler_options=SignalHandlerOptions.NO)
        with OrderlyEnd() as end:
            with readable_start():
                node = VinsAdapter()
            end.owns(node)
            with suppress(ExternalShutdownException):
                end.spin(node, GuardedExecutor(CallbackGuard(node)))
            # Left to the interpreter's end, it may wait for ever for the middleware's threads.
            node.destroy_node()
    except FeatureFrontendError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="vins", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )


if __name__ == "__main__":
    raise SystemExit(main())
