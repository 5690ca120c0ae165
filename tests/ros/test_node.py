"""The real node as a separate process: what it publishes, counts and refuses, and how it ends."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend_msgs.msg import Features, FrameStatus, Matches, Tracks
from sensor_msgs.msg import CameraInfo, Image

from feature_frontend.ros.output.frame_status import fate
from feature_frontend.ros.stamps import stamp_from_ns, stamp_to_ns
from tests.memory import peak_mib
from tests.ros.contract import check_contract
from tests.ros.harness import NO_CALIBRATION, Client, RunningNode
from tests.ros.remote import Remote

_FRAME_NS = 100_000_000
Uint8Array = npt.NDArray[np.uint8]
Pair = tuple[RunningNode, Client]


@pytest.fixture
def every_frame(weights_dir: str, domain_id: int) -> Iterator[Pair]:
    """A node that processes all frames with the small network, and a client connected to it."""
    parameters = (
        "extractor:=aliked-t16",
        "queue_policy:=every_frame",
        "image_qos:=reliable",
        "max_num_keypoints:=300",
        f"weights_dir:={weights_dir}",
    )
    with RunningNode(domain_id, *parameters) as running, Client(domain_id) as client:
        client.wait_for_node()
        yield running, client


def _points(values: object, columns: int = 2) -> npt.NDArray[np.float32]:
    return np.frombuffer(values, np.float32).reshape(-1, columns)  # type: ignore[call-overload]


def test_messages_hold_what_the_contract_says(every_frame: Pair, photographs: list[Uint8Array]) -> None:
    _, client = every_frame
    info = CameraInfo(height=480, width=640, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [500.0, 0.0, 320.0, 0.0, 400.0, 240.0, 0.0, 0.0, 1.0]
    client.send_camera_info(info)
    client.send_pixels(photographs[0], _FRAME_NS)
    client.wait_for("status", 1)
    # The two topics are not ordered against each other: the calibration is in force from some early frame on.
    client.send_pixels(photographs[1], 2 * _FRAME_NS)
    client.send_pixels(photographs[2], 3 * _FRAME_NS)
    statuses: list[FrameStatus] = client.wait_for("status", 3)
    features: list[Features] = client.wait_for("features", 3)
    matches: list[Matches] = client.wait_for("matches", 3)
    tracks: list[Tracks] = client.wait_for("tracks", 3)

    assert [status.state for status in statuses] == [FrameStatus.FIRST, FrameStatus.OK, FrameStatus.OK]
    # The last one at the latest has it.
    allowed = {"", NO_CALIBRATION}
    assert {status.reason for status in statuses} <= {
        *allowed,
        "camera_info is in use: normalized_keypoints are filled",
    }
    for message in features:
        assert message.header.frame_id == "camera"
        assert message.extractor == "aliked-t16@56782336"
        assert (message.height, message.width, message.count, message.descriptor_dim) == (480, 640, 300, 64)
        descriptors = np.frombuffer(message.descriptors, np.float32).reshape(300, 64)
        np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1.0, atol=1e-5)
        keypoints = _points(message.keypoints)
        assert keypoints.min() >= 0
        assert (keypoints.max(axis=0) <= [639, 479]).all()
        assert len(message.sizes) == len(message.angles) == 0
    last = features[-1]
    normalized = _points(last.normalized_keypoints)
    np.testing.assert_allclose(normalized, (_points(last.keypoints) - [320, 240]) / [500, 400], atol=1e-5)

    assert check_contract(features, matches, tracks, statuses, "chain") == 2
    _, *matches = matches
    for index, message in enumerate(matches):
        assert stamp_to_ns(message.stamp0) == (index + 1) * _FRAME_NS
        assert stamp_to_ns(message.header.stamp) == (index + 2) * _FRAME_NS
        assert message.count == len(message.similarity) == len(message.margin) > 150
        rows0, rows1 = (np.frombuffer(indices, np.uint32) for indices in (message.indices0, message.indices1))
        np.testing.assert_array_equal(_points(message.keypoints0), _points(features[index].keypoints)[rows0])
        np.testing.assert_array_equal(_points(message.keypoints1), _points(features[index + 1].keypoints)[rows1])
        ids0, ids1 = (np.frombuffer(tracks[i].ids, np.uint64) for i in (index, index + 1))
        # Tracks go on along matches, except along those that no motion of the camera explains.
        goes_on = ids0[rows0] == ids1[rows1]
        assert goes_on.mean() > 0.9
        assert goes_on.sum() == len(np.intersect1d(ids0, ids1))
    ages = np.frombuffer(tracks[2].ages, np.uint32)
    assert set(ages.tolist()) == {1, 2, 3}
    assert not np.frombuffer(tracks[2].gaps, np.uint32).any()
    velocities = _points(tracks[2].velocities)
    assert not velocities[ages == 1].any()
    moved = _points(matches[1].keypoints1) - _points(matches[1].keypoints0)
    of_matches = velocities[np.frombuffer(matches[1].indices1, np.uint32)]
    np.testing.assert_allclose(of_matches[goes_on], moved[goes_on] / 0.1, rtol=1e-3, atol=1e-2)


def _raw(encoding: str, height: int, width: int, step: int, data: bytes) -> Image:
    message = Image(height=height, width=width, encoding=encoding, step=step)
    message.data = data
    return message


@pytest.mark.slow
def test_odd_images_get_a_status_and_the_next_good_one_works(
    every_frame: Pair, photographs: list[Uint8Array], report_figure: Callable[[str], None]
) -> None:
    running, client = every_frame
    good = photographs[0]
    noise = np.random.default_rng(1).integers(0, 256, (3000, 4000), dtype=np.uint8)
    huge = cv2.GaussianBlur(noise, (0, 0), 3)
    huge = cv2.normalize(huge, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    ok, first, degenerate, error = FrameStatus.OK, FrameStatus.FIRST, FrameStatus.DEGENERATE, FrameStatus.ERROR
    cases: list[tuple[Uint8Array | Image, int, str]] = [
        (np.full((480, 640), 127, np.uint8), degenerate, "blank"),
        (good, ok, ""),
        (np.zeros((1, 1), np.uint8), error, "1x1 px"),
        (good, ok, ""),
        (np.ascontiguousarray(huge[:40]), ok, ""),
        (np.ascontiguousarray(huge[:, :40]), ok, ""),
        (huge, ok, ""),
        (good[:240, :320], ok, ""),
        (_raw("mono8", 480, 640, 640, b"\x01" * 100), error, "100 bytes"),
        (_raw("mono8", 480, 640, 320, b"\x01" * 480 * 640), error, "step is 320"),
        (_raw("mono8", 0, 0, 0, b""), error, "0x0 px"),
        (_raw("bayer_gbrg12", 480, 640, 1280, b"\x01" * 480 * 1280), error, "bayer_gbrg12"),
        (_raw("mono8", 2**32 - 1, 2**32 - 1, 2**32 - 1, b"\x01"), error, "need"),
        (good, ok, ""),
    ]
    for index, (image, _, _) in enumerate(cases):
        if isinstance(image, Image):
            image.header.stamp = stamp_from_ns((index + 1) * _FRAME_NS)
            client.send(image)
        else:
            client.send_pixels(np.ascontiguousarray(image), (index + 1) * _FRAME_NS)
    statuses: list[FrameStatus] = client.wait_for("status", len(cases))

    peak = peak_mib(running.process.pid)
    report_figure(f"odd images up to 4000x3000, aliked-t16: peak memory of the node {peak:.0f} MiB")
    for (_, state, reason), status in zip(cases, statuses, strict=True):
        assert (status.state, reason in status.reason) == (state, True), status
        assert status.frames_received == (status.frames_processed + status.frames_dropped + status.frames_refused)
    assert first not in {status.state for status in statuses}
    last = statuses[-1]
    refused = sum(state == error for _, state, _ in cases)
    assert (last.frames_received, last.frames_refused) == (len(cases), refused)
    assert last.keypoints == 300
    by_stamp = {stamp_to_ns(message.header.stamp): message for message in client.received["features"]}
    of_huge = by_stamp[7 * _FRAME_NS]
    assert (of_huge.height, of_huge.width) == (3000, 4000)
    assert _points(of_huge.keypoints).max() > 3000
    assert peak < 8000


def test_live_parameters_act_and_the_others_refuse(every_frame: Pair, photographs: list[Uint8Array]) -> None:
    _, client = every_frame
    remote = Remote(client.node)
    client.send_pixels(photographs[0], _FRAME_NS)
    client.wait_for("status", 1)
    assert remote.set(max_num_keypoints=50) == [(True, "")]
    ((refused, _),) = remote.set(max_num_keypoints=0)
    assert not refused
    ((refused, reason),) = remote.set(queue_policy="newest")
    assert not refused
    assert "read-only" in reason
    ((refused, reason),) = remote.set(descriptor_type="int8")
    assert not refused
    assert "expected one of float32, float16" in reason
    assert remote.set(descriptor_type="float16") == [(True, "")]
    client.send_pixels(photographs[1], 2 * _FRAME_NS)
    features: list[Features] = client.wait_for("features", 2)
    assert [message.count for message in features] == [300, 50]
    assert features[1].descriptor_type == Features.FLOAT16
    assert len(features[1].descriptors) == 50 * 64 * 2


def test_newest_frame_wins_and_the_dropped_are_counted(
    weights_dir: str, domain_id: int, photographs: list[Uint8Array]
) -> None:
    sent = 12
    # Every status stays until this client has it, however busy the machine.
    parameters = ("extractor:=aliked-t16", "image_qos:=reliable", "output_depth:=0", f"weights_dir:={weights_dir}")
    # The form of the launch files' log_level: of this logger alone.
    log_level = ("--log-level", "frontend:=debug")
    with RunningNode(domain_id, *parameters, arguments=log_level) as running, Client(domain_id) as client:
        client.wait_for_node()
        for index in range(sent):
            client.send_pixels(photographs[index % 3], (index + 1) * _FRAME_NS)
            time.sleep(0.02)
        statuses: list[FrameStatus] = client.wait_for("status", sent)
        segments = running.shared_memory()
        code, seconds, output = running.interrupt()
    assert code == 0, output
    assert seconds < 2.0, output
    assert "Traceback" not in output
    assert segments
    assert not [path for path in segments if path.exists()]
    by_state = [status.state for status in statuses]
    dropped = by_state.count(FrameStatus.DROPPED)
    assert dropped > 0
    assert statuses[-1].frames_received == sent
    assert max(status.frames_dropped for status in statuses) == dropped
    newest = max(statuses, key=lambda status: stamp_to_ns(status.header.stamp))
    assert newest.state == FrameStatus.OK
    assert statuses[-1].input_rate_hz > 0
    logged = [line for line in output.splitlines() if "[DEBUG]" in line]
    assert len(logged) < sent + 20, "the node's own lines, none of ROS's"
    fates = [line.partition("[frontend]: ")[2] for line in logged if "[frontend]: image " in line]
    assert sorted(fates) == sorted(map(fate, statuses))


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ("weights_dir:=BROKEN", r"aliked-n16\.pth|dotlet\.safetensors"),
        ("extractor:=superglue", "superglue.* aliked-t16"),
        ("ratio_threshold:=almost", "ratio_threshold.*almost.* float"),
        ("device:=cuda:99", "torch"),
    ],
)
def test_a_node_that_cannot_start_says_why_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, domain_id: int, parameter: str, expected: str
) -> None:
    broken = tmp_path_factory.mktemp("broken")
    for name in ("aliked-n16.pth", "dotlet.safetensors"):
        (broken / name).write_bytes(b"not a network")
    with RunningNode(domain_id, parameter.replace("BROKEN", str(broken))) as running:
        try:
            output, _ = running.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            pytest.fail("the node did not end")
    assert running.process.returncode == 1
    lines = output.strip().splitlines()
    assert len(lines) == 1, output
    assert lines[0].startswith("error: ")
    assert re.search(expected, lines[0])
