"""A camera_info sent once before the node started, and continuous ones: each is received."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs feature_frontend_msgs, built by make setup")

import numpy as np
import rclpy
from ament_index_python.packages import get_package_share_directory
from rclpy.qos import DurabilityPolicy
from sensor_msgs.msg import CameraInfo

from benchmarks.spinning_node import SpinningNode
from feature_frontend.camera.camera_info_history import CalibrationWatch
from feature_frontend.ros.input.camera_info_topic import CameraInfoTopic
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.tools.common.bag_writer import BagWriter, typestore_with
from feature_frontend.tools.record import Recorder
from tests.ros.harness import Client, node_in_this_process, wait_until

Uint8Array = np.ndarray[Any, np.dtype[np.uint8]]
_TOPIC = "camera_info"
_FRAME_NS = 100_000_000


def _info(stamp_ns: int, focal_px: float = 100.0) -> CameraInfo:
    info = CameraInfo(width=160, height=120)
    info.header.stamp = stamp_from_ns(stamp_ns)
    info.k = [focal_px, 0.0, 80.0, 0.0, focal_px, 60.0, 0.0, 0.0, 1.0]
    return info


@pytest.fixture
def camera(domain_id: int) -> Iterator[SpinningNode]:
    with SpinningNode("camera", domain_id) as camera:
        camera.start()
        yield camera


def _durabilities(node: Any) -> set[DurabilityPolicy]:
    return {end.qos_profile.durability for end in node.get_subscriptions_info_by_topic(f"/{_TOPIC}")}


@pytest.fixture
def client(domain_id: int, camera: SpinningNode) -> Iterator[Client]:
    """Beside a front-end in this process that has begun after a latched publisher has sent its only message."""
    latched = camera.node.create_publisher(CameraInfo, _TOPIC, qos_profile("transient_local", 1))
    latched.publish(_info(0))
    given = [part for name in ("queue_policy:=every_frame", "compile:=false") for part in ("-p", name)]
    rclpy.init(args=["--ros-args", *given], domain_id=domain_id)
    try:
        with node_in_this_process(), Client(domain_id) as client:
            client.wait_for_node()
            yield client
    finally:
        rclpy.shutdown()


def test_a_node_gets_what_was_latched_before_it(
    client: Client, photographs: list[Uint8Array], capfd: pytest.CaptureFixture[str]
) -> None:
    pixels = np.ascontiguousarray(photographs[0][:120, :160])
    sent = 0

    def focal_px() -> float:
        nonlocal sent
        sent += 1
        client.send_pixels(pixels, sent * _FRAME_NS)
        return float(client.wait_for("status", sent)[-1].fx)

    wait_until(lambda: focal_px() == 100, "the latched calibration to be in use")
    features = client.wait_for("features", sent)[-1]
    assert len(features.normalized_keypoints) == 2 * features.count > 0
    # The client's own publisher is volatile: what it sends comes too, and the node says nothing of it.
    client.send_camera_info(_info(sent * _FRAME_NS, 120.0))
    wait_until(lambda: focal_px() == 120, "the other publisher's calibration to be in use")
    logged = capfd.readouterr().err.splitlines()
    assert not [line for line in logged if "incompatible QoS" in line and "[frontend]" in line]


@pytest.mark.parametrize("qos", ["sensor_data", "reliable", "transient_local"])
def test_every_message_of_every_kind_of_publisher_comes(
    camera: SpinningNode, domain_id: int, capfd: pytest.CaptureFixture[str], qos: str
) -> None:
    watch, firsts = CalibrationWatch(), []

    def take(message: CameraInfo, is_second: bool) -> None:
        watch.take(message, again=is_second)
        if not is_second:
            firsts.append(message.header.stamp.nanosec)

    def used() -> float | None:
        calibration, _ = watch.at(1000, 0)
        return None if calibration is None else calibration.camera_matrix[0]

    def publish(kind: str) -> Any:
        return camera.node.create_publisher(CameraInfo, _TOPIC, qos_profile(kind, 5))

    latched = publish("transient_local")
    latched.publish(_info(5, 100.0))
    with SpinningNode("listener", domain_id) as listener:
        topic = CameraInfoTopic(listener.node, _TOPIC, take, qos, 5)
        listener.start()
        wait_until(lambda: used() == 100, "what was latched")
        assert firsts == []
        wait_until(lambda: latched.get_subscription_count() == 2, "both subscriptions")
        for stamp_ns in range(6, 16):
            latched.publish(_info(stamp_ns, 100.0 + stamp_ns))
            wait_until(lambda at=stamp_ns: firsts[-1:] == [at] and used() == 100.0 + at, "what it sends later")
        camera.node.destroy_publisher(latched)
        # No publisher is left that has sent anything before: a volatile one does not see a request that it cannot meet.
        wait_until(lambda: _durabilities(camera.node) == {DurabilityPolicy.VOLATILE}, "the end of the second one")
        volatile = publish("reliable" if qos == "transient_local" else qos)
        wait_until(lambda: volatile.get_subscription_count() == 1, "the first subscription")
        volatile.publish(_info(20, 500.0))
        wait_until(lambda: used() == 500, "what a volatile publisher sends")
        assert _durabilities(camera.node) == {DurabilityPolicy.VOLATILE}
        # A driver that restarts and latches before it is heard.
        again = publish("transient_local")
        again.publish(_info(30, 600.0))
        wait_until(lambda: used() == 600, "what another one has latched")
        assert watch.get_state().runs.runs == (0, 0)
        topic.close()
        wait_until(lambda: _durabilities(camera.node) == set(), "the end of the subscriptions")
    assert "incompatible QoS" not in capfd.readouterr().err


def test_a_recorder_writes_what_was_latched_and_each_message_once(
    camera: SpinningNode, domain_id: int, tmp_path: Path
) -> None:
    latched = camera.node.create_publisher(CameraInfo, _TOPIC, qos_profile("transient_local", 5))
    latched.publish(_info(1))
    typestore = typestore_with({"sensor_msgs/msg/CameraInfo"}, get_package_share_directory)
    with SpinningNode("recorder", domain_id) as node, BagWriter(tmp_path / "bag", "mcap", typestore) as bag:
        recorder = Recorder(node.node, bag, [_TOPIC], "reliable", True)
        node.start()
        wait_until(lambda: recorder.counts == {_TOPIC: 1}, "what was latched")
        wait_until(lambda: latched.get_subscription_count() == 2, "both subscriptions")
        for stamp_ns in (2, 2, 3, 4):
            latched.publish(_info(stamp_ns))
        wait_until(lambda: recorder.counts == {_TOPIC: 5}, "the others")
        volatile = camera.node.create_publisher(CameraInfo, _TOPIC, qos_profile("reliable", 5))
        wait_until(lambda: volatile.get_subscription_count() == 1, "the first subscription")
        volatile.publish(_info(5))
        wait_until(lambda: recorder.counts[_TOPIC] >= 6, "the last one")
        assert recorder.counts == {_TOPIC: 6}
