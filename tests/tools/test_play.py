"""The player and a subscriber as separate processes over real DDS: everything arrives unchanged."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (source env.sh)")
from feature_frontend.sources import open_source
from feature_frontend.tools.common.arguments import INCOMPLETE
from feature_frontend.tools.play import main
from tests.datasets import imu_rows, noise_flight, write_layout
from tests.image_files import tiff

RECEIVER = Path(__file__).with_name("image_receiver.py")
CALIBRATION = """\
image_width: {width}
image_height: {height}
camera_matrix: {{rows: 3, cols: 3, data: [500.0, 0, 160.0, 0, 510.0, 120.0, 0, 0, 1]}}
distortion_coefficients: {{rows: 1, cols: 5, data: [0.1, 0, 0, 0, 0]}}
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(domain_id: int) -> Iterator[Start]:
    """Starts a Python process; what still runs at the end of the test is ended."""
    processes: list[subprocess.Popen[str]] = []
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain_id), "PYTHONUNBUFFERED": "1"}

    def run(*arguments: str | Path) -> subprocess.Popen[str]:
        command = [sys.executable, *map(str, arguments)]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=RECEIVER.parents[2]
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


class Session:
    """A receiver in a process of its own, to which the player of this process plays."""

    def __init__(self, start: Start, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._start = start
        self._output = folder / "received.jsonl"
        self._capsys = capsys
        self.stdout = self.stderr = ""

    def play(self, *arguments: str | Path, count: int, **options: Any) -> list[dict[str, Any]]:
        """Plays to a receiver of `count` images; what it received."""
        receiver = self._start(RECEIVER, self._output, str(count), json.dumps(options))
        # On a busy machine it starts more slowly than a player waits for a subscriber.
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "listening\n", receiver.communicate()[1]
        status = main(list(map(str, arguments)))
        self.stdout, self.stderr = self._capsys.readouterr()
        assert status == 0, self.stderr
        # Longer than it waits for images, so that one that is missing is told as such.
        _, receiver_errors = receiver.communicate(timeout=90)
        assert receiver.returncode == 0, receiver_errors
        return [json.loads(line) for line in self._output.read_text().splitlines()]


@pytest.fixture
def session(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Session:
    return Session(start, tmp_path, capsys)


def of_kind(received: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in received if item["kind"] == kind]


def noise(index: int, *shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8)


def write_images(folder: Path, count: int, *shape: int, name: str = "{index}.png") -> Path:
    folder.mkdir()
    for index in range(count):
        assert cv2.imwrite(str(folder / name.format(index=index)), noise(index, *shape))
    return folder


def digest(pixels: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


class TestDelivery:
    def test_every_image_at_full_speed_with_its_stamp_and_bytes(self, session: Session, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "s", 40, 240, 320, name="100.{index:02d}.png")
        calibration = tmp_path / "camera.yaml"
        calibration.write_text(CALIBRATION.format(width=320, height=240))
        received = session.play(folder, "--rate", "0", "--camera-info", calibration, "--frame-id", "left", count=40)
        images = of_kind(received, "image")
        assert [item["stamp_ns"] for item in images] == [100_000_000_000 + i * 10_000_000 for i in range(40)]
        assert [item["sha256"] for item in images] == [digest(noise(index, 240, 320)) for index in range(40)]
        assert {(item["encoding"], *item["size"], item["frame_id"]) for item in images} == {
            ("mono8", 240, 320, 320, "left")
        }
        infos = of_kind(received, "camera_info")
        assert [item["stamp_ns"] for item in infos] == [item["stamp_ns"] for item in images]
        assert {(tuple(item["size"]), tuple(item["k"]), item["frame_id"]) for item in infos} == {
            ((240, 320), (500, 0, 160, 0, 510, 120, 0, 0, 1), "left")
        }
        assert "published 40 images on /image in " in session.stdout

    @pytest.mark.parametrize(
        ("arguments", "encoding", "conversion"),
        [
            ([], "rgb8", cv2.COLOR_BGR2RGB),
            (["--encoding", "bgr8"], "bgr8", None),
            (["--grey"], "mono8", cv2.COLOR_BGR2GRAY),
        ],
    )
    def test_encodings(
        self, session: Session, tmp_path: Path, arguments: list[str], encoding: str, conversion: int | None
    ) -> None:
        folder = write_images(tmp_path / "s", 3, 120, 160, 3)
        images = of_kind(session.play(folder, "--rate", "0", *arguments, count=3), "image")
        sent = [noise(index, 120, 160, 3) for index in range(3)]
        expected = [image if conversion is None else cv2.cvtColor(image, conversion) for image in sent]
        assert {item["encoding"] for item in images} == {encoding}
        assert [item["sha256"] for item in images] == [digest(np.asarray(image, np.uint8)) for image in expected]

    @pytest.mark.parametrize(
        ("samples", "encoding"),
        [("u2", "mono16"), ("i2", "16SC1"), ("f4", "32FC1"), ("f8", "64FC1")],
    )
    def test_deep_samples_are_sent_as_stored(
        self, session: Session, tmp_path: Path, samples: str, encoding: str
    ) -> None:
        # In a folder whose name is no UTF-8, which rclpy's own arguments cannot hold.
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xfcr"))
        folder.mkdir()
        sent = [noise(index, 120, 160).astype(samples) * 100 for index in range(2)]
        for index, deep in enumerate(sent):
            (folder / f"{index}.tiff").write_bytes(tiff(deep))
        images = of_kind(session.play(folder, "--rate", "0", count=2), "image")
        assert {item["encoding"] for item in images} == {encoding}
        assert [item["sha256"] for item in images] == [hashlib.sha256(deep.tobytes()).hexdigest() for deep in sent]

    def test_grey_images_as_colour(self, session: Session, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "s", 2, 120, 160)
        images = of_kind(session.play(folder, "--rate", "0", "--encoding", "rgb8", count=2), "image")
        assert [item["sha256"] for item in images] == [
            digest(np.repeat(noise(i, 120, 160)[..., None], 3, 2)) for i in range(2)
        ]

    @pytest.mark.parametrize("backlog", ["1", "3"])
    def test_in_step_with_a_slow_subscriber_that_keeps_only_the_last_image(
        self, session: Session, tmp_path: Path, backlog: str
    ) -> None:
        folder = write_images(tmp_path / "s", 25, 240, 320)
        arguments = ("--rate", "0", "--in-step-with", "answers", "--backlog", backlog)
        depth = int(backlog)
        images = of_kind(session.play(folder, *arguments, count=25, depth=depth, delay_s=0.02), "image")
        assert [item["sha256"] for item in images] == [digest(noise(index, 240, 320)) for index in range(25)]

    def test_large_colour_images(self, session: Session, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "s", 12, 1080, 1920, 3, name="{index}.bmp")
        images = of_kind(session.play(folder, "--rate", "0", "--encoding", "bgr8", count=12), "image")
        assert [item["sha256"] for item in images] == [digest(noise(index, 1080, 1920, 3)) for index in range(12)]

    def test_real_sequence(self, session: Session, shared: Path) -> None:
        folder = shared / "data" / "kitti00"
        received = session.play(folder, "--rate", "0", "--camera-info", folder / "camera.yaml", count=20)
        images = of_kind(received, "image")
        times = [float(line) for line in (folder / "times.txt").read_text().split()]
        assert [item["stamp_ns"] for item in images] == [round(time * 1e9) for time in times]
        expected = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.glob("*.png"))]
        assert [item["sha256"] for item in images] == [digest(np.asarray(image, np.uint8)) for image in expected]
        assert len(of_kind(received, "camera_info")) == 20


class TestSources:
    def test_video(self, session: Session, tmp_path: Path) -> None:
        path = tmp_path / "v.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 120))
        for index in range(10):
            writer.write(noise(index, 120, 160, 3))
        writer.release()
        images = of_kind(session.play(path, "--start", "2", "--count", "5", count=5), "image")
        assert [item["stamp_ns"] for item in images] == [index * 40_000_000 for index in range(2, 7)]
        expected = list(open_source(str(path)).frames())[2:7]
        assert [item["sha256"] for item in images] == [digest(frame.image) for frame in expected]

    @pytest.mark.parametrize("storage", ["SQLITE3", "MCAP"])
    def test_bag_with_its_calibration(self, session: Session, tmp_path: Path, storage: str) -> None:
        pytest.importorskip("rosbags", reason="needs the Python package rosbags")
        bag = write_bag(tmp_path / "bag", storage, 6)
        received = session.play(bag, "--rate", "0", count=6)
        images, infos = of_kind(received, "image"), of_kind(received, "camera_info")
        assert [item["stamp_ns"] for item in images] == [(50 + index) * 10**9 + 7 for index in range(6)]
        assert [item["sha256"] for item in images] == [digest(noise(index, 120, 160)) for index in range(6)]
        assert {item["frame_id"] for item in images + infos} == {"optical"}
        assert [item["stamp_ns"] for item in infos] == [item["stamp_ns"] for item in images]
        assert infos[0]["k"] == [400, 0, 80, 0, 410, 60, 0, 0, 1]

    def test_dataset_with_its_calibration_and_imu(self, session: Session, tmp_path: Path) -> None:
        flight = noise_flight()
        received = session.play(write_layout("EuRoC", tmp_path, flight), "--clock", count=4)
        images, measurements = of_kind(received, "image"), of_kind(received, "imu")
        assert [item["stamp_ns"] for item in images] == list(flight.stamps_ns)
        assert [item["sha256"] for item in images] == [digest(image) for image in flight.images]
        assert [item["stamp_ns"] for item in of_kind(received, "camera_info")] == list(flight.stamps_ns)
        assert {item["frame_id"] for item in images} == {"cam0"}
        assert [(item["stamp_ns"], tuple(item["values"])) for item in measurements] == imu_rows(flight)
        assert {item["frame_id"] for item in measurements} == {"imu0"}
        assert {tuple(item["orientation_covariance"]) for item in measurements} == {(-1.0, *[0.0] * 8)}
        # The noise densities squared, times 200 Hz.
        rate, acceleration = measurements[0]["covariances"]
        np.testing.assert_allclose(rate, np.diag([2e-4**2 * 200] * 3).ravel())
        np.testing.assert_allclose(acceleration, np.diag([4e-3**2 * 200] * 3).ravel())
        # At the pace of the stamps: from the first measurement to the last, or later on a busy machine.
        assert float(re.findall(r"in ([\d.]+) s,", session.stdout)[0]) >= 0.19
        clocks = [item["stamp_ns"] for item in of_kind(received, "clock")]
        assert clocks == sorted(clocks)
        assert "4 images of cam0 from V1_01_easy (EuRoC) on /image, with 39 measurements of its IMU" in session.stdout

    def test_the_imu_keeps_its_stamps_or_stays_silent(self, session: Session, tmp_path: Path) -> None:
        folder = write_layout("EuRoC", tmp_path, noise_flight())
        received = session.play(folder, "--rate", "0", "--stamps", "index", count=4)
        assert len(of_kind(received, "image")) == 4
        assert of_kind(received, "imu") == []
        assert "the IMU is not played with --stamps index" in session.stderr


def write_bag(path: Path, storage: str, count: int) -> Path:
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    matrix = np.array([400, 0, 80, 0, 410, 60, 0, 0, 1], np.float64)
    projection = np.array([400, 0, 80, 0, 0, 410, 60, 0, 0, 0, 1, 0], np.float64)
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage]) as writer:
        kinds = {"/cam/camera_info": "sensor_msgs/msg/CameraInfo", "/cam/image_raw": "sensor_msgs/msg/Image"}
        connections = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in kinds.items()}
        for index in range(count):
            stamp = types["builtin_interfaces/msg/Time"](50 + index, 7)
            header = types["std_msgs/msg/Header"](stamp, "optical")
            messages = {
                "/cam/camera_info": types["sensor_msgs/msg/CameraInfo"](
                    header, 120, 160, "plumb_bob", np.zeros(5), matrix, np.eye(3).ravel(), projection, 0, 0, region
                ),
                "/cam/image_raw": types["sensor_msgs/msg/Image"](
                    header, 120, 160, "mono8", 0, 160, noise(index, 120, 160).ravel()
                ),
            }
            for topic, message in messages.items():
                data = store.serialize_cdr(message, kinds[topic])
                writer.write(connections[topic], (60 + index) * 10**9, data)
    return path


class TestTime:
    @pytest.mark.alone
    def test_rate_is_kept(self, session: Session, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "s", 21, 240, 320)
        images = of_kind(session.play(folder, "--rate", "20", count=21), "image")
        assert [item["stamp_ns"] for item in images] == [index * 50_000_000 for index in range(21)]
        # 20 intervals of 50 ms; a busy machine is late, never early.
        took_s, rate_hz = map(float, re.findall(r"in ([\d.]+) s, ([\d.]+) Hz", session.stdout)[0])
        assert 1.0 <= took_s < 1.5
        assert 13 < rate_hz <= 20

    @pytest.mark.alone
    def test_acknowledgements_are_not_waited_for_while_the_subscriber_keeps_up(
        self, session: Session, tmp_path: Path
    ) -> None:
        """FastDDS asks for them every 3 s, in the middle of a backlog."""
        folder = write_images(tmp_path / "s", 80, 240, 320)
        calibration = tmp_path / "camera.yaml"
        calibration.write_text(CALIBRATION.format(width=320, height=240))
        longest_s = []
        # An acknowledgement that is under way while the next image is published is missed; hardly in both.
        while not longest_s or (longest_s[-1] >= 1.0 and len(longest_s) < 2):
            received = session.play(folder, "--rate", "20", "--camera-info", calibration, count=80)
            times_s = [item["at_s"] for item in of_kind(received, "image")]
            longest_s.append(max(after - before for before, after in pairwise(times_s)))
        # A busy machine is late by less than the 1.5 s that such a wait takes on average.
        assert longest_s[-1] < 1.0

    def test_clock_stamps(self, session: Session, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "s", 3, 240, 320, name="100.{index}.png")
        before_ns = time.time_ns()
        images = of_kind(session.play(folder, "--stamps", "clock", count=3), "image")
        stamps = [item["stamp_ns"] for item in images]
        assert before_ns < stamps[0] < stamps[1] < stamps[2] < time.time_ns()
        assert stamps[2] - stamps[0] >= 190_000_000

    def test_loop_continues_with_increasing_stamps_until_interrupted(self, start: Start, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "s", 3, 240, 320, name="100.{index}.png")
        output = tmp_path / "received.jsonl"
        receiver = start(RECEIVER, output, "7", "{}")
        player = start("-m", "feature_frontend", "play", folder, "--loop", "--rate", "30")
        assert player.stdout is not None
        while "waiting" not in player.stdout.readline():
            assert player.poll() is None
        # The receiver ends by itself only when the images stop.
        with pytest.raises(subprocess.TimeoutExpired):
            receiver.wait(timeout=4)
        player.send_signal(signal.SIGINT)
        interrupted_s = time.monotonic()
        rest, errors = player.communicate(timeout=10)
        assert time.monotonic() - interrupted_s < 5
        assert player.returncode == 0
        assert "Traceback" not in errors
        assert "published " in rest
        receiver.communicate(timeout=30)
        stamps = [json.loads(line)["stamp_ns"] for line in output.read_text().splitlines()]
        assert len(stamps) >= 7
        assert stamps == [100_000_000_000 + index * 100_000_000 for index in range(len(stamps))]

    @pytest.mark.alone
    def test_simulated_time_precedes_each_image_and_runs_in_between(self, session: Session, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "s", 6, 240, 320, name="100.{index}.png")
        received = session.play(folder, "--clock", count=6)
        images, clocks = of_kind(received, "image"), of_kind(received, "clock")
        stamps = {item["stamp_ns"] for item in images}
        times = [item["stamp_ns"] for item in clocks]
        assert times == sorted(times)
        # The first may pass before the subscription of /clock is matched, which nobody waits for.
        assert len(stamps & set(times)) >= 5
        # 40 Hz over 0.5 s, less what the machine is late.
        between = [stamp for stamp in times if stamp not in stamps]
        assert len(between) >= 8
        assert min(stamps) < min(between) < max(between) < max(stamps)


class TestErrors:
    def test_nobody_listens(self, domain_id: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = write_images(tmp_path / "s", 1, 24, 32)
        assert main([str(folder), "--wait-timeout", "0.3", "--ros-args", "-r", "image:=/cam/image"]) == 1
        errors = capsys.readouterr().err
        assert re.match("error: 0 of 1 .*/cam/image .*0.3 s", errors)
        assert "--wait-for-subscribers 0" in errors

    def test_the_subscriber_listens_elsewhere(
        self, start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = write_images(tmp_path / "s", 1, 24, 32)
        receiver = start(RECEIVER, tmp_path / "out", "1")
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "listening\n"
        assert main([str(folder), "--wait-timeout", "5", "--ros-args", "-r", "image:=up"]) == 1
        errors = capsys.readouterr().err
        assert "--ros-args -r image:=/image" in errors

    def test_the_subscriber_asks_for_reliable_images(
        self, start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = write_images(tmp_path / "s", 1, 24, 32)
        receiver = start(RECEIVER, tmp_path / "out", "1")
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "listening\n"
        assert main([str(folder), "--wait-timeout", "5", "--qos", "sensor_data"]) == 1
        errors = capsys.readouterr().err
        assert re.search("receiver .*reliable.* --qos sensor_data", errors)

    def test_nobody_answers(self, domain_id: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = write_images(tmp_path / "s", 1, 24, 32)
        assert main([str(folder), "--wait-timeout", "0.3", "--in-step-with", "status"]) == 1
        assert re.search("/status.* 0.3 s", capsys.readouterr().err)

    def test_without_subscribers_it_plays_all_the_same(
        self, domain_id: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = write_images(tmp_path / "s", 4, 24, 32)
        (folder / "2.png").write_bytes(b"")
        assert main([str(folder), "--rate", "0", "--wait-for-subscribers", "0"]) == INCOMPLETE
        output = capsys.readouterr()
        assert "published 3 images on /image in " in output.out
        assert re.search(f"warning: .*{folder / '2.png'}: .* 0 bytes", output.err)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["/nowhere"], "error: .*/nowhere; .*webcam:0"),
            (["FOLDER", "--camera-info", "/nowhere.yaml"], "error: .*calibration .*/nowhere.yaml"),
            (["FOLDER", "--camera-info", "CAMERA"], "0.png .*32x24 px.* 64x48 px"),
            (["FOLDER", "--start", "5"], "image 5 of 2"),
            (["FOLDER", "--stamps", "name"], "0.png "),
            (["FOLDER", "--ros-args", "-r", "up"], "error: .*ROS 2: .*up"),
            (["FOLDER", "--ros-args", "--up"], "error: .*ROS 2: .*--up"),
        ],
    )
    def test_bad_input_is_one_line_before_anybody_is_waited_for(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
    ) -> None:
        folder = write_images(tmp_path / "s", 2, 24, 32)
        calibration = tmp_path / "camera.yaml"
        calibration.write_text(CALIBRATION.format(width=64, height=48))
        places = {"FOLDER": str(folder), "CAMERA": str(calibration)}
        assert main([places.get(argument, argument) for argument in arguments]) == 1
        errors = capsys.readouterr().err
        assert re.search(message, errors.splitlines()[-1])
        assert errors.count("error: ") == 1

    @pytest.mark.parametrize("arguments", [["s", "--rate", "-1"], ["s", "--count", "0"], ["s", "--stamps", "guess"]])
    def test_bad_options(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert "see: feature_frontend play --help" in capsys.readouterr().err

    def test_interrupted_while_waiting(self, start: Start, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "s", 1, 24, 32)
        player = start("-m", "feature_frontend", "play", folder)
        assert player.stdout is not None
        while "waiting" not in player.stdout.readline():
            assert player.poll() is None
        player.send_signal(signal.SIGINT)
        _, errors = player.communicate(timeout=5)
        assert player.returncode == 0
        assert "Traceback" not in errors
