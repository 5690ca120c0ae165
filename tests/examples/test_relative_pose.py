"""Relative poses from `matches` alone: synthetic scenes and KITTI live, with the same results in Python and C++."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from examples.relative_pose.pose import relative_pose
from feature_frontend.geometry.relative_pose import rotation_error_deg, translation_error_deg
from tests.campaign import Campaign
from tests.conftest import REPOSITORY

FloatArray = npt.NDArray[np.float64]
Pose = tuple[FloatArray, FloatArray]
_EXAMPLE = REPOSITORY / "examples" / "relative_pose"
_FOCAL_PX = 700.0
_KITTI_IMAGES = 9


def _scene(seed: int, *, noise_px: float = 0.0, wrong: float = 0.0) -> tuple[dict[str, Any], Pose]:
    """The fields of a `Matches` message of 400 points 4 to 30 m away, and the true motion."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    rotation = cv2.Rodrigues(rng.normal(size=3) * np.radians(3))[0]
    points0 = rng.uniform((-0.8, -0.4, 1), (0.8, 0.4, 1), (400, 3)) * rng.uniform(4, 30, (400, 1))
    points1 = points0 @ rotation.T + direction
    rays0, rays1 = (points[:, :2] / points[:, 2:] for points in (points0, points1))
    rays1 = rays1 + rng.normal(0, noise_px / _FOCAL_PX, rays1.shape)
    is_wrong = rng.random(400) < wrong
    rays1[is_wrong] = rng.uniform((-0.8, -0.4), (0.8, 0.4), (np.count_nonzero(is_wrong), 2))
    fields = {
        "run_id": 5,
        "run_id0": 5,
        "count": 400,
        "normalized_keypoints0": rays0.astype(np.float32).ravel(),
        "normalized_keypoints1": rays1.astype(np.float32).ravel(),
        "keypoints1": (rays1 * _FOCAL_PX + 500).astype(np.float32).ravel(),
        "inlier": np.zeros(0, np.uint8),
    }
    return fields, (rotation, direction)


def _found(fields: dict[str, Any]) -> Pose:
    found = relative_pose(SimpleNamespace(**fields))
    assert found is not None
    return found


def _errors_deg(found: Pose, truth: Pose) -> tuple[float, float]:
    return rotation_error_deg(found[0], truth[0]), translation_error_deg(found[1], truth[1])


@pytest.mark.parametrize("seed", range(5))
def test_the_motion_is_found(seed: int) -> None:
    fields, truth = _scene(seed)
    assert max(_errors_deg(_found(fields), truth)) < 1e-3
    fields, truth = _scene(seed, noise_px=0.5, wrong=0.1)
    rotation_deg, direction_deg = _errors_deg(_found(fields), truth)
    assert rotation_deg < 0.1
    assert direction_deg < 1.0
    # What the epipolar check refuses does not count.
    fields, truth = _scene(seed, wrong=0.7)
    true_rays = _scene(seed)[0]["normalized_keypoints1"]
    is_right = (fields["normalized_keypoints1"] == true_rays).reshape(-1, 2).all(axis=1)
    assert max(_errors_deg(_found({**fields, "inlier": is_right.astype(np.uint8)}), truth)) < 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id0": 0},
        {"normalized_keypoints0": np.zeros(0, np.float32)},
        {"normalized_keypoints1": np.full(800, np.nan, np.float32)},
        {"inlier": np.zeros(400, np.uint8)},
        {"count": 0, **{name: np.zeros(0, np.float32) for name in ("normalized_keypoints0", "normalized_keypoints1")}},
    ],
)
def test_where_nothing_can_be_said_nothing_is(changes: dict[str, Any]) -> None:
    fields, _ = _scene(0)
    assert relative_pose(SimpleNamespace(**{**fields, **changes})) is None


@pytest.fixture(scope="module")
def in_cpp(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[Any]], list[Pose | None]]:
    """Gives poses of messages as the C++ example has them, from a file."""
    pytest.importorskip("feature_frontend_msgs.msg", reason="needs feature_frontend_msgs, built by make setup")
    from rclpy.serialization import serialize_message

    compiler = shutil.which("g++")
    prefixes = [Path(prefix) for prefix in os.environ["AMENT_PREFIX_PATH"].split(":")]
    includes = [folder for prefix in prefixes for folder in ((prefix / "include"), *(prefix / "include").glob("*/"))]
    if compiler is None or not any((folder / "fastcdr").is_dir() for folder in includes):
        pytest.skip("needs g++ and the headers of fastcdr")
    folder = tmp_path_factory.mktemp("relative_pose")
    program, file = folder / "from_file", folder / "matches.bin"
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", str(_EXAMPLE / "cpp" / "from_file.cpp")]
    command += [argument for include in includes for argument in ("-isystem", str(include))]
    command += [argument for p in prefixes for argument in (f"-L{p / 'lib'}", f"-Wl,-rpath-link,{p / 'lib'}")]
    command += ["-lfeature_frontend_msgs__rosidl_typesupport_fastrtps_cpp", "-lfastcdr", "-o", str(program)]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    assert compiled.returncode == 0, compiled.stderr

    def poses(messages: Sequence[Any]) -> list[Pose | None]:
        serialized = [serialize_message(message) for message in messages]
        file.write_bytes(b"".join(struct.pack("=I", len(data)) + data for data in serialized))
        run = subprocess.run([program, file], capture_output=True, text=True, check=True)
        values = [line.split()[1:] for line in run.stdout.splitlines()]
        assert len(values) == len(messages)
        numbers = [None if one == ["-"] else np.array(one, np.float64) for one in values]
        return [None if one is None else (one[:9].reshape(3, 3), one[9:]) for one in numbers]

    return poses


def _check_same(messages: Sequence[Any], in_cpp: Callable[[Sequence[Any]], list[Pose | None]]) -> float:
    """The largest difference between the two languages, degrees."""
    largest = 0.0
    for message, of_cpp in zip(messages, in_cpp(messages), strict=True):
        expected = relative_pose(message)
        assert (of_cpp is None) == (expected is None)
        if of_cpp is not None and expected is not None:
            largest = max(largest, *_errors_deg(of_cpp, expected))
    return largest


def test_cpp_gives_the_same_poses(in_cpp: Callable[[Sequence[Any]], list[Pose | None]]) -> None:
    from feature_frontend_msgs.msg import Matches

    messages = []
    for seed in range(8):
        fields, _ = _scene(seed, noise_px=0.5, wrong=0.1)
        fields["inlier"] = np.random.default_rng(seed).integers(0, 2, 400 * (seed % 2)).astype(np.uint8)
        fields["normalized_keypoints0"][:20] = np.nan
        fields["run_id0"] = 0 if seed == 6 else 5
        messages.append(
            Matches(**{name: getattr(value, "tolist", lambda v=value: v)() for name, value in fields.items()})
        )
    messages[7].normalized_keypoints1 = []
    assert [pose is None for pose in in_cpp(messages)] == [False] * 6 + [True] * 2
    assert _check_same(messages, in_cpp) < 1e-5


@pytest.mark.slow
def test_kitti_live(
    shared: Path,
    domain_id: int,
    in_cpp: Callable[[Sequence[Any]], list[Pose | None]],
    report_figure: Callable[[str], None],
    campaign: Campaign,
) -> None:
    campaign.only("a second example on a drive")
    pytest.importorskip("geometry_msgs", reason="needs geometry_msgs (ROS 2)")
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import CameraInfo

    from tests.ros.harness import Client, RunningNode, wait_until

    folder = shared / "data" / "kitti00"
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.glob("*.png"))[:_KITTI_IMAGES]]
    info = CameraInfo(height=images[0].shape[0], width=images[0].shape[1], distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [718.856, 0.0, 607.1928, 0.0, 718.856, 185.2157, 0.0, 0.0, 1.0]
    options = ("extractor:=silk-vggnp-mu", "queue_policy:=every_frame", "image_qos:=reliable", "epipolar_check:=true")
    received: list[PoseStamped] = []
    with RunningNode(domain_id, *options) as _, Client(domain_id) as client:
        example = subprocess.Popen([sys.executable, str(_EXAMPLE / "node.py")], env=os.environ)
        try:
            client.node.create_subscription(PoseStamped, "relative_pose", received.append, 100)
            client.wait_for_node()
            wait_until(
                lambda: (
                    client.node.count_subscribers("matches") == 2 and client.node.count_publishers("relative_pose") == 1
                ),
                "the example",
            )
            for number, image in enumerate(images):
                client.send_camera_info(info)
                client.send_pixels(image, (number + 1) * 100_000_000)
                client.wait_for("status", number + 1)
            matches = client.wait_for("matches", len(images))
            expected = [relative_pose(message) for message in matches]
            count = sum(pose is not None for pose in expected)
            wait_until(lambda: len(received) >= count, f"{count} poses")
        finally:
            example.send_signal(signal.SIGINT)
            example.wait(20)
    assert example.returncode == 0
    assert [pose.header for pose in received] == [
        message.header for message, pose in zip(matches, expected, strict=True) if pose is not None
    ]
    # The topics are not ordered against each other: the first images may have no calibration.
    assert expected[0] is None
    assert count >= len(images) - 3

    truth = np.loadtxt(folder / "poses.txt").reshape(-1, 3, 4)
    errors, published = [], iter(received)
    for index, pose in enumerate(expected):
        if pose is None:
            continue
        (turn0, at0), (turn1, at1) = ((matrix[:, :3], matrix[:, 3]) for matrix in truth[index - 1 : index + 1])
        errors.append(_errors_deg(pose, (turn1.T @ turn0, turn1.T @ (at0 - at1))))
        assert max(_errors_deg(_of_message(next(published)), pose)) < 1e-4
    largest = _check_same(matches, in_cpp)
    rotation_deg, direction_deg = np.median(errors, axis=0)
    report_figure(
        f"relative poses of KITTI 00 from `matches` alone, silk-vggnp-mu: {count}, median error {rotation_deg:.3f} "
        f"degrees in rotation, {direction_deg:.2f} in direction; C++ from a file differs by {largest:.1e} at most"
    )
    assert rotation_deg < 0.2
    assert direction_deg < 5.0
    assert largest < 1e-5


def _of_message(message: Any) -> Pose:
    q, p = message.pose.orientation, message.pose.position
    angle = 2 * np.arccos(min(q.w, 1.0))
    axis = np.array([q.x, q.y, q.z]) / max(np.sin(angle / 2), 1e-12)
    return cv2.Rodrigues(angle * axis)[0], np.array([p.x, p.y, p.z])
