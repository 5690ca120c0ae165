"""Masks through the real node: from a file and from a topic, paired by stamp, missing, malformed, changed live."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from diagnostic_msgs.msg import DiagnosticArray
from feature_frontend_msgs.msg import Features, FrameStatus
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image

from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns
from tests.ros.harness import NO_CALIBRATION, Client, RunningNode, wait_until
from tests.ros.remote import Remote

_FRAME_NS = 100_000_000
Uint8Array = npt.NDArray[np.uint8]


_UPPER = np.zeros((480, 640), np.uint8)
_UPPER[:240] = 255


class _Sender:
    """Sends frames and masks by number, and reads what came of a frame."""

    def __init__(self, client: Client, publisher: Publisher, photograph: Uint8Array) -> None:
        self._client = client
        self._publisher = publisher
        self._photograph = photograph
        self._sent = 0
        self._remote = Remote(client.node)

    def image(self, frame: int) -> None:
        self._client.send_pixels(self._photograph, frame * _FRAME_NS)
        self._sent += 1

    def mask(self, frame: int, pixels: Uint8Array, encoding: str = "mono8") -> None:
        self.send(array_to_image(pixels, encoding, stamp_from_ns(frame * _FRAME_NS), "camera"))

    def send(self, mask: Image) -> None:
        self._publisher.publish(mask)

    def status_of(self, frame: int) -> FrameStatus:
        """Sends a frame and returns what became of it."""
        self.image(frame)
        return self.status()

    def status(self) -> FrameStatus:
        """What became of the frame sent last."""
        status: FrameStatus = self._client.wait_for("status", self._sent)[-1]
        return status

    def rows_and_columns(self) -> npt.NDArray[np.int64]:
        """(2, N), the pixels on which the keypoints of the latest frame lie."""
        features: Features = self._client.received["features"][-1]
        points = np.frombuffer(features.keypoints, np.float32).reshape(-1, 2)
        return np.floor(points + 0.5).astype(np.int64).T[::-1]

    def diagnostics(self, key: str) -> str:
        """A value of the next message on /diagnostics."""
        received: list[DiagnosticArray] = []
        subscription = self._client.node.create_subscription(DiagnosticArray, "/diagnostics", received.append, 1)
        wait_until(lambda: len(received) > 0, "diagnostics")
        self._client.node.destroy_subscription(subscription)
        return next(entry.value for entry in received[-1].status[0].values if entry.key == key)

    def set(self, name: str, value: object) -> tuple[bool, str]:
        (result,) = self._remote.set(**{name: value})
        return result


@pytest.fixture
def right_half(tmp_path: Path) -> str:
    """A mask file for 640x480 px that lets the right half be used."""
    pixels = np.zeros((480, 640), np.uint8)
    pixels[:, 320:] = 1
    path = str(tmp_path / "right.png")
    assert cv2.imwrite(path, pixels)
    return path


@pytest.fixture
def sender(domain_id: int, right_half: str, photographs: list[Uint8Array]) -> Iterator[_Sender]:
    parameters = (
        "extractor:=silk-vggnp-mu",
        "queue_policy:=every_frame",
        "image_qos:=reliable",
        "max_num_keypoints:=300",
        f"mask_path:={right_half}",
        "mask_topic:=true",
        "mask_timeout_ms:=400.0",
    )
    with RunningNode(domain_id, *parameters), Client(domain_id) as client:
        publisher = client.node.create_publisher(Image, "mask", qos_profile("reliable", 0))
        client.wait_for_node()
        wait_until(lambda: publisher.get_subscription_count() > 0, "the node to listen to mask")
        yield _Sender(client, publisher, photographs[0])


def test_file_and_topic_both_decide_and_what_is_missing_is_said(sender: _Sender) -> None:
    sender.image(1)
    time.sleep(0.1)  # the mask comes after its image, as a segmentation's does
    sender.mask(1, _UPPER)
    status = sender.status()
    assert (status.state, status.reason, status.keypoints) == (FrameStatus.FIRST, NO_CALIBRATION, 300)
    assert status.latency_ms > 90
    assert status.conversion_ms + status.extraction_ms < status.latency_ms
    rows, columns = sender.rows_and_columns()
    assert rows.max() < 240
    assert columns.min() >= 320

    sender.mask(2, 255 - _UPPER)
    status = sender.status_of(2)
    assert (status.state, status.reason) == (FrameStatus.OK, "")
    assert sender.rows_and_columns()[0].min() >= 240

    status = sender.status_of(3)
    assert status.state == FrameStatus.OK
    assert status.reason == "its mask did not come within 400 ms: used that of 100 ms before (1 so far)"
    assert sender.rows_and_columns()[0].min() >= 240

    sender.mask(5, _UPPER)
    reason = "a later image's mask came instead of its own: used that of 200 ms before (2 so far)"
    assert sender.status_of(4).reason == reason
    assert sender.status_of(5).reason == ""
    assert sender.rows_and_columns()[0].max() < 240

    assert sender.set("mask_missing", "none") == (True, "")
    assert sender.status_of(6).reason == "its mask did not come within 400 ms: used none (1 so far)"
    rows, columns = sender.rows_and_columns()
    assert rows.min() < 240 <= rows.max()
    assert sender.diagnostics("Masks") == "3 own, 2 of an earlier image, 1 none, 0 refused"
    assert columns.min() >= 320
    assert sender.set("mask_missing", "refuse")[0]
    assert sender.set("mask_timeout_ms", 0.0)[0]
    status = sender.status_of(7)
    assert status.state == FrameStatus.ERROR
    assert "did not come within 0 ms, and parameter mask_missing is 'refuse'" in status.reason
    assert (status.frames_received, status.frames_processed, status.frames_refused) == (7, 6, 1)


def test_the_grid_spreads_what_the_node_publishes(sender: _Sender) -> None:
    covered = []
    for frame, distribution in enumerate(("none", "grid"), start=1):
        assert sender.set("distribution", distribution) == (True, "")
        sender.mask(frame, _UPPER)
        assert sender.status_of(frame).keypoints == 300
        rows, columns = sender.rows_and_columns()
        covered.append(len(set(zip((rows // 40).tolist(), (columns // 40).tolist(), strict=True))))
        assert (rows.max() < 240, columns.min() >= 320) == (True, True)
    assert covered[1] > 1.2 * covered[0]


def test_a_wrong_mask_is_a_refusal_and_the_next_frame_is_well(sender: _Sender, tmp_path: Path) -> None:
    sender.mask(1, _UPPER[:240, :320])
    status = sender.status_of(1)
    assert status.state == FrameStatus.ERROR
    assert "the mask on topic mask is 320x240 px, but the image is 640x480 px" in status.reason
    sender.mask(2, np.dstack([_UPPER] * 3), "rgb8")
    assert "the mask on topic mask has encoding 'rgb8'; expected mono8" in sender.status_of(2).reason
    short = array_to_image(_UPPER, "mono8", stamp_from_ns(3 * _FRAME_NS), "camera")
    short.data = short.data[:100]
    sender.send(short)
    assert "the mask on topic mask is malformed: image data holds 100 bytes" in sender.status_of(3).reason

    successful, reason = sender.set("mask_path", "/nowhere.png")
    assert not successful
    assert "mask_path is '/nowhere.png', where there is no file" in reason
    small = str(tmp_path / "small.png")
    cv2.imwrite(small, _UPPER[::2, ::2])
    assert sender.set("mask_path", small)[0]
    sender.mask(4, _UPPER)
    reason = sender.status_of(4).reason
    assert f"the mask {small} is 320x240 px, but the image is 640x480 px" in reason
    assert sender.set("mask_path", "")[0]
    sender.mask(5, _UPPER)
    status = sender.status_of(5)
    assert (status.state, status.reason, status.frames_refused) == (FrameStatus.FIRST, NO_CALIBRATION, 4)
    rows, columns = sender.rows_and_columns()
    assert rows.max() < 240
    assert columns.min() < 320


@pytest.mark.slow
@pytest.mark.parametrize("timeout_ms", [0.0, 1000.0])
def test_a_segmentation_slower_than_the_camera(
    timeout_ms: float, domain_id: int, photographs: list[Uint8Array], report_figure: Callable[[str], None]
) -> None:
    small = np.ascontiguousarray(photographs[0][::4, ::4])
    frames, period_s, latency_s = 60, 0.1, 0.25  # a camera of 10 Hz, a segmentation of 4 Hz that takes the newest
    parameters = (
        "extractor:=silk-vggnp-mu",
        "image_qos:=reliable",
        "mask_topic:=true",
        f"mask_timeout_ms:={timeout_ms}",
        "max_num_keypoints:=300",
    )
    with RunningNode(domain_id, *parameters) as running, Client(domain_id) as client:
        publisher = client.node.create_publisher(Image, "mask", qos_profile("reliable", 0))
        client.wait_for_node()
        wait_until(lambda: publisher.get_subscription_count() > 0, "the node to listen to mask")
        sender = _Sender(client, publisher, small)
        newest, ended = [0], threading.Event()

        def segment() -> None:
            done = 0
            while not ended.is_set():
                frame = newest[0]
                if frame == done:
                    time.sleep(0.005)
                    continue
                time.sleep(latency_s)
                sender.mask(frame, _UPPER[::4, ::4])
                done = frame

        segmentation = threading.Thread(target=segment)
        segmentation.start()
        for frame in range(1, frames + 1):
            newest[0] = frame
            sender.image(frame)
            time.sleep(period_s)
        client.wait_for("status", frames)
        ended.set()
        segmentation.join()
        statuses: list[FrameStatus] = client.received["status"]
        sender.image(frames + 1)  # still waits when the node ends
        code, seconds, output = running.interrupt()
    assert (code, "Traceback" in output) == (0, False), output
    assert seconds < 5.0
    processed = [status for status in statuses if status.state in {FrameStatus.OK, FrameStatus.FIRST}]
    own = sum(status.reason == "" for status in processed)
    last = sum("used that of" in status.reason for status in processed)
    report_figure(
        f"camera 10 Hz, masks 4 Hz and 250 ms late, mask_timeout_ms {timeout_ms:g}: of {frames} frames "
        f"{len(processed)} processed, {own} with their own mask, {last} with the last one"
    )
    assert {status.state for status in statuses} <= {FrameStatus.OK, FrameStatus.FIRST, FrameStatus.DROPPED}
    assert len(processed) > 10
    assert (own if timeout_ms else last) > 0.7 * len(processed)


def test_a_start_with_a_mask_that_is_not_there_says_so_in_one_line(domain_id: int) -> None:
    with RunningNode(domain_id, "extractor:=silk-vggnp-mu", "mask_path:=/nowhere.png") as running:
        try:
            output, _ = running.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            pytest.fail("the node did not end")
    assert running.process.returncode == 1
    expected = (
        "error: parameter mask_path is '/nowhere.png', where there is no file; expected a PNG of the images' size"
    )
    assert output.strip() == f"{expected}, or ''"
