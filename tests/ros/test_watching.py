"""Monitoring of the real node: its health, its calibration state, and a picture on demand."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from feature_frontend_msgs.msg import Features, FrameStatus
from rcl_interfaces.msg import Log
from sensor_msgs.msg import CameraInfo, Image

from feature_frontend.ros.input.image_conversion import image_to_array
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_to_ns
from tests.ros.harness import NO_CALIBRATION, Client, RunningNode, wait_until
from tests.ros.marker_reader import draw_marker

_FRAME_NS = 100_000_000
_ANNOTATIONS = "/front/frontend/annotations"
Uint8Array = npt.NDArray[np.uint8]


@pytest.fixture
def client(domain_id: int) -> Iterator[Client]:
    """Connected to a node in a namespace that processes all frames with the network that comes with the package."""
    parameters = (
        "extractor:=silk-vggnp-mu",
        "queue_policy:=every_frame",
        "image_qos:=reliable",
        "max_num_keypoints:=300",
        "resize_height:=240",
    )
    topics = [f"{name}:=/{name}" for name in ("image", "camera_info", "features", "matches", "tracks", "status")]
    renamed = [part for topic in topics for part in ("-r", topic)]
    with (
        RunningNode(domain_id, *parameters, arguments=("-r", "__ns:=/front", *renamed)),
        Client(domain_id) as connected,
    ):
        connected.wait_for_node()
        yield connected


def _listen(client: Client, kind: type, topic: str) -> list:
    client.received[topic] = []
    client.node.create_subscription(kind, topic, client.received[topic].append, qos_profile("reliable", 10))
    wait_until(lambda: client.node.count_publishers(topic) > 0, f"a publisher of {topic}")
    return client.received[topic]


def _values(status: DiagnosticStatus) -> dict[str, str]:
    return {entry.key: entry.value for entry in status.values}


@pytest.mark.slow
def test_diagnostics_say_how_the_node_is_doing(client: Client, photographs: list[Uint8Array]) -> None:
    arrays: list[DiagnosticArray] = _listen(client, DiagnosticArray, "/diagnostics")
    client.wait_for("/diagnostics", 1)
    (before,) = arrays[0].status
    assert (before.name, before.level) == ("front/frontend: frontend", DiagnosticStatus.OK)
    assert before.message == "waiting for images"
    assert before.hardware_id

    for index in range(12):
        client.send_pixels(photographs[index % 3], (index + 1) * _FRAME_NS)
    client.wait_for("status", 12)
    seen = len(arrays)
    client.wait_for("/diagnostics", seen + 2)
    (running,) = arrays[-1].status
    values = _values(running)
    assert running.level == DiagnosticStatus.OK, running
    assert "300 keypoints" in running.message
    assert (values["Images processed"], values["Images dropped"], values["Images refused"]) == ("12", "0", "0")
    assert values["Images received since start"] == "12"
    assert values["Keypoints (median)"] == "300.0"
    assert float(values["Matches (median)"]) > 50
    assert values["Inlier ratio (median)"] == "unknown"
    assert (
        0 < float(values["Latency p50 (ms)"]) <= float(values["Latency p95 (ms)"]) <= float(values["Latency p99 (ms)"])
    )
    assert float(values["Input rate (Hz)"]) >= float(values["Output rate (Hz)"]) > 0
    assert values["Model"].startswith("silk-vggnp-mu@")
    assert (values["Device"], values["Execution"], values["Precision"]) == ("cpu", "uncompiled", "float32")
    assert values["Calibration"] == "no camera_info has arrived"
    stamps = [array.header.stamp.sec + array.header.stamp.nanosec / 1e9 for array in arrays]
    assert np.diff(stamps) == pytest.approx(1.0, abs=0.5)

    # As many again that cannot be used, and more: the level follows.
    for index in range(12, 30):
        client.send_pixels(np.zeros((1, 1), np.uint8), (index + 1) * _FRAME_NS)
    client.wait_for("status", 30)
    wait_until(lambda: arrays[-1].status[0].level == DiagnosticStatus.ERROR, "the level ERROR")
    assert "18 of 30 images refused: image is 1x1 px" in arrays[-1].status[0].message
    wait_until(lambda: arrays[-1].status[0].level == DiagnosticStatus.STALE, "the level STALE")
    assert "no image for" in arrays[-1].status[0].message


def test_the_state_of_calibration_is_in_status_when_it_changes(client: Client, photographs: list[Uint8Array]) -> None:
    stamps = iter(range(1, 1000))

    def frame() -> tuple[FrameStatus, Features]:
        count = len(client.received["status"]) + 1
        client.send_pixels(photographs[0], next(stamps) * _FRAME_NS)
        return client.wait_for("status", count)[-1], client.wait_for("features", count)[-1]

    def frames_until(reason: str) -> Features:
        # The topics are not ordered against each other: the calibration is in force from some early frame on.
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            status, features = frame()
            assert status.state in {FrameStatus.OK, FrameStatus.FIRST}
            if reason in status.reason:
                return features
        raise AssertionError(reason)

    status, features = frame()
    assert status.state == FrameStatus.FIRST
    assert status.reason == NO_CALIBRATION
    assert len(features.normalized_keypoints) == 0
    assert frame()[0].reason == ""

    info = CameraInfo(height=480, width=640, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0]
    client.send_camera_info(info)
    features = frames_until("camera_info is in use")
    keypoints, normalized = (
        np.frombuffer(values, np.float32).reshape(-1, 2)
        for values in (features.keypoints, features.normalized_keypoints)
    )
    np.testing.assert_allclose(normalized, (keypoints - [320, 240]) / 500, atol=1e-5)

    info.k[0] = float("nan")
    client.send_camera_info(info)
    assert len(frames_until("camera_info is not used: camera_matrix").normalized_keypoints) == 0
    info.k[0], info.binning_x = 500.0, 2
    client.send_camera_info(info)
    assert len(frames_until("the calibration is for 320x480 px").normalized_keypoints) == 0
    info.width = 1280
    client.send_camera_info(info)
    features = frames_until("camera_info is in use")
    keypoints, normalized = (
        np.frombuffer(values, np.float32).reshape(-1, 2)
        for values in (features.keypoints, features.normalized_keypoints)
    )
    np.testing.assert_allclose(normalized, (keypoints * [2, 1] + [0.5, 0] - [320, 240]) / 500, atol=1e-5)


def test_a_picture_is_drawn_while_somebody_looks(client: Client, photographs: list[Uint8Array]) -> None:
    for count in (1, 2):  # once the second has its status, the node is done with the first
        client.send_pixels(photographs[0], count * _FRAME_NS)
        client.wait_for("status", count)
    pictures: list[Image] = _listen(client, Image, "/front/debug_image")
    markers: list[Any] = []
    if importlib.util.find_spec("visualization_msgs") is not None:
        from visualization_msgs.msg import ImageMarker

        markers = _listen(client, ImageMarker, _ANNOTATIONS)
    while not pictures or (_ANNOTATIONS in client.received and not markers):  # publishers find their subscribers late
        count += 1
        client.send_pixels(photographs[count % 3], count * _FRAME_NS)
        client.wait_for("status", count)
        time.sleep(0.1)
    shown_ns = [stamp_to_ns(message.header.stamp) for message in (*pictures, *markers)]
    assert min(shown_ns) > _FRAME_NS, "of an image before anybody looked, there is nothing to see"
    picture = pictures[-1]
    assert picture.encoding == "rgb8"
    assert picture.header.frame_id == "camera"
    stamp_ns = stamp_to_ns(picture.header.stamp)
    (features,) = [f for f in client.received["features"] if stamp_to_ns(f.header.stamp) == stamp_ns]
    pixels = image_to_array(picture).astype(np.int16)
    assert pixels.shape == (480, 640, 3)
    keypoints = np.frombuffer(features.keypoints, np.float32).reshape(-1, 2).round().astype(int)
    keypoints = keypoints[keypoints[:, 1] < 460]  # above the line of text
    colour = np.ptp(pixels, axis=2)
    assert np.median(colour[keypoints[:, 1], keypoints[:, 0]]) > 100
    assert np.median(colour) < 60

    if _ANNOTATIONS not in client.received:
        pytest.skip("the annotations need the ROS package visualization_msgs")
    marker = markers[-1]
    assert marker.header.frame_id == "camera"
    stamp_ns = stamp_to_ns(marker.header.stamp)
    tracks = client.wait_for("tracks", count)
    (shown,) = [message for message in tracks if stamp_to_ns(message.header.stamp) == stamp_ns]
    blank = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_marker(marker, blank).max(axis=2)
    keypoints = np.frombuffer(shown.keypoints, np.float32).reshape(-1, 2).round().astype(int)
    assert len(keypoints) > 50
    assert drawn[keypoints[:, 1], keypoints[:, 0]].min() > 60, "each track is marked where it is"


def test_a_simulation_that_stands_still_does_not_silence_the_node(
    domain_id: int, photographs: list[Uint8Array]
) -> None:
    parameters = ("use_sim_time:=true", "extractor:=silk-vggnp-mu", "resize_height:=120")
    with RunningNode(domain_id, *parameters), Client(domain_id) as client:
        logged: list[Log] = _listen(client, Log, "/rosout")
        arrays: list[DiagnosticArray] = _listen(client, DiagnosticArray, "/diagnostics")
        client.wait_for_node()
        wait_until(lambda: any(log.msg.startswith("no image yet for ") for log in logged), "the warning of silence")
        seen = len(arrays)
        for stamp_s in (1, 2):
            client.send_pixels(photographs[0], stamp_s * 1_000_000_000)
            assert client.wait_for("status", stamp_s)[-1].state in {FrameStatus.FIRST, FrameStatus.OK}
        client.wait_for("/diagnostics", seen + 2)
        assert (arrays[-1].header.stamp.sec, arrays[-1].status[0].level) == (0, DiagnosticStatus.OK)
