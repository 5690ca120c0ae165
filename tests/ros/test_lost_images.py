"""Real nodes with cameras that lose images, or only appear to."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image

from benchmarks.spinning_node import SpinningNode
from feature_frontend.ros.distribution import dds_profile_variable
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.runtime.input_loss import ARE_MISSING, LARGE_IMAGE_BYTES
from feature_frontend.tools.doctor import main as doctor
from tests.campaign import Campaign
from tests.ros.harness import RunningNode, wait_until

_NODE = ("extractor:=silk-vggnp-mu", "resize_height:=64", "max_num_keypoints:=50")
_MINUTES = 10


class _Cameras(SpinningNode):
    """Publishes on `/NAME/image` at given moments, in s after the start, and keeps the nodes' diagnostics by name."""

    def __init__(self, domain_id: int, cameras: dict[str, Iterator[float]], height: int, width: int) -> None:
        super().__init__("cameras", domain_id)
        self.statuses: dict[str, list[DiagnosticStatus]] = {name: [] for name in cameras}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._note, qos_profile("reliable", 10))
        self._pixels = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
        self._publishers = {
            name: self.node.create_publisher(Image, f"/{name}/image", qos_profile("reliable", 5)) for name in cameras
        }
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._publish, args=item) for item in cameras.items()]
        self.start()

    def begin(self) -> None:
        """Starts the cameras once the nodes listen."""
        wait_until(lambda: all(p.get_subscription_count() for p in self._publishers.values()), "the nodes")
        for thread in self._threads:
            thread.start()

    def _note(self, array: DiagnosticArray) -> None:
        for status in array.status:
            self.statuses[status.name.split("/")[0]].append(status)

    def _publish(self, name: str, moments_s: Iterator[float]) -> None:
        start_s = time.monotonic()
        for moment_s in moments_s:
            if self._is_over.wait(max(0.0, start_s + moment_s - time.monotonic())):
                return
            self._publishers[name].publish(
                array_to_image(self._pixels, "mono8", stamp_from_ns(time.time_ns()), "camera")
            )

    def __exit__(self, *ended: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        super().__exit__(*ended)  # type: ignore[arg-type]


def _running(domain_id: int, name: str) -> RunningNode:
    return RunningNode(domain_id, *_NODE, arguments=("-r", f"__ns:=/{name}", "-r", f"image:=/{name}/image"))


def _lossy() -> Iterator[float]:
    chance = np.random.default_rng(0)
    return (index / 30 for index in itertools.count() if chance.random() < 0.5)


def test_lost_images_are_said_with_the_line_for_the_driver(
    domain_id: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    height, width = 640, 800
    assert height * width > LARGE_IMAGE_BYTES
    with _running(domain_id, "front"), _Cameras(domain_id, {"front": _lossy()}, height, width) as cameras:
        cameras.begin()
        statuses = cameras.statuses["front"]
        wait_until(lambda: bool(statuses) and ARE_MISSING in statuses[-1].message, "the warning")
        monkeypatch.setenv(dds_profile_variable(), "/somewhere/profile.xml")
        monkeypatch.setattr("feature_frontend.tools.doctor.command.MACHINE_CHECKS", ())
        doctor(["--json", "--timeout", "2"])
    assert statuses[-1].level >= DiagnosticStatus.WARN
    missing, _, expected, *_ = next(v.value for v in statuses[-1].values if "missing" in v.key).split()
    assert 0.2 < int(missing) / int(expected) < 0.95
    (found,) = (row for row in json.loads(capsys.readouterr().out) if row["subject"] == "diagnostics")
    assert ARE_MISSING in found["text"]
    assert f'SetEnvironmentVariable("{dds_profile_variable()}", "/somewhere/profile.xml")' in found["advice"]


def _steady() -> Iterator[float]:
    return (index / 5 for index in itertools.count())


def _jittering(chance: np.random.Generator) -> Iterator[float]:
    """Half a period too early to half a period too late."""
    return itertools.accumulate(chance.uniform(0.5, 1.5) / 5 for _ in itertools.count())


def _pausing(chance: np.random.Generator) -> Iterator[float]:
    """Some seconds, then nothing for some; every other time the camera goes on in step."""
    now_s, in_step = 0.0, True
    while True:
        images, pause_s = int(chance.integers(15, 50)), float(chance.uniform(1, 5))
        for _ in range(images):
            yield now_s
            now_s += 0.2
        now_s += round(pause_s / 0.2) * 0.2 if in_step else pause_s
        in_step = not in_step


@pytest.mark.slow
@pytest.mark.alone  # a machine that is busy loses images
def test_a_camera_that_is_slow_or_irregular_is_not_said_to_lose_images(domain_id: int, campaign: Campaign) -> None:
    campaign.only(f"takes {_MINUTES} minutes")
    chance = np.random.default_rng(campaign.seed)
    cameras = {"steady": _steady(), "jittering": _jittering(chance), "pausing": _pausing(chance)}
    with ExitStack() as stack:
        for name in cameras:
            stack.enter_context(_running(domain_id, name))
        watched = stack.enter_context(_Cameras(domain_id, cameras, 96, 128))
        watched.begin()
        end_s = time.monotonic() + 60 * _MINUTES
        while time.monotonic() < end_s:
            time.sleep(1)
            assert not [s.message for all_ in watched.statuses.values() for s in all_[-3:] if ARE_MISSING in s.message]
    for name, statuses in watched.statuses.items():
        assert len(statuses) > 60 * _MINUTES * 0.9, name
        values = [v.value for s in statuses for v in s.values if v.key == "Images missing (estimated)"]
        campaign.report(f"{name}: {len(statuses)} statuses, none warns of lost images; the last: {values[-1]}")
        received = int(next(v.value for v in statuses[-1].values if v.key == "Images received since start"))
        assert received > 60 * _MINUTES, name
