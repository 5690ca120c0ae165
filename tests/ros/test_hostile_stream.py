"""Hostile messages on every topic of a running node, among good frames: no good frame is lost or late."""

from __future__ import annotations

import random
import re
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend_msgs.msg import FrameStatus
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns
from tests.campaign import Campaign
from tests.generated import for_each
from tests.memory import own_mib
from tests.ros.harness import Client, RunningNode, wait_until
from tests.ros.hostile_messages import camera_infos, compressed_images, images, masks, spoiled_cdr

_FRAME_NS = 100_000_000
# Hostile messages for a good frame: half of them before it, half of them after it.
_PER_FRAME = 40
# The history of the node's subscription holds 5: what more of them overwrote would never have reached the node.
_MOST_IMAGES_AFTER = 4
_QUIET_FRAMES = 20
_MAX_DELAY_S = 0.3
_MAX_GROWTH_MIB = 100
_LOST_S = 5.0
# What the node may say, in lines a second: one site every 5 s, a few every 10 s.
_LINES, _LINES_PER_S = 20, 1.0
# rmw_fastrtps writes of each malformed message to stderr, past all loggers, and nothing of ours can stop it.
_OF_MIDDLEWARE = re.compile(
    r"sequence size exceeds|>>> \[rcutils|This error state|  '|with this new error|rcutils_reset_error|<<<"
)
_STATES = {value: name for name, value in FrameStatus.__dict__.items() if name.isupper() and isinstance(value, int)}
Uint8Array = npt.NDArray[np.uint8]


class _Stream:
    """Good frames, of which each is waited for, and what is sent around them."""

    def __init__(self, client: Client, image: Uint8Array, transport: str, seed: int) -> None:
        self._client = client
        self._image = image
        self._chance = random.Random(seed)
        self._frames = 0
        self._waiting: list[tuple[str, Any]] = []
        # The node's subscriptions are best effort, as they are by default. A reliable one never confirms a malformed
        # message, and so hears nothing of its writer any more: the attack would be over with its first hundred.
        node, best_effort = client.node, qos_profile("sensor_data", 1000)
        kind, topic = (Image, "image") if transport == "raw" else (CompressedImage, "image/compressed")
        self.publishers = {
            "image": node.create_publisher(kind, topic, best_effort),
            "mask": node.create_publisher(Image, "mask", best_effort),
            "camera_info": node.create_publisher(CameraInfo, "camera_info", best_effort),
        }
        # A node that is deaf to one of them would pass.
        wait_until(lambda: all(p.get_subscription_count() for p in self.publishers.values()), "the node's topics")
        self.sent: Counter[str] = Counter()
        self.fates: Counter[str] = Counter()
        self.delays_s: list[float] = []
        self.unexplained: list[FrameStatus] = []
        self._by_stamp: dict[tuple[int, int], FrameStatus] = {}
        self._seen = 0

    def attack(self, topic: str, message: Any) -> None:
        """Keeps a message until there are enough for a good frame."""
        self._waiting.append((topic, message))
        if len(self._waiting) == _PER_FRAME:
            self.good_frame()

    def good_frame(self) -> None:
        """Sends a good frame, with its mask before it, in the midst of what is kept, and waits for its fate."""
        before, after = self._waiting[: _PER_FRAME // 2], self._waiting[_PER_FRAME // 2 :]
        self._waiting = []
        before += [drawn for drawn in after if drawn[0] == "image"][_MOST_IMAGES_AFTER:]
        after = [drawn for drawn in after if not any(drawn is moved for moved in before)]
        for topic, message in before:
            self._send(topic, message)
        self._frames += 1
        stamp_ns = self._frames * _FRAME_NS
        mask = array_to_image(np.ones(self._image.shape[:2], np.uint8), "mono8", stamp_from_ns(stamp_ns), "camera")
        self.publishers["mask"].publish(mask)
        start_s = time.monotonic()
        self._client.send_pixels(self._image, stamp_ns)
        for topic, message in after:
            self._send(topic, message)
        stamp = stamp_from_ns(stamp_ns)
        while (status := self._status((stamp.sec, stamp.nanosec))) is None:
            time.sleep(0.002)
            if time.monotonic() - start_s > _LOST_S:
                # Best effort: what the middleware loses never was the node's.
                self.fates["never received"] += 1
                return
        self.delays_s.append(self._arrived_s - start_s)
        self.fates[_STATES[status.state]] += 1
        if status.state == FrameStatus.ERROR or (status.state == FrameStatus.DROPPED and not status.reason):
            self.unexplained.append(status)

    def _send(self, topic: str, message: Any) -> None:
        if not isinstance(message, bytes):
            # Stamps that no good frame has, of before, of the same time, of the future, and such as are none.
            near_ns = self._frames * _FRAME_NS + self._chance.randrange(1, _FRAME_NS - 1)
            message.header.stamp = stamp_from_ns(near_ns)
            message.header.frame_id = "hostile" * self._chance.choice([1, 1, 1, 2000])
            if self._chance.random() < 0.1:
                message.header.stamp.sec = self._chance.choice([-(2**31), -1, 2**31 - 1])
                message.header.stamp.nanosec = self._chance.choice([1, 2**32 - 1])
        self.publishers[topic].publish(message)
        self.sent["malformed CDR" if isinstance(message, bytes) else topic] += 1

    def _status(self, stamp: tuple[int, int]) -> FrameStatus | None:
        received = self._client.received["status"]
        while self._seen < len(received):
            status = received[self._seen]
            self._seen += 1
            if status.header.frame_id == "camera":
                self._by_stamp[status.header.stamp.sec, status.header.stamp.nanosec] = status
                self._arrived_s = time.monotonic()
        return self._by_stamp.get(stamp)


def _hostile(transport: str) -> st.SearchStrategy[tuple[str, Any]]:
    """Of each kind as many; malformed CDR on each topic."""
    pictures = images() if transport == "raw" else compressed_images()
    of_topics = {"image": pictures, "mask": masks(), "camera_info": camera_infos()}
    whole = [st.tuples(st.just(topic), messages) for topic, messages in of_topics.items()]
    spoiled = [st.tuples(st.just(topic), spoiled_cdr(messages)) for topic, messages in of_topics.items()]
    return st.one_of(*whole, st.one_of(*spoiled))


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_good_frames_among_hostile_messages(
    transport: str,
    domain_id: int,
    photographs: list[Uint8Array],
    campaign: Campaign,
    report_figure: Callable[[str], None],
) -> None:
    # Half of the 50,000 for each transport; an ordinary run does a hundredth, which takes its time.
    count = campaign.count(25_000 if campaign.is_whole else 4000, "messages")
    image = np.ascontiguousarray(photographs[0][:240, :320])
    parameters = (
        "extractor:=silk-vggnp-mu",
        "mask_topic:=true",
        f"image_transport:={transport}",
    )
    with RunningNode(domain_id, *parameters) as running, Client(domain_id, transport) as client:
        lines: list[str] = []
        assert running.process.stdout is not None
        # All of it, as it comes: a full pipe would stop the node.
        reading = threading.Thread(target=lines.extend, args=(running.process.stdout,), daemon=True)
        reading.start()
        client.wait_for_node()
        stream = _Stream(client, image, transport, campaign.seed)
        for _ in range(_QUIET_FRAMES):
            stream.good_frame()
        quiet_s, stream.delays_s = stream.delays_s, []
        assert set(stream.fates) <= {"OK", "FIRST", "DEGENERATE", "never received"}, stream.fates
        stream.fates.clear()
        # The first messages of every kind make caches and pools that stay.
        for_each(_hostile(transport), min(count // 4, 1000), lambda drawn: stream.attack(*drawn), campaign.seed)
        before_mib, lines_before, start_s = own_mib(running.process.pid), len(lines), time.monotonic()
        for_each(_hostile(transport), count, lambda drawn: stream.attack(*drawn), campaign.seed + 1)
        took_s, growth_mib = time.monotonic() - start_s, own_mib(running.process.pid) - before_mib
        hostile_s, stream.delays_s = stream.delays_s, []
        after = FrameStatus.DROPPED
        while after not in {FrameStatus.OK, FrameStatus.FIRST, FrameStatus.DEGENERATE}:
            stream.good_frame()
            after = client.received["status"][-1].state
        last = client.received["status"][-1]
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGINT)
        code = running.process.wait(20)
        reading.join(20)
    ordinary_s = statistics.median(quiet_s)
    worst_s = max(hostile_s) - ordinary_s
    heard = Counter(status.header.frame_id[:7] for status in client.received["status"])
    said = [line for line in lines[lines_before:] if line.strip() and not _OF_MIDDLEWARE.match(line)]
    report_figure(
        f"{transport}: {stream.sent.total()} hostile messages ({dict(stream.sent)}) in {took_s:.0f} s, "
        f"{stream.fates.total()} good frames: {dict(stream.fates)}; a good frame takes {1e3 * ordinary_s:.0f} ms, at "
        f"most {1e3 * max(quiet_s):.0f} ms, without them; with them at most {1e3 * worst_s:+.0f} ms, 99th percentile "
        f"{1e3 * (np.percentile(hostile_s, 99) - ordinary_s):+.0f} ms; memory of its own {growth_mib:+.0f} MiB; "
        f"{len(said)} lines of log, {len(lines) - lines_before - len(said)} of the middleware; "
        f"{heard['hostile']} hostile images answered"
    )
    assert code == 0, "".join(lines[-60:])
    assert last.frames_received == last.frames_processed + last.frames_dropped + last.frames_refused
    assert not stream.unexplained, stream.unexplained[:3]
    assert stream.fates.total() >= count // _PER_FRAME
    assert stream.fates["never received"] <= max(2, stream.fates.total() // 50)
    # The attack must have reached the node, to the end.
    assert heard["hostile"] > stream.sent["image"] // 4
    assert stream.fates["OK"] + stream.fates["FIRST"] + stream.fates["DEGENERATE"] > 0
    assert growth_mib < _MAX_GROWTH_MIB
    assert len(said) < _LINES + _LINES_PER_S * took_s, "".join(said[-50:])
    assert not [line for line in lines if "the node goes on" in line or "Traceback" in line]
    refused = [status for status in client.received["status"] if status.state == FrameStatus.ERROR]
    # An error that is not the project's own is told as "SomeError: ...", and nobody's words are endless.
    assert not {status.reason for status in refused if "Error: " in status.reason or not status.reason}
    assert max(len(status.reason) for status in refused) < 5000
    assert max(len(status.header.frame_id) for status in client.received["status"]) < 2000
    assert min(stream.sent.values()) > count // 10
    if campaign.is_whole:
        assert worst_s < _MAX_DELAY_S
