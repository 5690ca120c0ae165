"""The adapter for VINS-Fusion: the layout of its feature topic, and the adapter behind the real node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend_msgs.msg import Tracks
from sensor_msgs.msg import CameraInfo, PointCloud
from std_msgs.msg import Header

from feature_frontend.ros.adapters.vins import CHANNELS, TOPIC, VinsEncoder
from feature_frontend.ros.stamps import stamp_from_ns, stamp_to_ns
from tests.ros.harness import Client, RunningNode, wait_until

_FRAME_NS = 100_000_000
_FOCAL_PX = 525.0


def _tracks(stamp_ns: int, rows: list[tuple[int, int, float, float]], run_id: int = 5) -> Tracks:
    """Of (id, age, x, y); the keypoints are the rays by 100, the velocities the rays by 2 a second."""
    message = Tracks(header=Header(stamp=stamp_from_ns(stamp_ns), frame_id="camera"), count=len(rows))
    message.ids, message.ages = [row[0] for row in rows], [row[1] for row in rows]
    message.normalized_keypoints = [value for row in rows for value in row[2:]]
    message.keypoints = [100 * value for value in message.normalized_keypoints]
    message.normalized_velocities = [2 * value if row[1] > 1 else 0.0 for row in rows for value in row[2:]]
    message.run_id = run_id
    return message


def _table(cloud: PointCloud) -> npt.NDArray[np.float64]:
    """(N, 9) of the channels, in their order."""
    assert tuple(channel.name for channel in cloud.channels) == CHANNELS
    assert all(point.z == 1.0 for point in cloud.points)
    return np.array([channel.values for channel in cloud.channels]).T.reshape(-1, 9)


def test_velocities_are_of_the_normalised_plane_and_a_second() -> None:
    encode = VinsEncoder()
    first = encode.convert(_tracks(0, [(7, 1, 0.1, 0.2), (8, 1, 0.0, 0.0)]))
    assert first.header.frame_id == "camera"
    assert not _table(first)[:, 4:].any()
    table = _table(encode.convert(_tracks(_FRAME_NS // 2, [(8, 2, 0.01, -0.02), (9, 1, 0.5, 0.5)])))
    np.testing.assert_allclose(table[0], [8, 0, 1, -2, 0.02, -0.04, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(table[1], [9, 0, 50, 50, 0, 0, 0, 0, 0], atol=1e-6)
    unknown = _tracks(_FRAME_NS, [(8, 3, 0.9, 0.9)])
    unknown.normalized_velocities = [float("nan"), 1.0]
    np.testing.assert_allclose(_table(encode.convert(unknown))[0, 4:6], [0, 1])


def test_a_front_end_that_was_started_anew_continues_no_track() -> None:
    encode = VinsEncoder()
    sent = [([1, 2, 7], 5), ([1, 2], 5), ([1, 2], 6), ([2, 3], 6), ([1], 9), ([1], 5)]
    got = []
    for number, (ids, run_id) in enumerate(sent):
        rows = [(number, 1, 0.1, 0.1) for number in ids]
        got.append(_table(encode.convert(_tracks(number * _FRAME_NS, rows, run_id)))[:, 0].tolist())
    assert got == [[1, 2, 7], [1, 2], [8, 9], [9, 10], [11], [12]]


def test_the_longest_lived_tracks_with_a_ray_are_sent() -> None:
    rows = [(1, 2, 0.1, 0.1), (2, 9, 0.2, 0.2), (3, 5, float("nan"), 0.3), (4, 5, 0.4, 0.4), (5, 1, 0.5, 0.5)]
    assert _table(VinsEncoder().convert(_tracks(0, rows)))[:, 0].tolist() == [2, 4, 1, 5]
    assert _table(VinsEncoder(max_tracks=2).convert(_tracks(0, rows)))[:, 0].tolist() == [2, 4]
    assert _table(VinsEncoder(min_age=2).convert(_tracks(0, rows)))[:, 0].tolist() == [2, 4, 1]
    empty = VinsEncoder().convert(_tracks(0, []))
    assert (len(empty.points), len(empty.channels)) == (0, 9)


def test_ids_stay_whole_numbers_in_float32() -> None:
    ids = [2**24 - 1, 2**24, 2**24 + 1, 2**40 + 3]
    table = _table(VinsEncoder().convert(_tracks(0, [(number, 1, 0.0, 0.0) for number in ids])))
    assert table[:, 0].tolist() == [2**24 - 1, 0, 1, 3]


def test_behind_the_real_node(domain_id: int, photographs: list[npt.NDArray[np.uint8]]) -> None:
    info = CameraInfo(height=480, width=640, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [_FOCAL_PX, 0.0, 319.5, 0.0, _FOCAL_PX, 239.5, 0.0, 0.0, 1.0]
    arguments = [sys.executable, "-m", "feature_frontend", "vins", "--ros-args", "-p", "max_tracks:=80"]
    clouds: dict[int, PointCloud] = {}
    with (
        RunningNode(domain_id, "extractor:=silk-vggnp-mu", "queue_policy:=every_frame", "image_qos:=reliable"),
        Client(domain_id) as client,
    ):
        adapter = subprocess.Popen(arguments, env=os.environ, stderr=subprocess.PIPE, text=True)
        try:
            client.node.create_subscription(
                PointCloud, TOPIC, lambda cloud: clouds.update({stamp_to_ns(cloud.header.stamp): cloud}), 10
            )
            client.wait_for_node()
            wait_until(
                lambda: client.node.count_subscribers("tracks") == 2 and client.node.count_publishers(TOPIC) == 1,
                "the adapter",
            )
            # The first image has no calibration yet: no cloud. The topics are not ordered against each other.
            for number in range(6):
                client.send_pixels(photographs[number % 3], (number + 1) * _FRAME_NS)
                client.wait_for("status", number + 1)
                client.send_camera_info(info)
            wait_until(lambda: 6 * _FRAME_NS in clouds, "the last cloud")
        finally:
            adapter.send_signal(signal.SIGINT)
            _, printed = adapter.communicate(timeout=20)
    assert adapter.returncode == 0, printed
    assert "does the front-end get camera_info?" in printed
    assert _FRAME_NS not in clouds
    by_stamp = {stamp_to_ns(message.header.stamp): message for message in client.received["tracks"]}
    table, tracks = _table(clouds[6 * _FRAME_NS]), by_stamp[6 * _FRAME_NS]
    assert len(table) == 80
    ids = np.frombuffer(tracks.ids, np.uint64)
    rows = [int(np.flatnonzero(ids == number)[0]) for number in table[:, 0].astype(np.uint64)]
    rays = np.array([(point.x, point.y) for point in clouds[6 * _FRAME_NS].points])
    np.testing.assert_allclose(rays, np.frombuffer(tracks.normalized_keypoints, np.float32).reshape(-1, 2)[rows])
    np.testing.assert_allclose(table[:, 2:4], np.frombuffer(tracks.keypoints, np.float32).reshape(-1, 2)[rows])
    # Without distortion the plane is the image by the focal length: so are the velocities.
    velocities = np.frombuffer(tracks.velocities, np.float32).reshape(-1, 2)[rows] / _FOCAL_PX
    assert np.abs(velocities).max() > 0.01
    np.testing.assert_allclose(table[:, 4:6], velocities, atol=2e-5)
