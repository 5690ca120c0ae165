"""KITTI through the real node: the camera's motion from the messages alone, compared with ground truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend.geometry.relative_pose import relative_pose, rotation_error_deg, translation_error_deg
from feature_frontend.ros.stamps import stamp_to_ns
from tests.campaign import Campaign
from tests.ros.harness import Client, RunningNode

_CAMERA_MATRIX = np.array([[718.856, 0.0, 607.1928], [0.0, 718.856, 185.2157], [0.0, 0.0, 1.0]])
# Extractor, precision, and the largest median errors in degrees of rotation and of direction.
_BARS = [
    ("aliked-n16", "float32", 0.1, 2.0),
    ("aliked-n16", "float16", 0.1, 2.0),
    ("aliked-n16", "bfloat16", 0.1, 2.0),
    ("dotlet", "float32", 0.12, 2.6),
    ("silk-vggnp-mu", "float32", 0.12, 3.0),
    ("sift", "float32", 0.12, 3.0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("extractor", "precision", "rotation_bar_deg", "direction_bar_deg"), _BARS)
def test_motion_from_the_messages_alone(
    extractor: str,
    precision: str,
    rotation_bar_deg: float,
    direction_bar_deg: float,
    shared: Path,
    weights_dir: str,
    domain_id: int,
    report_figure: Callable[[str], None],
    campaign: Campaign,
) -> None:
    if precision != "float32" or extractor not in {"aliked-n16", "dotlet"}:
        campaign.only("16 bits, SiLK and SIFT through the node")
    sequence = shared / "data" / "kitti00"
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(sequence.glob("*.png"))]
    stamps_ns = [round(1e9 * float(line)) for line in (sequence / "times.txt").read_text().split()]
    poses = np.loadtxt(sequence / "poses.txt").reshape(-1, 3, 4)

    parameters = (
        f"extractor:={extractor}",
        f"precision:={precision}",
        "queue_policy:=every_frame",
        "image_qos:=reliable",
        f"weights_dir:={weights_dir}",
    )
    with RunningNode(domain_id, *parameters) as running, Client(domain_id) as client:
        client.wait_for_node()
        for image, stamp_ns in zip(images, stamps_ns, strict=True):
            client.send_pixels(image, stamp_ns)
        statuses = client.wait_for("status", len(images))
        features = client.wait_for("features", len(images))
        matches = client.wait_for("matches", len(images))
        code, _, output = running.interrupt()

    assert code == 0, output
    assert len(features) == 20
    _, *matches = matches
    assert len(matches) == 19
    assert [status.state for status in statuses] == [1, *[0] * 19]
    assert [stamp_to_ns(message.header.stamp) for message in features] == stamps_ns

    rotation_errors, direction_errors = [], []
    for index, message in enumerate(matches):
        assert stamp_to_ns(message.stamp0) == stamps_ns[index]
        points0 = np.frombuffer(message.keypoints0, np.float32).reshape(-1, 2).astype(np.float64)
        points1 = np.frombuffer(message.keypoints1, np.float32).reshape(-1, 2).astype(np.float64)
        # With least squares over all pairs: which of them RANSAC happens to draw decides up to 0.02 degrees.
        found = relative_pose(points0, points1, _CAMERA_MATRIX)
        assert found is not None
        rotation0, rotation1 = poses[index, :, :3], poses[index + 1, :, :3]
        rotation_errors.append(rotation_error_deg(found.rotation, rotation1.T @ rotation0))
        true_direction = rotation1.T @ (poses[index, :, 3] - poses[index + 1, :, 3])
        direction_errors.append(translation_error_deg(found.translation, true_direction))
    rotation_error, direction_error = np.median(rotation_errors), np.median(direction_errors)
    report_figure(
        f"KITTI 00 through the node, {extractor}, {precision}, 1000 keypoints: median error "
        f"{rotation_error:.3f} degrees in rotation, {direction_error:.2f} degrees in translation direction"
    )
    assert rotation_error <= rotation_bar_deg
    assert direction_error <= direction_bar_deg
