"""The managed node: the effect of each transition, and the message if it fails."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import rclpy
from feature_frontend_msgs.msg import FrameStatus
from feature_frontend_msgs.srv import MatchFrames
from rclpy.lifecycle import TransitionCallbackReturn

from feature_frontend.extractors.extractor import Extractor
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.ros.input.frame import Frame
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.node import FrontendNode
from feature_frontend.ros.stamps import stamp_from_ns, stamp_to_ns
from feature_frontend.settings import Settings
from feature_frontend.types import FrameResult
from tests.campaign import Campaign
from tests.memory import resident_mib
from tests.ros.harness import Client, RunningNode, wait_until
from tests.ros.remote import Remote

_FRAME_NS = 100_000_000
_SENT = 2 + 20
_MANAGED = (
    "autostart:=false",
    "device:=cpu",
    "tracker:=auto",
    "queue_policy:=every_frame",
    "image_qos:=reliable",
    "max_num_keypoints:=100",
)
Uint8Array = npt.NDArray[np.uint8]


def _deactivate_in_mid_stream(client: Client, remote: Remote, images: list[Uint8Array]) -> None:
    """Sends more than the node can do at once, and deactivates it."""
    for index in range(2, _SENT):
        client.send_pixels(images[index % 3], (index + 1) * _FRAME_NS)
    client.wait_for("status", 4)
    assert remote.change_state("deactivate")
    assert remote.state() == "inactive"
    client.wait_until_nobody_listens()


def _next_status(client: Client, pixels: Uint8Array, stamp_ns: int) -> FrameStatus:
    """Sends an image, and waits for its status: each image that the node received before it has exactly one, too."""
    client.send_pixels(pixels, stamp_ns)
    received = client.received["status"]
    wait_until(lambda: stamp_to_ns(received[-1].header.stamp) == stamp_ns, f"the status of {stamp_ns}")
    stamps = {stamp_to_ns(status.header.stamp) for status in received}
    assert received[-1].frames_received == len(stamps) == len(received)
    return received[-1]


def _check_account(statuses: list[FrameStatus]) -> None:
    """Of the images up to the end of a stream that was cut off."""
    assert len(statuses) <= _SENT
    for status in statuses:
        assert status.state in {FrameStatus.FIRST, FrameStatus.OK, FrameStatus.DROPPED}
        if status.state == FrameStatus.DROPPED:
            assert status.reason == "the node was deactivated before this image was processed"
    last = statuses[-1]
    assert last.frames_received == last.frames_processed + last.frames_dropped


def _check_runs(client: Client) -> None:
    """The front-end of the last image is another one, whose ids restart; so it says."""
    *earlier, last = client.received["status"]
    assert len({status.run_id for status in earlier}) == 1
    assert last.run_id not in {0, earlier[0].run_id}
    assert (earlier[0].resets, earlier[-1].resets, last.resets) == (0, 1, 0)
    wait_until(lambda: client.received["tracks"][-1].run_id == last.run_id, "the last image's tracks")
    assert min(client.received["tracks"][-1].ids) == 1


def test_each_transition_does_its_part(domain_id: int, photographs: list[Uint8Array]) -> None:
    with RunningNode(domain_id, *_MANAGED) as running, Client(domain_id) as client:
        remote = Remote(client.node)
        assert remote.state() == "unconfigured"
        assert not client.node.count_subscribers("image")
        assert not remote.change_state("activate")
        assert remote.change_state("configure")
        assert remote.state() == "inactive"
        wait_until(lambda: client.node.count_publishers("status") == 1, "the topics")
        # Nothing listens yet: what a camera sends now never reaches the node and is not counted.
        assert not client.node.count_subscribers("image")
        client.send_pixels(photographs[0], 1)
        assert remote.change_state("activate")
        client.wait_for_node()
        client.send_pixels(photographs[0], _FRAME_NS)
        client.send_pixels(photographs[1], 2 * _FRAME_NS)
        first, second = client.wait_for("status", 2)
        assert (first.state, first.frames_received) == (FrameStatus.FIRST, 1)
        assert (second.state, second.frames_received) == (FrameStatus.OK, 2)
        assert re.search("extractor auto is dotlet@.*; tracker auto is persistent", f"{first.reason}; {second.reason}")
        # The parameter names the extractor; the tracker may change with it.
        assert (remote.get("extractor"), remote.get("tracker")) == ("dotlet", "auto")

        _deactivate_in_mid_stream(client, remote, photographs)

        # Parameters change while it is inactive too; the account goes on.
        assert remote.set(max_num_keypoints=30) == [(True, "")]
        assert remote.change_state("activate")
        client.wait_for_node()
        status = _next_status(client, photographs[0], 1000 * _FRAME_NS)
        *before, _ = client.received["status"]
        _check_account(before)
        assert (status.state, status.reason) == (FrameStatus.FIRST, "the node was inactive")
        assert (status.frames_received, status.keypoints) == (len(before) + 1, 30)

        assert remote.change_state("deactivate")
        assert remote.change_state("cleanup")
        assert remote.state() == "unconfigured"
        client.wait_until_nobody_listens()
        wait_until(lambda: not client.node.count_publishers("status"), "the end of the topics")
        request = MatchFrames.Request(stamp0=stamp_from_ns(_FRAME_NS), stamp1=stamp_from_ns(1000 * _FRAME_NS))
        response = remote.call(MatchFrames, "match_frames", request)
        assert not response.ok
        assert "none was processed since the node was configured" in response.reason

        assert remote.change_state("configure")
        assert remote.change_state("activate")
        client.wait_for_node()
        status = _next_status(client, photographs[0], 1001 * _FRAME_NS)
        assert (status.state, status.frames_received) == (FrameStatus.FIRST, len(before) + 2)
        _check_runs(client)
        assert remote.change_state("shutdown")
        assert remote.state() == "finalized"
        code, _, output = running.interrupt()
    assert code == 0
    assert "Traceback" not in output


def test_without_weights_it_stays_unconfigured_and_says_why(
    domain_id: int, photographs: list[Uint8Array], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a network")
    parameters = (*_MANAGED, "extractor:=dotlet", f"weights_path:={broken}")
    with RunningNode(domain_id, *parameters) as running, Client(domain_id) as client:
        remote = Remote(client.node)
        assert not remote.change_state("configure")
        assert remote.state() == "unconfigured"
        assert not client.node.count_publishers("status")
        assert remote.set(weights_path="") == [(True, "")]
        assert remote.change_state("configure")
        assert remote.change_state("activate")
        client.wait_for_node()
        client.send_pixels(photographs[0], _FRAME_NS)
        assert client.wait_for("status", 1)[0].state == FrameStatus.FIRST
        _, _, output = running.interrupt()
    assert output.count(f"cannot configure: cannot read weights {broken}") == 1
    assert "Traceback" not in output


@pytest.mark.slow
def test_coming_and_going_takes_no_memory(domain_id: int, photographs: list[Uint8Array], campaign: Campaign) -> None:
    campaign.only("12 rounds")
    with RunningNode(domain_id, *_MANAGED) as running, Client(domain_id) as client:
        remote = Remote(client.node)
        resident = []
        for round_ in range(12):
            for transition in ("configure", "activate"):
                assert remote.change_state(transition)
            client.wait_for_node()
            client.send_pixels(photographs[round_ % 3], (round_ + 1) * _FRAME_NS)
            client.wait_for("status", round_ + 1)
            for transition in ("deactivate", "cleanup"):
                assert remote.change_state(transition)
            client.wait_until_nobody_listens()
            wait_until(lambda: not client.node.count_publishers("status"), "the end of the topics")
            resident.append(resident_mib(running.process.pid))
    assert resident[-1] - resident[3] < 20, resident


def test_a_transition_that_crashes_is_reported_and_leaves_an_unconfigured_node(
    domain_id: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def crash(_settings: Settings) -> Frontend:
        msg = "a kernel that this device lacks"
        raise RuntimeError(msg)

    rclpy.init(args=["--ros-args", "-p", "autostart:=false"], domain_id=domain_id)
    try:
        node = FrontendNode(crash)
        for _ in range(2):
            assert node.trigger_configure() == TransitionCallbackReturn.ERROR
            printed = capfd.readouterr().err
            assert "cannot configure: Traceback" in printed
            assert "RuntimeError: a kernel that this device lacks" in printed
        assert node.stop()
        node.destroy_node()
    finally:
        rclpy.shutdown()
    rclpy.init(args=[], domain_id=domain_id)
    try:
        with pytest.raises(RuntimeError, match="a kernel that this device lacks"):
            FrontendNode(crash)
    finally:
        rclpy.shutdown()


def test_the_parameters_name_the_model_that_stands_in(domain_id: int) -> None:
    def stand_in(settings: Settings) -> Frontend:
        in_use = replace(settings, extractor="silk-vggnp-mu")
        return Frontend(Extractor.from_pretrained(in_use), in_use, "using another one")

    rclpy.init(args=["--ros-args", "-p", "compile:=false"], domain_id=domain_id)
    try:
        node = FrontendNode(stand_in)
        assert node.get_parameter("extractor").value == "silk-vggnp-mu"
        assert node.stop()
        node.destroy_node()
    finally:
        rclpy.shutdown()


def test_a_frame_that_ends_after_the_node_is_no_failure(domain_id: int, capfd: pytest.CaptureFixture[str]) -> None:
    begun, may_end = threading.Event(), threading.Event()

    class Slow(Frontend):
        def process(self, *arguments: Any) -> FrameResult:
            begun.set()
            assert may_end.wait(60)
            return super().process(*arguments)

    def load(settings: Settings) -> Frontend:
        return Slow(Extractor.from_pretrained(settings), settings)

    parameters = ("-p", "extractor:=silk-vggnp-mu", "-p", "compile:=false")
    rclpy.init(args=["--ros-args", *parameters], domain_id=domain_id)
    try:
        node = FrontendNode(load)
        assert node._worker is not None
        image = array_to_image(np.full((64, 64), 7, np.uint8), "mono8", stamp_from_ns(1), "camera")
        node._worker.put(Frame(image, received_s=0.0))
        assert begun.wait(60)
        assert not node.stop()
        node.destroy_node()
        may_end.set()
        node._worker.stop()
        assert node.guard.failures == 0
        assert "InvalidHandle" not in capfd.readouterr().err
    finally:
        rclpy.shutdown()
