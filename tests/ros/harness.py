"""A real node as a separate process, and a client that sends images and collects the results."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from feature_frontend_msgs.msg import Features, FrameStatus, Matches, Tracks
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from benchmarks.spinning_node import SpinningNode
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.ros.callback_guard import GuardedExecutor
from feature_frontend.ros.distribution import dds_profile_variable, localhost_only
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.node import FrontendNode
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.settings import Settings
from tests.core.seeded import seeded_extractor

__all__ = ["NO_CALIBRATION", "SHARED_MEMORY", "Client", "RunningNode", "node_in_this_process", "wait_until"]

# What the status of the first frame says where no camera_info is published.
NO_CALIBRATION = "no camera_info has arrived; normalized_keypoints are empty"

# Fast DDS 2 and 3 begin the names of their files so.
SHARED_MEMORY = ("/dev/shm/fastrtps_", "/dev/shm/fastdds_")
_TIMEOUT_S = 120.0
_PROFILE = Path(__file__).resolve().parents[2] / "config" / "fastdds_shared_memory.xml"


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = _TIMEOUT_S) -> None:
    """Returns when `condition()` holds; fails the test, saying `what`, when it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.01)


def _shared_memory(pid: int) -> set[Path]:
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    return {Path(name) for line in lines if (name := line.split()[-1]).startswith(SHARED_MEMORY)}


@contextmanager
def node_in_this_process() -> Iterator[FrontendNode]:
    """A real node with a seeded network, in a thread of its own; `rclpy.init` has been called."""

    def load(settings: Settings) -> Frontend:
        return Frontend(seeded_extractor(settings), settings)

    node = FrontendNode(load)
    executor = GuardedExecutor(node.guard)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown()
        thread.join(10)
        assert node.stop()
        node.destroy_node()


class RunningNode:
    """The executable `frontend`; ends with the block, by Ctrl-C first.

    A callback that has raised, which the node survives and only logs, fails the test unless it `may_fail`.
    """

    def __init__(self, domain_id: int, *parameters: str, arguments: Sequence[str] = (), may_fail: bool = False) -> None:
        self._may_fail = may_fail
        # Compiling in the background and tracking would take the cores from the tests that run meanwhile.
        tracker = [] if any(parameter.startswith("tracker:=") for parameter in parameters) else ["tracker:=chain"]
        chosen = ("compile:=false", *tracker, *parameters)
        given = [part for parameter in chosen for part in ("-p", parameter)]
        environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(domain_id),
            **localhost_only(),
            dds_profile_variable(): str(_PROFILE),
        }
        # Processes of other domains, and some that were killed, share a few of the files.
        self._of_others = {Path(entry.path) for entry in os.scandir("/dev/shm") if entry.path.startswith(SHARED_MEMORY)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "feature_frontend", "frontend", "--ros-args", *given, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> RunningNode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.interrupt()

    def shared_memory(self) -> set[Path]:
        """The files of FastDDS under /dev/shm that the node has open, but for those that others had before it."""
        return _shared_memory(self.process.pid) - self._of_others

    def interrupt(self) -> tuple[int, float, str]:
        """Presses Ctrl-C; exit status, seconds it took, and everything that the node printed."""
        start_s = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        try:
            output, _ = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert self._may_fail or "the node goes on" not in output, output
        return self.process.returncode, time.monotonic() - start_s, output


class Client(SpinningNode):
    """Publishes images, raw or compressed, and collects all that the node publishes, by topic."""

    def __init__(self, domain_id: int, image_transport: str = "raw", image_topic: str = "image") -> None:
        super().__init__("client", domain_id)
        reliable = qos_profile("reliable", 0)
        if image_transport == "raw":
            self._image_publisher = self.node.create_publisher(Image, image_topic, reliable)
        else:
            self._image_publisher = self.node.create_publisher(CompressedImage, f"{image_topic}/compressed", reliable)
        self._camera_info_publisher = self.node.create_publisher(CameraInfo, "camera_info", reliable)
        self.received: dict[str, list[Any]] = {}
        for topic, kind in (("features", Features), ("matches", Matches), ("tracks", Tracks), ("status", FrameStatus)):
            self.received[topic] = []
            self.node.create_subscription(kind, topic, self.received[topic].append, reliable)
        self.start()

    def wait_for_node(self) -> None:
        """Returns when all topics of the node and of the client have found each other."""

        def all_matched() -> bool:
            listening = self._image_publisher.get_subscription_count() and (
                self._camera_info_publisher.get_subscription_count()
            )
            return bool(listening) and all(self.node.count_publishers(topic) for topic in self.received)

        wait_until(all_matched, "the node's topics")

    def wait_until_nobody_listens(self) -> None:
        """Returns when the node's subscriptions have ended, so that `wait_for_node` waits for new ones."""
        publishers = (self._image_publisher, self._camera_info_publisher)
        wait_until(lambda: not any(p.get_subscription_count() for p in publishers), "the end of the subscriptions")

    def send(self, message: Image | CompressedImage) -> None:
        """Publishes an image message as it is."""
        self._image_publisher.publish(message)

    def send_pixels(self, pixels: np.ndarray, stamp_ns: int, encoding: str = "") -> None:
        """Publishes an (H, W) or (H, W, 3) array; compressed without loss where that is the transport."""
        encoding = encoding or ("mono8" if pixels.ndim == 2 else "rgb8")
        message = array_to_image(pixels, encoding, stamp_from_ns(stamp_ns), "camera")
        self.send(message if self._image_publisher.msg_type is Image else _compressed(message, pixels))

    def send_camera_info(self, message: CameraInfo) -> None:
        """Publishes a calibration."""
        self._camera_info_publisher.publish(message)

    def wait_for(self, topic: str, count: int) -> list[Any]:
        """The messages of `topic` once there are `count`."""
        wait_until(lambda: len(self.received[topic]) >= count, f"{count} messages on {topic}")
        return self.received[topic]


def _compressed(message: Image, pixels: np.ndarray) -> CompressedImage:
    """As compressed_image_transport writes it with the codec png."""
    is_colour = pixels.ndim == 3
    description = f"{message.encoding}; png compressed {'bgr8' if is_colour else ''}"
    compressed = CompressedImage(header=message.header, format=description)
    compressed.data = cv2.imencode(".png", pixels[..., ::-1] if is_colour else pixels)[1].tobytes()
    return compressed
