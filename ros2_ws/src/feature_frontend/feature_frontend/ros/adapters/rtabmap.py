"""`rtabmap`: joins features, images and depth to the topic `rgbd_image` of RTAB-Map (`rtabmap_msgs/RGBDImage`)."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from feature_frontend_msgs.msg import Features, Tracks
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from feature_frontend.errors import SettingsError
from feature_frontend.ros.adapters.rtabmap_message import (
    depths_of_image,
    depths_of_tracks,
    features_problem,
    fill_rgbd_image,
)
from feature_frontend.ros.adapters.running import run_adapter
from feature_frontend.ros.adapters.stamp_join import StampJoin
from feature_frontend.ros.distribution import apt_package
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_to_ns
from feature_frontend.system.text import shown

__all__ = ["TOPIC", "RtabmapAdapter", "main"]

TOPIC = "rgbd_image"
_DEPTH_IMAGE, _STEREO = "depth_image", "stereo"
_SLOP_NS, _MOST_WAITING, _DEPTH = 10_000_000, 30, 10
_LOG_PERIOD_S, _SUMMARY_PERIOD_S = 5.0, 60.0
_DESCRIPTION = f"""\
Joins `features` to `image`, `camera_info` and `depth` (registered depth image) on `{TOPIC}`, as
rtabmap_msgs/RGBDImage. Parameter points_from: {_DEPTH_IMAGE} (default), or {_STEREO}, which takes `right/image`,
`right/camera_info` and the disparities of `tracks` instead of `depth`. The images must be rectified."""


class RtabmapAdapter(Node):
    """Subscribes to features, images and calibrations; publishes `rgbd_image`.

    Raises:
        SettingsError: rtabmap_msgs is missing, or a parameter has another value than it may have.
    """

    def __init__(self) -> None:
        super().__init__("rtabmap_adapter")
        descriptor = ParameterDescriptor(
            description="where depths come from: depth_image or stereo", dynamic_typing=True, read_only=True
        )
        points_from = self.declare_parameter("points_from", _DEPTH_IMAGE, descriptor).value
        if points_from not in {_DEPTH_IMAGE, _STEREO}:
            raise SettingsError(
                f"parameter points_from is {shown(points_from)}; expected {_DEPTH_IMAGE!r} or {_STEREO!r}"
            )
        self._is_stereo = points_from == _STEREO
        self._other = "right/image" if self._is_stereo else "depth"
        self._types = _message_types()
        self._infos: dict[str, CameraInfo] = {}
        self._received = self._sent = 0
        reliable = qos_profile("reliable", _DEPTH)
        sensor = qos_profile("sensor_data", _DEPTH)
        self._publisher = self.create_publisher(self._types.RGBDImage, TOPIC, reliable)
        topics: list[tuple[str, Any, Any]] = [("features", Features, reliable), ("image", Image, sensor)]
        if self._is_stereo:
            topics.append(("tracks", Tracks, reliable))
        self._join = StampJoin([name for name, _, _ in topics], self._other, _SLOP_NS, _MOST_WAITING)
        for name, kind, qos in (*topics, (self._other, Image, sensor)):
            self.create_subscription(kind, name, partial(self._arrived, name), qos)
        for name in ("camera_info", "right/camera_info")[: 1 + self._is_stereo]:
            self.create_subscription(CameraInfo, name, partial(self._infos.__setitem__, name), sensor)

    def _arrived(self, name: str, message: Features | Tracks | Image) -> None:
        joined = self._join.add(name, stamp_to_ns(message.header.stamp), message)
        if name == "features":
            self._received += 1
            self.get_logger().info(
                f"{self._sent} of {self._received} features are sent; the others have no image of their stamp, no "
                f"{self._other} within {_SLOP_NS / 1e6:g} ms of it, or a warning says why",
                throttle_duration_sec=_SUMMARY_PERIOD_S,
                skip_first=True,
            )
        if joined is not None:
            self._send(**{name.replace("/", "_"): one for name, one in joined.items()})

    def _send(self, features: Features, image: Image, tracks: Tracks | None = None, **others: Image) -> None:
        (other,) = others.values()
        problem = features_problem(features) or self._info_problem()
        depths = np.full(features.count, np.nan, np.float32)
        if tracks is not None:
            depths = depths_of_tracks(tracks, features)
        elif not problem:
            depths, problem = depths_of_image(other, features)
        if problem:
            self.get_logger().warning(problem, throttle_duration_sec=_LOG_PERIOD_S)
            return
        info = self._infos["camera_info"]
        # A registered depth image is seen by the camera itself.
        infos = info, self._infos["right/camera_info"] if self._is_stereo else info
        self._publisher.publish(fill_rgbd_image(self._types, features, depths, (image, other), infos))
        self._sent += 1

    def _info_problem(self) -> str:
        missing = [
            name for name in ("camera_info", "right/camera_info")[: 1 + self._is_stereo] if name not in self._infos
        ]
        return f"nothing is sent: no {' and no '.join(missing)} has arrived" if missing else ""


def _message_types() -> Any:
    try:
        return importlib.import_module("rtabmap_msgs.msg")
    except ImportError as error:
        raise SettingsError(
            f"the adapter for RTAB-Map needs the package rtabmap_msgs, but it cannot be imported ({error}): sudo apt "
            f"install {apt_package('rtabmap_msgs')}"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until Ctrl-C."""
    return run_adapter(_parser(), RtabmapAdapter, argv)


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="rtabmap", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )


if __name__ == "__main__":
    raise SystemExit(main())
