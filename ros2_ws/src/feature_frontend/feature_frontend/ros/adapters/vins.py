"""`vins`: republishes `tracks` as the feature topic that VINS-Fusion accepts from an external front-end.

`sensor_msgs/PointCloud` with the image's header: points are (x, y, 1) on the normalised plane; the nine channels are
id, camera, u, v (px), velocity of x and y (normalised plane per second), and ground truth gx, gy, gz. The receiver
reads channels 6 to 8 of any message with more than five, so they are always sent, as 0. It treats the clouds as
consecutive images and assigns an id's n-th sighting to the n-th image after its first, whatever the stamps: an id
appears in consecutive clouds only.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from feature_frontend_msgs.msg import Tracks
from geometry_msgs.msg import Point32
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from sensor_msgs.msg import ChannelFloat32, PointCloud

from feature_frontend.errors import SettingsError
from feature_frontend.ros.adapters.running import run_adapter
from feature_frontend.ros.adapters.sticky_choice import Choice, StickyChoice
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_to_ns
from feature_frontend.system.text import shown

__all__ = ["CHANNELS", "TOPIC", "Encoded", "VinsAdapter", "VinsEncoder", "main"]

CHANNELS = ("id_of_point", "camera_id", "u_of_point", "v_of_point", "velocity_x", "velocity_y", "gx", "gy", "gz")
TOPIC = "feature_tracker/feature"
# The defaults of VINS' own front-end (max_cnt, min_dist); its window holds 1000 points.
_MAX_TRACKS, _MIN_AGE, _MIN_DISTANCE_PX = 150, 1, 30.0
_DEPTH = 100
_LOG_PERIOD_S, _SUMMARY_PERIOD_S = 5.0, 60.0
_DESCRIPTION = f"""\
Republishes `tracks` as `{TOPIC}` (sensor_msgs/PointCloud) for VINS-Fusion. The front-end needs camera_info for it.
What is sent stays while it is seen; free places go to the oldest tracks. Parameters: max_tracks ({_MAX_TRACKS});
min_distance_px ({_MIN_DISTANCE_PX:g}), to all others when a track is chosen; min_age ({_MIN_AGE}), in sightings."""


@dataclass(frozen=True)
class Encoded:
    """A cloud with its report.

    Attributes:
        cloud: To publish.
        choice: The tracks in it.
        restart: Why no earlier track continues in it; mostly empty.
    """

    cloud: PointCloud
    choice: Choice
    restart: str


class VinsEncoder:
    """Converts successive `Tracks` messages to point clouds.

    Args:
        choice: Chooses the tracks and their ids.
    """

    def __init__(self, choice: StickyChoice) -> None:
        self._choice = choice
        self._stamp_ns: int | None = None
        self._run = (0, 0)

    def problem(self, message: Tracks) -> str:
        """Why a message cannot be converted; empty if it can."""
        points, coordinates = {len(message.ids), len(message.ages)}, {len(message.keypoints)}
        coordinates |= {len(message.normalized_keypoints), len(message.normalized_velocities)}
        if points != {message.count} or coordinates != {2 * message.count}:
            return (
                f"{message.count} tracks with {len(message.normalized_keypoints) / 2:g} normalized keypoints are left "
                "out; expected as many: does the front-end get camera_info?"
            )
        if len(set(message.ids)) < message.count:
            return "tracks with the same id twice are left out; expected each id once: who publishes these tracks?"
        if stamp_to_ns(message.header.stamp) == self._stamp_ns:
            return "tracks with the stamp of those before are left out; expected another one for each image"
        return ""

    def convert(self, message: Tracks) -> Encoded:
        """Converts a message without a `problem`. Velocities are 0 at age 1 and if unknown."""
        restart = self._restart(message)
        if restart:
            self._choice.restart()
        self._stamp_ns, self._run = stamp_to_ns(message.header.stamp), (message.run_id, message.resets)
        keypoints, rays, velocities = (
            np.frombuffer(field, np.float32).reshape(-1, 2)
            for field in (message.keypoints, message.normalized_keypoints, message.normalized_velocities)
        )
        ids, ages = np.frombuffer(message.ids, np.uint64), np.frombuffer(message.ages, np.uint32)
        choice = self._choice.update(ids, ages, keypoints, rays)
        chosen = choice.rows
        nothing = np.zeros(len(chosen), np.float32)
        columns = (
            choice.ids,
            nothing,
            *keypoints[chosen].T,
            *np.nan_to_num(velocities[chosen], nan=0.0, posinf=0.0, neginf=0.0).T,
            nothing,
            nothing,
            nothing,
        )
        cloud = PointCloud(
            header=message.header,
            points=[Point32(x=float(x), y=float(y), z=1.0) for x, y in rays[chosen]],
            channels=[
                ChannelFloat32(name=name, values=column.astype(np.float32).tolist())
                for name, column in zip(CHANNELS, columns, strict=True)
            ],
        )
        return Encoded(cloud, choice, restart)

    def _restart(self, message: Tracks) -> str:
        """Why no earlier track continues in a message; empty if they may."""
        if self._stamp_ns is None:
            return ""
        back_s = (self._stamp_ns - stamp_to_ns(message.header.stamp)) / 1e9
        if back_s > 0:
            return f"the stamp went back by {back_s:.3f} s: restart VINS-Fusion too (topic vins_restart)"
        run_id, resets = self._run
        if message.run_id != run_id:
            return "the front-end was restarted"
        return "the front-end was reset" if message.resets != resets else ""


class VinsAdapter(Node):
    """Subscribes to `tracks`, publishes `feature_tracker/feature`.

    Raises:
        SettingsError: A parameter has a wrong type or is out of range.
    """

    def __init__(self) -> None:
        super().__init__("vins_adapter")
        self._max_tracks = int(self._declare("max_tracks", _MAX_TRACKS, 1, "maximum number of tracks in a cloud"))
        self._min_age = int(self._declare("min_age", _MIN_AGE, 1, "minimum number of sightings of a track"))
        self._min_distance_px = self._declare(
            "min_distance_px", _MIN_DISTANCE_PX, 0, "minimum distance to other sent tracks when chosen, px"
        )
        self._encoder = VinsEncoder(StickyChoice(self._max_tracks, self._min_age, self._min_distance_px))
        self._publisher = self.create_publisher(PointCloud, TOPIC, qos_profile("reliable", _DEPTH))
        self.create_subscription(Tracks, "tracks", self._take, qos_profile("reliable", _DEPTH))

    def _declare(self, name: str, default: float, least: int, description: str) -> float:
        # Dynamically typed, so that an integer is accepted for a float and we check it; effective at start only.
        descriptor = ParameterDescriptor(description=description, dynamic_typing=True, read_only=True)
        value = self.declare_parameter(name, default, descriptor).value
        kind: type = int if isinstance(default, int) else float
        is_number = isinstance(value, (int, kind)) and not isinstance(value, bool)
        if not is_number or not least <= value < math.inf:
            raise SettingsError(
                f"parameter {name} is {shown(value)}; expected a {'whole ' * (kind is int)}number of {least} or more"
            )
        return float(value)

    def _take(self, message: Tracks) -> None:
        problem = self._encoder.problem(message)
        if problem:
            self.get_logger().warning(problem, throttle_duration_sec=_LOG_PERIOD_S)
            return
        encoded = self._encoder.convert(message)
        if encoded.restart:
            self.get_logger().warning(
                f"{encoded.restart}; all tracks begin under new ids", throttle_duration_sec=_LOG_PERIOD_S
            )
        self._publisher.publish(encoded.cloud)
        self.get_logger().info(self._summary(message.count, encoded.choice), throttle_duration_sec=_SUMMARY_PERIOD_S)

    def _summary(self, count: int, choice: Choice) -> str:
        reasons = (
            (choice.without_ray, "without a ray"),
            (choice.too_young, f"younger than min_age {self._min_age}"),
            (choice.too_close, f"closer than min_distance_px {self._min_distance_px:g} to one that is sent"),
            (choice.too_many, f"beyond max_tracks {self._max_tracks}"),
        )
        left_out = ", ".join(f"{number} {reason}" for number, reason in reasons if number)
        return f"{len(choice.rows)} of {count} tracks are sent; left out: {left_out or 'none'}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until Ctrl-C."""
    return run_adapter(_parser(), VinsAdapter, argv)


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="vins", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )


if __name__ == "__main__":
    raise SystemExit(main())
