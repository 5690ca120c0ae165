"""The odometry of `examples/`: on tracks of a rendered flight, after tracking loss, and with the real node."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from examples.visual_odometry.compare import Comparison, align, compare, draw
from feature_frontend_lab.odometry.monocular import Options, View, VisualOdometry
from feature_frontend_lab.rendering import (
    Camera,
    Scene,
    default_scene,
    default_trajectory,
    render,
    render_depth,
    reproject,
)
from tests.campaign import Campaign
from tests.conftest import REPOSITORY

FloatArray = npt.NDArray[np.float64]
TrackList = list[tuple[npt.NDArray[np.int64], FloatArray]]

_CAMERA = Camera.with_field_of_view(70, height=480, width=640)
_PX = 1 / float(_CAMERA.matrix[0, 0])
_COUNT = 40
_POSES = default_trajectory(60)[:_COUNT]
_NODE = REPOSITORY / "examples" / "visual_odometry" / "node.py"


@pytest.fixture(scope="module")
def scene() -> Scene:
    return default_scene(seed=0)


@pytest.fixture(scope="module")
def tracks(scene: Scene) -> TrackList:
    """Exact tracks with 0.5 px of noise, of which 15 % end with each frame and 5 % are seen somewhere else."""
    rng = np.random.default_rng(0)
    depths = [render_depth(scene, _CAMERA, pose) for pose in _POSES]
    ids, points, next_id = np.zeros(0, np.int64), np.zeros((0, 2)), 1
    seen = []
    for index, pose in enumerate(_POSES):
        if index:
            there = reproject(points, depths[index - 1], _POSES[index - 1], pose, _CAMERA, depths[index])
            stays = there.visible & (rng.random(len(ids)) > 0.15)
            ids, points = ids[stays], there.points[stays]
        fresh = 500 - len(ids)
        ids = np.concatenate([ids, np.arange(next_id, next_id + fresh)])
        points = np.concatenate([points, rng.uniform((5, 5), (634, 474), (fresh, 2))])
        next_id += fresh
        where = points + rng.normal(0, 0.5, points.shape)
        is_wrong = rng.random(len(ids)) < 0.05
        where[is_wrong] = rng.uniform((0, 0), (639, 479), (np.count_nonzero(is_wrong), 2))
        seen.append((ids, where))
    return seen


def _run(tracks: TrackList, options: Options | None = None) -> tuple[dict[int, FloatArray], list[str]]:
    """Poses by the number of the view, and the notes."""
    odometry, poses, notes, begun = VisualOdometry(options), {}, [], 0
    for number, (ids, points) in enumerate(tracks):
        step = odometry.update(View.of(ids, _CAMERA.rays(points)[:, :2]), _PX)
        begun = number if step.begins else begun
        if step.first_pose is not None:
            poses[begun] = step.first_pose
        if step.pose is not None:
            poses[number] = step.pose
        notes += [step.note] if step.note else []
    return poses, notes


def _compared(poses: dict[int, FloatArray]) -> Comparison:
    return compare(np.array(list(poses.values())), np.array([_POSES[number] for number in poses]))


def test_the_path_is_found_up_to_its_scale(tracks: TrackList) -> None:
    poses, notes = _run(tracks)
    assert notes == []
    assert next(iter(poses)) == 0
    assert len(poses) > _COUNT - 5
    comparison = _compared(poses)
    assert comparison.ate_m < 0.01 * comparison.length_m
    assert comparison.rotation_deg.max() < 1.0
    first, second, *_ = poses.values()
    assert np.linalg.norm(second[:3, 3] - first[:3, 3]) == pytest.approx(1.0)


def test_the_same_tracks_give_the_same_path(tracks: TrackList) -> None:
    first, second = (_run(tracks[:12])[0] for _ in range(2))
    for pose0, pose1 in zip(first.values(), second.values(), strict=True):
        np.testing.assert_array_equal(pose0, pose1)


def test_bad_views_are_left_out(tracks: TrackList) -> None:
    rng = np.random.default_rng(0)
    spoilt = list(tracks)
    spoilt[20] = (tracks[20][0], rng.uniform(0, 480, tracks[20][1].shape))
    spoilt[25] = (tracks[25][0][:0], tracks[25][1][:0])
    poses, notes = _run(spoilt)
    assert len(notes) == 2
    assert all("no pose fits" in note for note in notes)
    assert {20, 25}.isdisjoint(poses)
    assert 26 in poses
    comparison = _compared(poses)
    assert comparison.ate_m < 0.01 * comparison.length_m


def test_when_all_tracks_end_it_restarts_and_keeps_scale_and_course(tracks: TrackList) -> None:
    renamed = [(ids + (1_000_000 if number >= 20 else 0), points) for number, (ids, points) in enumerate(tracks)]
    poses, notes = _run(renamed)
    assert "it restarts" in notes[-1]
    assert len([number for number in poses if number > 25]) > 10
    comparison = _compared(poses)
    assert comparison.ate_m < 0.05 * comparison.length_m


def test_tracks_that_were_forgotten_are_not_looked_for(tracks: TrackList) -> None:
    """As after a reset of the front-end; the ids of before mean nothing here."""
    odometry, poses, begun = VisualOdometry(), {}, 0
    for number, (ids, points) in enumerate(tracks):
        if number == 20:
            odometry.forget_tracks()
        step = odometry.update(View.of(ids ^ 1 if number >= 20 else ids, _CAMERA.rays(points)[:, :2]), _PX)
        begun = number if step.begins else begun
        if step.pose is not None:
            poses |= {number: step.pose} if step.first_pose is None else {begun: step.first_pose, number: step.pose}
        assert not step.note
    assert len([number for number in poses if number > 25]) > 10
    comparison = _compared(poses)
    assert comparison.ate_m < 0.05 * comparison.length_m


def test_a_front_end_that_was_restarted_begins_a_new_path(
    tracks: TrackList, domain_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node itself, given messages by hand; ids begin at 1 again, so those of before would mislead it."""
    rclpy = pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
    pytest.importorskip("nav_msgs", reason="needs nav_msgs (ROS 2)")
    from feature_frontend_msgs.msg import Tracks

    monkeypatch.syspath_prepend(str(_NODE.parent))
    node_module = importlib.import_module("examples.visual_odometry.node")
    rclpy.init(domain_id=domain_id)
    node = node_module.VisualOdometryNode()
    try:
        lengths = []
        for number, (ids, points) in enumerate(tracks):
            message = Tracks(run_id=5 if number < 20 else 6, count=len(ids))
            message.header.stamp.sec = number + 1
            message.ids.extend((ids ^ 1 if number >= 20 else ids).tolist())
            message.keypoints.extend(points.ravel().tolist())
            message.normalized_keypoints.extend(_CAMERA.rays(points)[:, :2].ravel().tolist())
            node._take(message)
            lengths.append(len(node._path.poses))
    finally:
        node.destroy_node()
        rclpy.shutdown()
    assert (lengths[19] > 15, lengths[20], lengths[-1] > 15) == (True, 0, True)


def test_a_turning_or_resting_camera_gives_no_motion(tracks: TrackList) -> None:
    ids, points = tracks[0]
    rays = np.column_stack([_CAMERA.rays(points)[:, :2], np.ones(len(ids))])
    rng = np.random.default_rng(0)
    odometry = VisualOdometry()
    for number in range(20):
        angle = np.radians(number)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        turned = rays @ turn
        noisy = turned[:, :2] / turned[:, 2:] + rng.normal(0, 0.5 * _PX, points.shape)
        assert odometry.update(View.of(ids, noisy), _PX).pose is None
        assert odometry.update(View.of(ids, noisy), _PX).pose is None


@pytest.mark.parametrize("seed", range(4))
def test_absurd_tracks_do_not_raise(tracks: TrackList, seed: int) -> None:
    rng = np.random.default_rng(seed)
    odometry = VisualOdometry()
    for good_ids, points in tracks[:25]:
        ids, rays = good_ids, _CAMERA.rays(points)[:, :2]
        kind = rng.integers(0, 8)
        if kind == 1:
            ids, rays = ids[:1], rays[:1]
        elif kind == 2:
            rays = np.full_like(rays, rng.choice([np.nan, np.inf, 0.0, 1e30]))
        elif kind == 3:
            ids = np.full_like(ids, 7)
        elif kind == 4:
            rays = rays[rng.permutation(len(rays))]
        elif kind == 5:
            ids, rays = ids[:0], rays[:0]
        step = odometry.update(View.of(ids, rays), float(rng.choice([_PX, 1e-3, 1e-9, 1.0])))
        assert step.pose is None or np.isfinite(step.pose).all()


def test_alignment_undoes_a_similarity() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(10, 3))
    rotation = cv2.Rodrigues(np.array([0.3, -1.2, 0.5]))[0]
    scale, found, shift = align(points, 2.5 * points @ rotation.T + [1, 2, 3])
    assert scale == pytest.approx(2.5)
    np.testing.assert_allclose(found, rotation, atol=1e-12)
    np.testing.assert_allclose(shift, [1, 2, 3], atol=1e-12)


@contextmanager
def _example(domain_id: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, str(_NODE)], env=os.environ, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def _through_the_nodes(
    domain_id: int, images: list[npt.NDArray[np.uint8]], matrix: FloatArray, parameters: tuple[str, ...]
) -> tuple[dict[int, FloatArray], str]:
    """Poses by the number of the image, as the example made them of what the real node published; and its log."""
    from nav_msgs.msg import Odometry
    from nav_msgs.msg import Path as PathMessage
    from sensor_msgs.msg import CameraInfo

    from examples.visual_odometry.compare import _stamped
    from tests.ros.harness import Client, RunningNode, wait_until

    height, width = images[0].shape[:2]
    info = CameraInfo(height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5, k=matrix.ravel().tolist())
    paths: list[PathMessage] = []
    odometries: list[Odometry] = []
    with (
        RunningNode(domain_id, "queue_policy:=every_frame", "image_qos:=reliable", *parameters),
        Client(domain_id) as client,
        _example(domain_id) as example,
    ):
        client.node.create_subscription(PathMessage, "path", paths.append, 100)
        client.node.create_subscription(Odometry, "odometry", odometries.append, 100)
        client.wait_for_node()
        wait_until(
            lambda: client.node.count_subscribers("tracks") == 2 and client.node.count_publishers("path") == 1,
            "the example",
        )
        for number, image in enumerate(images):
            client.send_camera_info(info)
            client.send_pixels(image, (number + 1) * 100_000_000)
            client.wait_for("status", number + 1)
        wait_until(
            lambda: bool(paths) and paths[-1].header.stamp == client.received["status"][-1].header.stamp, "the path"
        )
        wait_until(lambda: len(odometries) >= len(paths), "the odometry")
        assert example.poll() is None
    assert example.returncode == 0
    assert example.stderr is not None
    last = odometries[-1]
    assert (last.header.frame_id, last.child_frame_id, paths[-1].header.frame_id) == ("odom", "camera", "odom")
    assert last.pose.pose == paths[-1].poses[-1].pose
    speed = last.twist.twist.linear
    assert speed.z > 0.9 * np.linalg.norm([speed.x, speed.y, speed.z]), "both sequences go forward"
    stamped = [_stamped(pose) for pose in paths[-1].poses]
    return {stamp_ns // 100_000_000 - 1: pose for stamp_ns, pose in stamped}, example.stderr.read()


@pytest.mark.slow
def test_a_rendered_flight_through_the_real_node(domain_id: int, scene: Scene) -> None:
    pytest.importorskip("nav_msgs", reason="needs nav_msgs (ROS 2)")
    camera = Camera.with_field_of_view(70, height=240, width=320)
    flown = _POSES[:24:2]
    images = [render(scene, camera, pose).image for pose in flown]
    poses, _ = _through_the_nodes(domain_id, images, camera.matrix, ("extractor:=silk-vggnp-mu",))
    assert len(poses) >= 8
    comparison = compare(np.array(list(poses.values())), np.array([flown[number] for number in poses]))
    assert comparison.ate_m < 0.03 * comparison.length_m


@pytest.mark.slow
def test_kitti_through_the_real_node(
    domain_id: int, shared: Path, weights_dir: str, report_figure: Callable[[str], None], campaign: Campaign
) -> None:
    campaign.only("a rendered flight goes through the node in every run")
    pytest.importorskip("nav_msgs", reason="needs nav_msgs (ROS 2)")
    folder = shared / "data" / "kitti00"
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.glob("*.png"))]
    matrix = np.array([[718.856, 0.0, 607.1928], [0.0, 718.856, 185.2157], [0.0, 0.0, 1.0]])
    poses, log = _through_the_nodes(domain_id, images, matrix, ("extractor:=aliked-n16", f"weights_dir:={weights_dir}"))
    assert len(poses) == 20, log
    truth = np.tile(np.eye(4), (20, 1, 1))
    truth[:, :3] = np.loadtxt(folder / "poses.txt").reshape(-1, 3, 4)
    comparison = compare(np.array(list(poses.values())), truth[list(poses)])
    report_figure(f"visual odometry from tracks, KITTI 00: {comparison}".replace("\n", "; "))
    assert comparison.ate_m < 0.01 * comparison.length_m
    assert np.median(comparison.step_rotation_deg) < 0.15
    assert [len(axes.lines) for axes in draw(comparison, "KITTI 00").axes] == [2, 2]
