"""The epipolar check in the real node: its messages with the check off, on, and with a calibration."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from sensor_msgs.msg import CameraInfo

from feature_frontend.geometry.epipolar_check import check_matches
from tests.ros.harness import Client, RunningNode
from tests.ros.remote import Remote

_FRAME_NS = 100_000_000
_FOCAL_PX = 525.0


def _points(values: object) -> npt.NDArray[np.float32]:
    return np.frombuffer(values, np.float32).reshape(-1, 2)  # type: ignore[call-overload]


def test_matches_and_status_say_what_the_check_says(domain_id: int, photographs: list[npt.NDArray[np.uint8]]) -> None:
    info = CameraInfo(height=480, width=640, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [_FOCAL_PX, 0.0, 319.5, 0.0, _FOCAL_PX, 239.5, 0.0, 0.0, 1.0]
    parameters = ("extractor:=silk-vggnp-mu", "queue_policy:=every_frame", "image_qos:=reliable")
    with RunningNode(domain_id, *parameters) as running, Client(domain_id) as client:
        client.wait_for_node()
        remote = Remote(client.node)
        client.send_pixels(photographs[0], _FRAME_NS)
        client.send_pixels(photographs[1], 2 * _FRAME_NS)
        client.wait_for("status", 2)
        assert remote.set(epipolar_check=True) == [(True, "")]
        client.send_pixels(photographs[2], 3 * _FRAME_NS)
        client.wait_for("status", 3)
        client.send_camera_info(info)
        for index in range(3, 6):
            client.send_pixels(photographs[index % 3], (index + 1) * _FRAME_NS)
            client.wait_for("status", index + 1)
        matches, features = client.wait_for("matches", 6), client.wait_for("features", 6)
        statuses = client.wait_for("status", 6)
        code, _, output = running.interrupt()

    assert code == 0, output
    _, off, uncalibrated, *_, calibrated = matches
    assert len(off.inlier) == 0
    assert np.isnan([statuses[0].inlier_ratio, statuses[1].inlier_ratio]).all()

    expected = check_matches(_points(uncalibrated.keypoints0), _points(uncalibrated.keypoints1)).inlier
    np.testing.assert_array_equal(np.frombuffer(uncalibrated.inlier, np.uint8), expected)
    assert statuses[2].inlier_ratio == pytest.approx(expected.mean())
    assert 0.2 < expected.mean() < 1

    normalized0, normalized1 = (
        _points(message.normalized_keypoints)[np.frombuffer(rows, np.uint32)]
        for message, rows in ((features[4], calibrated.indices0), (features[5], calibrated.indices1))
    )
    pixels = _points(calibrated.keypoints0), _points(calibrated.keypoints1)
    expected = check_matches(*pixels, normalized0, normalized1, _FOCAL_PX).inlier
    np.testing.assert_array_equal(np.frombuffer(calibrated.inlier, np.uint8), expected)
    assert statuses[5].inlier_ratio == pytest.approx(expected.mean())
    assert 0.2 < expected.mean() < 1
