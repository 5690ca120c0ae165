"""Raw and compressed images: the subscribed topics, and the same features from both."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import rclpy
from feature_frontend_msgs.msg import Features, FrameStatus
from rclpy.context import Context
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

from benchmarks.spinning_node import SpinningNode
from feature_frontend.ros.guarded_node import GuardedNode
from feature_frontend.ros.input.image_subscription import pixels_of, subscribe_to_images, why_silent
from feature_frontend.ros.qos import compressed_topic, qos_profile
from feature_frontend.settings import Settings
from tests.ros.harness import Client, RunningNode, wait_until

Uint8Array = npt.NDArray[np.uint8]


@pytest.mark.parametrize(
    ("transport", "rule", "namespace", "expected"),
    [
        ("raw", "", "/", "/image"),
        ("raw", "image:=/camera/image_raw", "/", "/camera/image_raw"),
        ("compressed", "", "/", "/image/compressed"),
        ("compressed", "", "/front", "/front/image/compressed"),
        ("compressed", "image:=/camera/image_raw", "/front", "/camera/image_raw/compressed"),
        ("compressed", "image:=left", "/front", "/front/left/compressed"),
        # image_transport before its version 6 did not resolve the base topic; its users remap what it made of it.
        ("compressed", "image/compressed:=/camera/image_raw/compressed", "/", "/camera/image_raw/compressed"),
        ("compressed", "image:=/camera/image_raw/compressed", "/", "/camera/image_raw/compressed"),
    ],
)
def test_topics_are_those_of_image_transport(
    transport: str, rule: str, namespace: str, expected: str, domain_id: int
) -> None:
    context = Context()
    rules = ["-r", rule] if rule else []
    arguments = ["--ros-args", "-r", f"__ns:={namespace}", *rules]
    rclpy.init(args=arguments, context=context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = GuardedNode("frontend", context=context)
        subscription = subscribe_to_images(node, transport, lambda _: None, qos_profile("sensor_data", 1))
        assert subscription.topic_name == expected
        node.destroy_node()
    finally:
        context.try_shutdown()
    # A node that stays answers nobody, and `service_is_ready` is true of its services.
    with SpinningNode("witness", domain_id) as witness:
        witness.start()
        nodes = witness.node.get_node_names_and_namespaces
        wait_until(lambda: nodes() == [("witness", "/")], "the end of the node")


def test_a_compressed_topic_is_not_compressed_twice() -> None:
    assert compressed_topic("/camera/image_raw") == "/camera/image_raw/compressed"
    assert compressed_topic("/camera/image_raw/compressed") == "/camera/image_raw/compressed"


def test_why_no_image_comes(domain_id: int) -> None:
    with SpinningNode("camera", domain_id) as camera, SpinningNode("frontend", domain_id) as frontend:
        camera.start()
        frontend.start()
        idle = "nobody publishes /image; start the camera, or remap it to the camera's topic"
        assert why_silent(frontend.node, "/image", "sensor_data") == idle
        best_effort = [camera.node.create_publisher(Image, "image", qos_profile("sensor_data", 1)) for _ in range(2)]
        wait_until(lambda: frontend.node.count_publishers("/image") == 2, "the publishers")
        seen = "/image has 2 best effort publishers"
        mismatch = f"{seen}, which image_qos reliable does not match; set image_qos to sensor_data"
        assert why_silent(frontend.node, "/image", "reliable") == mismatch
        paused = "is the camera paused? `doctor` looks at topic, QoS and images"
        assert why_silent(frontend.node, "/image", "sensor_data") == f"{seen}; {paused}"
        camera.node.destroy_publisher(best_effort.pop())
        camera.node.create_publisher(Image, "image", qos_profile("reliable", 1))
        mixed = "/image has 1 best effort publisher, 1 reliable publisher"
        wait_until(lambda: "1 reliable" in why_silent(frontend.node, "/image", "reliable"), "the other publisher")
        wait_until(lambda: frontend.node.count_publishers("/image") == 2, "the end of the other")
        assert why_silent(frontend.node, "/image", "reliable") == f"{mixed}; {paused}"


def test_the_parameters_scale_deep_images() -> None:
    message = Image(height=1, width=3, encoding="16UC1", step=6)
    message.data = np.array([1000, 2000, 3000], "<u2").tobytes()
    fixed = Settings(intensity_range="fixed", intensity_low=1000.0, intensity_high=3040.0)
    assert pixels_of(message, fixed).tolist() == [[0, 125, 250]]
    assert pixels_of(message, Settings(intensity_range="full")).tolist() == [[4, 8, 12]]


def test_compressed_images_give_the_features_of_raw_ones(domain_id: int, photographs: list[Uint8Array]) -> None:
    info = CameraInfo(height=480, width=640, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [500.0, 0.0, 320.0, 0.0, 400.0, 240.0, 0.0, 0.0, 1.0]
    features: dict[str, list[Features]] = {}
    for transport in ("raw", "compressed"):
        parameters = ("extractor:=silk-vggnp-mu", "queue_policy:=every_frame", "image_qos:=reliable")
        remapping = ("-r", "image:=/camera/image_raw")
        with (
            RunningNode(domain_id, *parameters, f"image_transport:={transport}", arguments=remapping),
            Client(domain_id, transport, "/camera/image_raw") as client,
        ):
            client.wait_for_node()
            client.send_camera_info(info)
            for index, pixels in enumerate((photographs[0], photographs[1])):
                client.send_pixels(pixels, index + 1)
                statuses: list[FrameStatus] = client.wait_for("status", index + 1)
            assert [status.state for status in statuses] == [FrameStatus.FIRST, FrameStatus.OK]
            features[transport] = client.wait_for("features", 2)
    for raw, compressed in zip(features["raw"], features["compressed"], strict=True):
        assert (compressed.height, compressed.width, compressed.count) == (480, 640, raw.count)
        assert compressed.header.frame_id == "camera"
        np.testing.assert_allclose(compressed.keypoints, raw.keypoints, atol=1e-4)
    # The calibration, which a compressed message brings no size for, is in force from the second image at the latest.
    assert len(features["compressed"][1].normalized_keypoints) == 2 * features["compressed"][1].count
