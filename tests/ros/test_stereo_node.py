"""The node in stereo mode through message_filters: pairs, images without partners, jumps back, reports."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
pytest.importorskip("message_filters", reason="needs the ROS package message_filters, which no wheel brings")

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from feature_frontend_msgs.msg import Features, FrameStatus, Matches
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from benchmarks.spinning_node import SpinningNode
from feature_frontend.ros.input.camera_info import camera_info_message
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns, stamp_to_ns
from tests.ros.harness import RunningNode, wait_until
from tests.ros.remote import Remote
from tests.stereo_pair import rectified_pair

_MS = 1_000_000
_FRAME_NS = 100 * _MS
_RELIABLE = qos_profile("reliable", 0)
_PARAMETERS = (
    "camera_type:=stereo",
    "extractor:=silk-vggnp-mu",
    "rectified:=true",
    "queue_policy:=every_frame",
    "image_qos:=reliable",
    "stereo_slop_ms:=10.0",
    "stereo_queue_size:=4",
    "max_num_keypoints:=300",
)


class _Rig(SpinningNode):
    """Publishes the images and calibrations of two cameras, and collects what the node makes of them."""

    def __init__(self, domain_id: int, kind: type = Image) -> None:
        super().__init__("rig", domain_id)
        suffix = "" if kind is Image else "/compressed"
        self.images = {
            side: self.node.create_publisher(kind, f"{side}/image{suffix}", _RELIABLE) for side in ("left", "right")
        }
        self.infos = {
            side: self.node.create_publisher(CameraInfo, f"{side}/camera_info", _RELIABLE) for side in ("left", "right")
        }
        self.received: dict[str, list[Any]] = {}
        for topic, kind_out in (
            ("status", FrameStatus),
            ("stereo_matches", Matches),
            ("right/features", Features),
            ("points", PointCloud2),
            ("/diagnostics", DiagnosticArray),
        ):
            self.received[topic] = []
            self.node.create_subscription(kind_out, topic, self.received[topic].append, _RELIABLE)
        self.start()

    def wait_for_node(self) -> None:
        publishers = [*self.images.values(), *self.infos.values()]
        wait_until(lambda: all(p.get_subscription_count() for p in publishers), "the node's subscriptions")
        wait_until(lambda: bool(self.node.count_publishers("points")), "the node's topics")

    def send(self, side: str, stamp_ns: int, pixels: npt.NDArray[np.uint8] | None = None) -> None:
        pair = rectified_pair()
        chosen = (pair.left if side == "left" else pair.right) if pixels is None else pixels
        image = array_to_image(chosen, "rgb8", stamp_from_ns(stamp_ns), side)
        publisher = self.images[side]
        if publisher.msg_type is CompressedImage:
            compressed = CompressedImage(header=image.header, format="rgb8; png compressed bgr8")
            compressed.data = cv2.imencode(".png", chosen[..., ::-1])[1].tobytes()
            publisher.publish(compressed)
        else:
            publisher.publish(image)

    def send_pair(self, stamp_ns: int, later_ns: int = 0) -> None:
        self.send("left", stamp_ns)
        self.send("right", stamp_ns + later_ns)

    def calibrate(self) -> None:
        for side, calibration in zip(("left", "right"), rectified_pair().calibrations, strict=True):
            self.infos[side].publish(camera_info_message(calibration, stamp_from_ns(0), side))

    def statuses(self, count: int) -> list[FrameStatus]:
        wait_until(lambda: len(self.received["status"]) >= count, f"{count} statuses")
        statuses: list[FrameStatus] = self.received["status"]
        assert len(statuses) == count
        for number, status in enumerate(statuses, 1):
            ended = status.frames_processed + status.frames_dropped + status.frames_refused
            assert status.frames_received == ended == number
        return statuses

    def diagnostics(self) -> tuple[str, dict[str, str]]:
        """The next message and its values."""
        seen = len(self.received["/diagnostics"])
        wait_until(lambda: len(self.received["/diagnostics"]) > seen, "diagnostics")
        (status,) = self.received["/diagnostics"][-1].status
        return status.message, {entry.key: entry.value for entry in status.values}


@pytest.fixture
def rig(domain_id: int) -> Iterator[_Rig]:
    with _Rig(domain_id) as rig:
        yield rig


def _send_until_calibrated(rig: _Rig) -> int:
    """Sends pairs some ms apart until one has points; how many that took."""
    rig.calibrate()
    for count in range(1, 90):
        rig.send_pair(count * _MS)
        if "points by a baseline of 0.12 m" in rig.statuses(count)[-1].reason:
            return count
    pytest.fail("the calibrations never arrived")


def test_every_left_image_ends_in_one_status(rig: _Rig, domain_id: int) -> None:
    with RunningNode(domain_id, *_PARAMETERS):
        rig.wait_for_node()
        first = _send_until_calibrated(rig)
        for frame in (1, 2, 3):
            rig.send_pair(frame * _FRAME_NS, later_ns=frame * _MS)
        assert [status.state for status in rig.statuses(first + 3)[first:]] == [FrameStatus.OK] * 3
        wait_until(lambda: len(rig.received["points"]) == 4, "points")
        assert min(cloud.width for cloud in rig.received["points"]) > 100
        later = [stamp_to_ns(m.header.stamp) - stamp_to_ns(m.stamp0) for m in rig.received["stereo_matches"]]
        assert later[-3:] == [1 * _MS, 2 * _MS, 3 * _MS]

        # One without a right image at all, one whose right image is beyond the slop: the pair that follows ends both.
        rig.send("left", 4 * _FRAME_NS)
        rig.send_pair(5 * _FRAME_NS, later_ns=11 * _MS)
        rig.send_pair(6 * _FRAME_NS, later_ns=-2 * _MS)
        by_number = {stamp_to_ns(s.header.stamp) // _FRAME_NS: s for s in rig.statuses(first + 6)[first + 3 :]}
        assert sorted(by_number) == [4, 5, 6]
        for number in (4, 5):
            assert by_number[number].state == FrameStatus.DROPPED
            assert by_number[number].reason == "no right image came for it, but one for a later left image"

        # More than the queue holds, without any right image; two of one stamp; one from before 1970.
        for frame in (7, 8, 9, 9, 10, 11, -5):
            rig.send("left", frame * _FRAME_NS)
        assert [status.reason for status in rig.statuses(first + 9)[first + 6 :]] == [
            "another image of the same stamp came before its right image",
            "no right image within 10 ms came until 4 later left ones waited",
            "its stamp is -0.5 s; a pair needs stamps from 0 on",
        ]

        # A bag that restarts, while images of before still wait on both sides.
        rig.send("right", 40 * _FRAME_NS)
        rig.send_pair(1 * _FRAME_NS)
        rig.send_pair(2 * _FRAME_NS)
        statuses = rig.statuses(first + 15)[first + 9 :]
        lost = [status.reason for status in statuses if status.state == FrameStatus.DROPPED]
        assert lost == ["the stamps went back before its right image came"] * 4
        found = [(s.state, s.header.stamp.nanosec, s.reason) for s in statuses if s.state != FrameStatus.DROPPED]
        again = "the stamp went back by 0.5 s, as in a bag that is played again"
        assert found == [(FrameStatus.FIRST, 1 * _FRAME_NS, again), (FrameStatus.OK, 2 * _FRAME_NS, "")]

        rig.send("left", 3 * _FRAME_NS)
        rig.send("right", 3 * _FRAME_NS, np.zeros((8, 8, 3), np.uint8))
        assert rig.statuses(first + 16)[-1].state == FrameStatus.ERROR
        _, values = rig.diagnostics()
        assert values["Pairs since start"] == str(first + 7)
        assert (values["Images missing (estimated)"], values["Right images missing (estimated)"]) == ("unknown",) * 2
        assert (values["Unpaired left images since start"], values["Unpaired right images since start"]) == ("9", "2")
        assert values["Stereo"] == "points by a baseline of 0.12 m"


def test_calibrations_that_were_latched_before_the_node_are_in_use(rig: _Rig, domain_id: int) -> None:
    for side, calibration in zip(("left", "right"), rectified_pair().calibrations, strict=True):
        rig.node.create_publisher(CameraInfo, f"{side}/camera_info", qos_profile("transient_local", 1)).publish(
            camera_info_message(calibration, stamp_from_ns(0), side)
        )
    with RunningNode(domain_id, *_PARAMETERS):
        rig.wait_for_node()
        wait_until(lambda: all(p.get_subscription_count() for p in rig.infos.values()), "the subscriptions")
        for count in range(1, 90):
            rig.send_pair(count * _MS)
            if "points by a baseline of 0.12 m" in rig.statuses(count)[-1].reason:
                return
    pytest.fail("the latched calibrations never arrived")


def test_the_subscriptions_go_and_come_with_the_lifecycle(rig: _Rig, domain_id: int) -> None:
    with RunningNode(domain_id, *_PARAMETERS) as node:
        rig.wait_for_node()
        remote = Remote(rig.node)
        rig.send("left", 1 * _FRAME_NS)
        wait_until(lambda: float(rig.diagnostics()[1]["Rate left (Hz)"]) > 0, "the image to arrive")
        assert remote.change_state("deactivate")
        assert rig.statuses(1)[0].reason == "the node was deactivated before this image was processed"
        publishers = [*rig.images.values(), *rig.infos.values()]
        wait_until(lambda: not any(p.get_subscription_count() for p in publishers), "the end of the subscriptions")
        assert remote.change_state("activate")
        rig.wait_for_node()
        rig.send_pair(2 * _FRAME_NS)
        assert rig.statuses(2)[1].reason.startswith("the node was inactive")
        assert remote.change_state("deactivate")
        assert remote.change_state("cleanup")
        wait_until(lambda: not rig.node.count_publishers("points"), "the end of the topics")
        assert remote.change_state("configure")
        assert remote.change_state("activate")
        rig.wait_for_node()
        rig.send_pair(3 * _FRAME_NS)
        assert rig.statuses(3)[2].state == FrameStatus.FIRST
        status, _, output = node.interrupt()
        assert status == 0
        assert "Traceback" not in output


def test_nothing_that_pairs_is_reported_with_what_is_seen(rig: _Rig, domain_id: int) -> None:
    with RunningNode(domain_id, *_PARAMETERS) as node:
        rig.wait_for_node()
        begin_s = time.monotonic()
        apart = "no pair for 5 s, though images arrive on the left"
        frame = 0
        while apart not in (message := rig.diagnostics()[0]):
            assert time.monotonic() < begin_s + 60
            frame += 1
            for side, shift_ns in (("left", 0), ("right", 40 * _MS)):
                rig.send(side, frame * _FRAME_NS + shift_ns)
        assert re.search(r"left at \d\.\d Hz and on the right at \d\.\d Hz: the newest stamps are \d+\.\d{6}", message)
        assert "40.000 ms apart, and stereo_slop_ms is 10" in message

        def only_left_is_reported() -> bool:
            nonlocal frame
            frame += 1
            rig.send("left", frame * _FRAME_NS)
            return "right ones do not arrive at all; compare topic and QoS" in rig.diagnostics()[0]

        wait_until(only_left_is_reported, "the report of one side", 60)
        _, _, output = node.interrupt()
    assert "no pair for 5 s" in output
    assert "(/left/image: 1 reliable publisher; /right/image: 1 reliable publisher; image_qos is reliable)" in output
    assert output.count("no pair for 5 s") <= 2


def test_compressed_pairs_are_taken_too(domain_id: int) -> None:
    with _Rig(domain_id, CompressedImage) as rig, RunningNode(domain_id, *_PARAMETERS, "image_transport:=compressed"):
        rig.wait_for_node()
        rig.send_pair(_FRAME_NS)
        (status,) = rig.statuses(1)
        assert (status.state, status.keypoints) == (FrameStatus.FIRST, 300)
        wait_until(lambda: len(rig.received["stereo_matches"]) == 1, "stereo matches")
        assert rig.received["stereo_matches"][0].count > 100
