"""The node's console output on state changes: each once, in the words of the log."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Log
from rclpy.logging import LoggingSeverity
from rclpy.qos import DurabilityPolicy
from sensor_msgs.msg import CameraInfo

from feature_frontend.ros.input import camera_info_findings
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.output import diagnostics, name_watch
from feature_frontend.ros.output.name_watch import NAME_ADVICE
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.runtime import health, state_log
from tests.ros.harness import Client, node_in_this_process, wait_until

_SILENCE_S = 1.5
_NUMBER = re.compile(r"\b\d+ s\b")
# A busy machine may take seconds to an image; tests/core/test_health.py has these.
_OF_A_BUSY_MACHINE = re.compile("images arrive, but none has been done with|images are processed again")


class _Camera:
    """Images at 10 Hz, and with each the `camera_info` that there is, until the block ends."""

    def __init__(self, client: Client) -> None:
        self.is_on = False
        self.info: CameraInfo | None = None
        self.encoding = "mono8"
        self.infos = 0
        self._client = client
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Camera:
        self._thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (48, 64), np.uint8)
        while not self._is_over.wait(0.1):
            if self.is_on and self.info is not None:
                self._client.send_camera_info(self.info)
                self.infos += 1
            if self.is_on:
                image = array_to_image(pixels, "mono8", stamp_from_ns(time.monotonic_ns()), "camera")
                image.encoding = self.encoding
                self._client.send(image)


class _Rig:
    """A node whose seconds are short, spun by a thread, and a client beside it that reads its log."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.logged: list[Log] = []
        self.diagnostics: list[DiagnosticArray] = []
        self._read = 0
        qos = qos_profile("reliable", 100)
        qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        client.node.create_subscription(Log, "/rosout", self.logged.append, qos)
        client.node.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, 10)

    def lines(self) -> list[str]:
        """Of the node so far, with the numbers of seconds left out."""
        told = [log for log in list(self.logged) if log.name == "frontend" and not _OF_A_BUSY_MACHINE.match(log.msg)]
        return [f"{LoggingSeverity(log.level).name} {_NUMBER.sub('N s', log.msg)}" for log in told]

    def next_line(self) -> str:
        """The first line after those that have been taken."""
        wait_until(lambda: len(self.lines()) > self._read, f"a line after {self.lines()}", 30.0)
        self._read += 1
        return self.lines()[self._read - 1]


@pytest.fixture
def rig(domain_id: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Rig]:
    monkeypatch.setattr(diagnostics, "_PERIOD_S", 0.1)
    monkeypatch.setattr(health, "SILENCE_S", _SILENCE_S)
    monkeypatch.setattr(health, "WINDOW_S", 1.0)
    monkeypatch.setattr(camera_info_findings, "SILENCE_S", _SILENCE_S)
    monkeypatch.setattr(camera_info_findings, "_STOPPED_S", _SILENCE_S)
    monkeypatch.setattr(camera_info_findings, "_MISSING_S", 0.5)
    monkeypatch.setattr(camera_info_findings, "_SECOND_S", 0.1)
    monkeypatch.setattr(state_log, "_SETTLED_S", 0.3)
    monkeypatch.setattr(state_log, "_LINES_PERIOD_S", 0.0)
    monkeypatch.setattr(name_watch, "_LASTS_S", 0.5)
    given = "queue_policy:=every_frame image_qos:=reliable max_num_keypoints:=100 compile:=false"
    rclpy.init(args=["--ros-args", *(part for one in given.split() for part in ("-p", one))], domain_id=domain_id)
    with Client(domain_id) as client:
        yield _Rig(client)
    rclpy.shutdown()


def test_each_change_of_state_is_one_line(rig: _Rig) -> None:
    info = CameraInfo(width=64, height=48, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [100.0, 0.0, 32.0, 0.0, 100.0, 24.0, 0.0, 0.0, 1.0]
    other = deepcopy(info)
    other.width = 128
    with node_in_this_process(), _Camera(rig.client) as camera:
        assert rig.next_line().endswith("tracker auto is persistent")
        assert rig.next_line().startswith("INFO ready: ")
        silent = "/image has 1 reliable publisher; is the camera paused? `doctor` looks at topic, QoS and images"
        assert rig.next_line() == f"WARN no image yet for N s: {silent}"
        camera.is_on = True
        assert rig.next_line() == "INFO images arrive, after N s"
        assert rig.next_line() == "INFO no camera_info on /camera_info: normalized_keypoints stay empty"
        camera.info = info
        in_use = "INFO camera_info is in use: fx 100, fy 100, cx 32, cy 24 px, no distortion"
        assert rig.next_line() == in_use
        camera.info = other
        misfit = "the image is 64x48 px, but the calibration is for 128x48 px"
        assert rig.next_line().startswith(f"WARN camera_info does not fit: {misfit}")
        camera.info = info
        assert rig.next_line() == in_use
        regular = camera.infos + 6
        wait_until(lambda: camera.infos >= regular, "a regular stream")
        camera.info = None
        stopped = "no camera_info for N s, though images arrive: the last one stays in force"
        assert rig.next_line() == f"WARN {stopped}"
        camera.info = info
        assert rig.next_line() == "INFO camera_info arrives again, after N s"
        camera.is_on = False
        assert rig.next_line() == f"WARN no image for N s: {silent}"
        camera.is_on = True
        assert rig.next_line() == "INFO images arrive again, after N s"
        camera.encoding = "nv24"
        # Of a few images that are left of those before, or of none.
        refused = (
            r"WARN \d+ of \d+ images refused: image encoding 'nv24' is not supported without cv_bridge .*"
            r"; the nearest is nv21; docs/image_input.md lists those that are"
        )
        assert re.fullmatch(refused, rig.next_line())
        assert re.fullmatch(refused.replace("WARN", "ERROR"), rig.next_line())
        camera.encoding = "mono8"
        assert rig.next_line() == "INFO no more images are refused, after N s"
    assert len(rig.diagnostics) > 20
    assert max(len(array.status[0].message) for array in rig.diagnostics) < 400


def test_two_nodes_of_one_name_are_reported_and_the_end_of_that(rig: _Rig, capfd: pytest.CaptureFixture[str]) -> None:
    effect = "their results mix on /features, and parameters and services reach any of them"
    alike = f"2 nodes are named /frontend: {effect}; {NAME_ADVICE}"
    printed: list[str] = []

    def count(line: str) -> int:
        # Not of /rosout: a process has one publisher of it for a name.
        printed.append(capfd.readouterr().err)
        return "".join(printed).count(line)

    with node_in_this_process():
        with node_in_this_process():
            wait_until(lambda: count(alike) == 2, "a line of each node", 30.0)
            wait_until(lambda: alike in rig.diagnostics[-1].status[0].message, "the same on /diagnostics", 30.0)
        wait_until(lambda: count("no other node is named /frontend any more, after ") == 1, "the end of that", 30.0)
        assert alike not in rig.diagnostics[-1].status[0].message
    assert count(alike) == 2
