"""The recorder as a separate process, with publishers in this process over real DDS."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

from feature_frontend_msgs.msg import Features, FrameStatus, Matches, Tracks  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from rosbags.highlevel import AnyReader  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402

from feature_frontend.sources.bags.sequence import Bag  # noqa: E402
from feature_frontend.sources.bags.stamps import header_stamp_ns  # noqa: E402
from feature_frontend.tools.record import main  # noqa: E402
from tests.faults import FULL, fault_environment  # noqa: E402

TYPES = {
    "image": Image,
    "camera_info": CameraInfo,
    "features": Features,
    "matches": Matches,
    "tracks": Tracks,
    "status": FrameStatus,
}
FIRST_STAMP_S = 1_700_000_000
TIMEOUT_S = 30.0


class Publishers:
    """Publishers of all the topics, as the camera and the node have them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._publishers = {
            name: node.create_publisher(kind, name, QoSProfile(depth=100)) for name, kind in TYPES.items()
        }

    def wait_for_recorder(self) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not all(publisher.get_subscription_count() for publisher in self._publishers.values()):
            assert time.monotonic() < deadline, "the recorder did not subscribe"
            time.sleep(0.02)

    def publish(self, number: int) -> dict[str, Any]:
        """Publishes one message a topic, stamped `number` tenths of a second after the first, and returns them."""
        messages = {name: kind() for name, kind in TYPES.items()}
        for message in messages.values():
            message.header.stamp.sec = FIRST_STAMP_S
            message.header.stamp.nanosec = number * 100_000_000
            message.header.frame_id = "camera"
        pixels = np.random.default_rng(number).integers(0, 256, 48 * 64, np.uint8)
        messages["image"].height, messages["image"].width, messages["image"].step = 48, 64, 64
        messages["image"].encoding = "mono8"
        messages["image"].data = array("B", pixels.tobytes())
        messages["features"].keypoints = array("f", [1.5, 2.25, 3.0, number])
        messages["features"].descriptors = array("B", bytes(range(256)))
        messages["matches"].indices1 = array("I", [4, number])
        messages["tracks"].ids = array("Q", [2**40 + number])
        messages["status"].reason = f"frame {number}"
        for name, message in messages.items():
            self._publishers[name].publish(message)
        return messages


@pytest.fixture
def publishers(domain_id: int) -> Iterator[Publishers]:
    context = Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = rclpy.create_node("test_record", context=context)
    yield Publishers(node)
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture
def record(domain_id: int) -> Iterator[Any]:
    """Starts recorders with the given arguments; those still running at the end are killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "feature_frontend", "record", *map(str, arguments)]
        environment = {**os.environ, "ROS_DOMAIN_ID": str(domain_id)}
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out, err


def read(bag: Path) -> dict[str, list[tuple[int, Any]]]:
    with AnyReader([bag]) as reader:
        contents: dict[str, list[tuple[int, Any]]] = {connection.topic: [] for connection in reader.connections}
        for connection, time_ns, data in reader.messages():
            contents[connection.topic].append((time_ns, reader.deserialize(data, connection.msgtype)))
        return contents


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_all_topics_are_recorded_unchanged(publishers: Publishers, record: Any, tmp_path: Path, storage: str) -> None:
    bag = tmp_path / "bag"
    process = record(bag, "--storage", storage, "--frames", 3)
    publishers.wait_for_recorder()
    sent = [publishers.publish(number) for number in range(3)]
    code, out, err = finish(process)
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert summary["messages"] == dict.fromkeys(TYPES, 3)
    contents = read(bag)
    assert set(contents) == {f"/{name}" for name in TYPES}
    for name in TYPES:
        times = [time_ns for time_ns, _ in contents[f"/{name}"]]
        assert times == [FIRST_STAMP_S * 10**9 + number * 10**8 for number in range(3)]
    for number in range(3):
        received = {name: contents[f"/{name}"][number][1] for name in TYPES}
        assert received["image"].encoding == "mono8"
        assert received["image"].data.tobytes() == sent[number]["image"].data.tobytes()
        assert received["features"].keypoints.tolist() == [1.5, 2.25, 3.0, number]
        assert received["features"].descriptors.tobytes() == bytes(range(256))
        assert received["matches"].indices1.tolist() == [4, number]
        assert received["tracks"].ids.tolist() == [2**40 + number]
        assert received["status"].reason == f"frame {number}"


def test_type_hashes_are_those_of_ros(publishers: Publishers, record: Any, tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    process = record(bag, "--frames", 1)
    publishers.wait_for_recorder()
    publishers.publish(0)
    assert finish(process)[0] == 0
    with AnyReader([bag]) as reader:
        recorded = {connection.topic: connection.digest for connection in reader.connections}
    for name in TYPES:
        (endpoint,) = publishers.node.get_publishers_info_by_topic(f"/{name}")
        if not hasattr(endpoint, "topic_type_hash"):
            pytest.skip("this ROS distribution has no type hashes")
        assert recorded[f"/{name}"] == str(endpoint.topic_type_hash)


def test_interrupt_completes_the_bag(publishers: Publishers, record: Any, tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    process = record(bag, "--events")
    publishers.wait_for_recorder()
    publishers.publish(0)
    events = []
    while True:
        events.append(json.loads(process.stdout.readline()))
        if events[-1]["event"] == "progress" and events[-1]["messages"] == dict.fromkeys(TYPES, 1):
            break
    assert {"event": "ready"} in events
    process.send_signal(signal.SIGINT)
    started_s = time.monotonic()
    code, out, err = finish(process)
    assert time.monotonic() - started_s < 2
    assert code == 0
    assert "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["messages"]["status"] == 1
    assert len(read(bag)["/status"]) == 1


def test_a_full_disk_ends_it_with_a_line_and_what_was_kept(
    publishers: Publishers, record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = tmp_path / "bag"
    with monkeypatch.context() as patched:
        for name, value in fault_environment(tmp_path, bag, FULL, 300).items():
            patched.setenv(name, value)
        process = record(bag, "--topics", "image", "status")
    deadline = time.monotonic() + TIMEOUT_S
    published = 0
    while process.poll() is None:
        assert time.monotonic() < deadline
        publishers.publish(published)
        published += 1
        time.sleep(0.01)
    code, out, err = finish(process)
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert err.splitlines()[-1] == (
        f"error: the bag {bag} cannot be written: database or disk is full; free space or check the disk"
    )
    kept = [message for message in Bag(bag).messages({"/status"}) if not message.problem]
    assert 1 <= len(kept) <= published


def test_idle_timeout_ends_the_recording_and_times_can_be_those_of_arrival(
    publishers: Publishers, record: Any, tmp_path: Path
) -> None:
    bag = tmp_path / "bag"
    process = record(bag, "--idle-timeout", 0.5, "--times", "received", "--topics", "image", "status")
    deadline = time.monotonic() + TIMEOUT_S
    while not publishers.node.count_subscribers("/status"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)
    before_ns = time.time_ns()
    publishers.publish(7)
    code, out, err = finish(process)
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["messages"] == {"image": 1, "status": 1}
    assert before_ns < read(bag)["/status"][0][0] < time.time_ns()


def test_remapped_and_namespaced_topics(publishers: Publishers, record: Any, tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    rules = ("image:=/camera/image_raw", "image/compressed:=/camera/image_raw/compressed", "__ns:=/robot")
    arguments = ("--ros-args", *(part for rule in rules for part in ("-r", rule)))
    process = record(bag, "--topics", "image", "image/compressed", "status", "--events", *arguments)
    image = publishers.node.create_publisher(Image, "/camera/image_raw", 10)
    compressed = publishers.node.create_publisher(CompressedImage, "/camera/image_raw/compressed", 10)
    status = publishers.node.create_publisher(FrameStatus, "/robot/status", 10)
    deadline = time.monotonic() + TIMEOUT_S
    while not all(publisher.get_subscription_count() for publisher in (image, compressed, status)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    image.publish(Image(encoding="rgb8"))
    status.publish(FrameStatus(reason="named"))
    compressed.publish(CompressedImage(format="png", data=[1, 2, 3]))
    wanted = {"image": 1, "image/compressed": 1, "status": 1}
    while (event := json.loads(process.stdout.readline())).get("messages") != wanted:
        assert event["event"] in {"ready", "progress"}
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 0
    contents = read(bag)
    assert contents["/camera/image_raw"][0][1].encoding == "rgb8"
    assert contents["/camera/image_raw/compressed"][0][1].data.tolist() == [1, 2, 3]
    assert contents["/robot/status"][0][1].reason == "named"


def test_an_empty_recording_is_an_error_and_leaves_nothing(record: Any, tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    process = record(bag)
    assert "recording" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 1
    assert "no message arrived" in err
    assert not bag.exists()


def test_an_existing_folder_is_not_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert main([str(tmp_path)]) == 1
    assert f"error: {tmp_path} exists already" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_frames_without_status_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(tmp_path / "bag"), "--frames", "3", "--topics", "image"]) == 1
    assert "expected status too" in capsys.readouterr().err


@pytest.mark.parametrize(("order", "flag"), [("<", 1), (">", 0)])
def test_header_stamp_is_read_from_the_serialized_message(order: str, flag: int) -> None:
    data = bytes([0, flag, 0, 0]) + struct.pack(f"{order}iI", 1_700_000_001, 250_000_000) + b"rest"
    assert header_stamp_ns(data) == 1_700_000_001_250_000_000


def test_a_message_too_short_for_a_header_is_refused() -> None:
    with pytest.raises(ValueError, match=r"6 bytes .*12"):
        header_stamp_ns(bytes(6))
