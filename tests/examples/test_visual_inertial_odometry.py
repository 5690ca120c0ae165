"""The node of `examples/visual_inertial_odometry`, given messages by hand."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend_lab.odometry.views import TrackedView
from feature_frontend_lab.rendering.flights import Flight, flight
from tests.conftest import REPOSITORY
from tests.odometry.simulated import simulated_views

rclpy = pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
pytest.importorskip("nav_msgs", reason="needs nav_msgs (ROS 2)")
pytest.importorskip("gtsam", reason="needs gtsam, which the extra odometry installs")

FloatArray = npt.NDArray[np.float64]

_FOCAL = 400.0


@pytest.fixture(scope="module")
def flown() -> Flight:
    return flight("hall", 0)


@pytest.fixture
def node(
    flown: Flight, domain_id: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Any]:
    """With the parameters that a test gives, besides the camera's pose."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "examples" / "visual_inertial_odometry"))
    monkeypatch.delitem(sys.modules, "node", raising=False)
    module = importlib.import_module("node")
    numbers = ", ".join(map(repr, flown.imu.body_from_camera.ravel().tolist()))
    given = [f"body_from_camera:=[{numbers}]", *getattr(request, "param", [])]
    rclpy.init(args=["--ros-args", *(word for one in given for word in ("-p", one))], domain_id=domain_id)
    made = module.VisualInertialOdometryNode()
    try:
        yield made
    finally:
        made.destroy_node()
        rclpy.shutdown()
        sys.modules.pop("node", None)


def _imu_messages(flown: Flight, begin_ns: int, end_ns: int) -> Iterator[Any]:
    from sensor_msgs.msg import Imu

    imu = flown.imu
    for row in np.flatnonzero((imu.stamps_ns >= begin_ns) & (imu.stamps_ns <= end_ns)).tolist():
        message = Imu()
        message.header.frame_id = "imu_link"
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(int(imu.stamps_ns[row]), 1_000_000_000)
        for name, values in (
            ("angular_velocity", imu.angular_velocity),
            ("linear_acceleration", imu.linear_acceleration),
        ):
            for axis, value in zip("xyz", values[row].tolist(), strict=True):
                setattr(getattr(message, name), axis, value)
        yield message


def _tracks(view: TrackedView, resets: int = 0) -> Any:
    from feature_frontend_msgs.msg import Tracks

    message = Tracks()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(view.stamp_ns, 1_000_000_000)
    message.run_id, message.resets = 1, resets
    message.ids = view.ids.astype(np.uint64)
    message.keypoints = (view.rays * _FOCAL + 300).astype(np.float32).ravel()
    message.normalized_keypoints = view.rays.astype(np.float32).ravel()
    return message


def test_poses_come_once_the_imu_has_reached_the_image(node: Any, flown: Flight) -> None:
    views = simulated_views(flown, range(16))
    published: list[Any] = []
    node._odometry_publisher.publish = published.append
    for view in views:
        node._take_tracks(_tracks(view))
    assert not published
    for message in _imu_messages(flown, views[0].stamp_ns - 10_000_000, views[-1].stamp_ns + 5_000_000):
        node._take_imu(message)
    assert len(published) == 16 - 8  # at rest, half a second is enough
    last = published[-1]
    assert (last.header.frame_id, last.child_frame_id) == ("odom", "imu_link")
    assert last.header.stamp.sec * 1_000_000_000 + last.header.stamp.nanosec == views[-1].stamp_ns
    assert abs(last.twist.twist.angular.z) < 0.05
    assert len(node._path.poses) == len(published)


def test_tf_has_the_poses_of_the_path(node: Any, flown: Flight) -> None:
    messages = pytest.importorskip("tf2_msgs.msg", reason="needs the ROS package tf2_msgs, which no wheel brings")
    received: list[Any] = []
    listener = rclpy.create_node("listener")
    listener.create_subscription(messages.TFMessage, "/tf", received.append, 100)
    end_s = time.monotonic() + 30
    try:
        while node._tf_publisher.get_subscription_count() < 1 and time.monotonic() < end_s:
            rclpy.spin_once(listener, timeout_sec=0.1)
        views = simulated_views(flown, range(16))
        for view in views:
            node._take_tracks(_tracks(view))
        for message in _imu_messages(flown, views[0].stamp_ns - 10_000_000, views[-1].stamp_ns + 5_000_000):
            node._take_imu(message)
        path = node._path.poses
        while len(received) < len(path) and time.monotonic() < end_s:
            rclpy.spin_once(listener, timeout_sec=0.1)
    finally:
        listener.destroy_node()
    assert len(received) == len(path) > 0
    for pose, (transform,) in zip(path, (message.transforms for message in received), strict=True):
        assert transform.header == pose.header
        assert transform.child_frame_id == "imu_link"
        assert transform.transform.rotation == pose.pose.orientation
        place, moved = pose.pose.position, transform.transform.translation
        assert (place.x, place.y, place.z) == (moved.x, moved.y, moved.z)


def test_tf_is_the_body_in_odom_at_the_time_of_the_image(
    node: Any, flown: Flight, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the message, so that it also runs where no tf2_msgs is."""
    published: list[Any] = []
    monkeypatch.setattr(sys.modules["node"], "TFMessage", SimpleNamespace)
    node._tf_publisher = SimpleNamespace(publish=published.append)
    views = simulated_views(flown, range(12))
    for view in views:
        node._take_tracks(_tracks(view))
    for message in _imu_messages(flown, views[0].stamp_ns - 10_000_000, views[-1].stamp_ns + 5_000_000):
        node._take_imu(message)
    (transform,) = published[-1].transforms
    pose = node._path.poses[-1].pose
    assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "imu_link")
    assert transform.header.stamp == _tracks(views[-1]).header.stamp
    assert transform.transform.rotation == pose.orientation
    assert [getattr(transform.transform.translation, axis) for axis in "xyz"] == [
        getattr(pose.position, axis) for axis in "xyz"
    ]


@pytest.mark.parametrize("node", [["publish_tf:=false"]], indirect=True)
def test_tf_can_be_left_to_others(capfd: pytest.CaptureFixture[str], node: Any) -> None:
    assert "/tf" not in {name for name, _ in node.get_publisher_names_and_types_by_node(node.get_name(), "/")}
    assert "tf2_msgs" not in capfd.readouterr().err


def test_while_there_is_no_pose_the_node_says_why(node: Any, flown: Flight, capfd: pytest.CaptureFixture[str]) -> None:
    views = simulated_views(flown, range(100, 140))
    for view in views[:25]:
        node._take_tracks(_tracks(view))
    assert "wait for the IMU: no measurement has arrived" in capfd.readouterr().err
    for message in _imu_messages(flown, views[0].stamp_ns - 10_000_000, views[24].stamp_ns + 5_000_000):
        message.linear_acceleration.x = message.linear_acceleration.y = message.linear_acceleration.z = 0.5
        node._take_imu(message)
    assert "no start yet: the accelerometer measures 0.866" in capfd.readouterr().err


def test_the_imu_without_images_takes_no_more_and_more_memory(node: Any, flown: Flight) -> None:
    (message,) = list(_imu_messages(flown, flown.stamps_ns[0], flown.stamps_ns[0] + 4_000_000))[:1]
    for second in range(200):
        message.header.stamp.sec = second + 1
        node._take_imu(message)
    assert len(node._smoother.imu.samples(0, 2**62)) < 70


def test_a_second_without_images_and_a_reset_do_not_end_the_estimate(node: Any, flown: Flight) -> None:
    rows = [*range(8, 50), *range(70, 78)]
    views = simulated_views(flown, range(8, 78))
    published: list[Any] = []
    node._odometry_publisher.publish = published.append
    begin_ns = views[0].stamp_ns - 10_000_000
    for row in rows:
        view = views[row - 8]
        for message in _imu_messages(flown, begin_ns, view.stamp_ns + 5_000_000):
            node._take_imu(message)
        begin_ns = view.stamp_ns + 5_000_001
        node._take_tracks(_tracks(view, resets=int(row >= 70)))
    stamps = [m.header.stamp.sec * 1_000_000_000 + m.header.stamp.nanosec for m in published]
    assert stamps[-8:] == [int(flown.stamps_ns[row]) for row in rows[-8:]]
    places = [flown.body_poses[int(np.searchsorted(flown.stamps_ns, stamp))][:3, 3] for stamp in stamps]
    found = [[m.pose.pose.position.x, m.pose.pose.position.y, m.pose.pose.position.z] for m in published]
    steps = [np.linalg.norm(np.array(some)[-1] - np.array(some)[-20]) for some in (places, found)]
    assert steps[1] == pytest.approx(steps[0], rel=0.15)


def test_what_is_wrong_is_said_and_survived(node: Any, flown: Flight, capfd: pytest.CaptureFixture[str]) -> None:
    view = simulated_views(flown, range(1))[0]
    bare = _tracks(view)
    bare.normalized_keypoints = np.zeros(0, np.float32)
    node._take_tracks(bare)
    node._take_tracks(_tracks(view))
    node._take_tracks(_tracks(view))
    messages = list(_imu_messages(flown, view.stamp_ns, view.stamp_ns + 5_000_000))
    messages[-1].angular_velocity.x = float("nan")
    for message in messages:
        node._take_imu(message)
    earlier = TrackedView(view.stamp_ns - 5_000_000_000, view.ids, view.rays, view.px)
    node._take_tracks(_tracks(earlier))
    said = capfd.readouterr().err
    for words in (
        "expected as many of each",
        "the second is left out",
        "is impossible",
        "the stamp went back",
    ):
        assert words in said
