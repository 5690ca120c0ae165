"""Cameras that never stop, and a log of the front-ends' reports on each image."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from feature_frontend_msgs.msg import Features, FrameStatus, Matches, Tracks
from sensor_msgs.msg import CameraInfo, Image

from benchmarks.spinning_node import SpinningNode
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns, stamp_to_ns

__all__ = ["RESULTS", "Cameras", "Heard", "Result", "Sent"]

# Of each topic of a front-end, of which every image processed has a message.
RESULTS = {"features": Features, "matches": Matches, "tracks": Tracks}
Uint8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sent:
    """An image, or a pair of them, on its way.

    Attributes:
        stamp_ns: Its stamp.
        at_s: When it was sent, by the steady clock.
    """

    stamp_ns: int
    at_s: float


@dataclass(frozen=True)
class Heard:
    """A status as it came.

    Attributes:
        status: The message.
        stamp_ns: Stamp of its image.
        at_s: When it came, by the steady clock.
    """

    status: FrameStatus
    stamp_ns: int
    at_s: float


@dataclass(frozen=True)
class Result:
    """What is remembered of a message of `features`, `matches` or `tracks`."""

    run_id: int
    resets: int
    count: int
    least_id: int
    largest_id: int


class Cameras(SpinningNode):
    """Sends each front-end its images until it is told to end, and keeps what the front-ends answer.

    Args:
        domain_id: ROS domain.
        images: Left image, and the right one of two cameras, of each front-end, by namespace; they go by in a circle.
        periods_s: From image to image.

    Attributes:
        sent: Of each front-end.
        heard: Every status of each front-end.
        results: By namespace, topic and stamp in ns.
    """

    def __init__(
        self, domain_id: int, images: Mapping[str, list[tuple[Uint8Array, ...]]], periods_s: Mapping[str, float]
    ) -> None:
        super().__init__("cameras", domain_id)
        self.sent: dict[str, list[Sent]] = {name: [] for name in images}
        self.heard: dict[str, list[Heard]] = {name: [] for name in images}
        self.results: dict[str, dict[str, dict[int, Result]]] = defaultdict(lambda: defaultdict(dict))
        self._ended = threading.Event()
        keep_all = qos_profile("reliable", 0)
        self._threads = []
        for name, sets in images.items():
            self.node.create_subscription(FrameStatus, f"/{name}/status", partial(self._hear, name), keep_all)
            cameras = len(sets[0])
            for topic, kind in RESULTS.items():
                side = "left/" if cameras > 1 and topic == "features" else ""
                keep = partial(self._keep, name, topic)
                self.node.create_subscription(kind, f"/{name}/{side}{topic}", keep, keep_all)
            send = self._sender(name, cameras)
            thread = threading.Thread(target=self._send, args=(name, sets, periods_s[name], send), daemon=True)
            self._threads.append(thread)

    def start(self) -> None:
        """Begins to send and to receive."""
        super().start()
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Sends no more images."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _sender(self, name: str, cameras: int) -> Callable[[int, tuple[Uint8Array, ...]], None]:
        # Deep enough for what comes while a front-end has no processor, bounded for readers that were killed.
        qos = qos_profile("reliable", 100)
        sides = ("",) if cameras == 1 else ("left/", "right/")
        publishers = [self.node.create_publisher(Image, f"/{name}/{side}image", qos) for side in sides]
        infos = [self.node.create_publisher(CameraInfo, f"/{name}/{side}camera_info", qos) for side in sides]

        def send(stamp_ns: int, images: tuple[Uint8Array, ...]) -> None:
            stamp = stamp_from_ns(stamp_ns)
            for number, (image, publisher, publisher_of_info) in enumerate(zip(images, publishers, infos, strict=True)):
                height, width = image.shape
                info = CameraInfo(height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5)
                info.header.stamp = stamp
                # The second camera is 0.12 m to the right of the first one.
                info.k = [200.0, 0.0, width / 2, 0.0, 200.0, height / 2, 0.0, 0.0, 1.0]
                info.p = [200.0, 0.0, width / 2, -24.0 * number, 0.0, 200.0, height / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
                publisher_of_info.publish(info)
                publisher.publish(array_to_image(image, "mono8", stamp, "camera"))

        return send

    def _send(
        self,
        name: str,
        sets: list[tuple[Uint8Array, ...]],
        period_s: float,
        send: Callable[[int, tuple[Uint8Array, ...]], None],
    ) -> None:
        next_s = time.monotonic()
        while not self._ended.is_set():
            stamp_ns = time.time_ns()
            # Before it is sent: the answer may be there before this thread goes on.
            self.sent[name].append(Sent(stamp_ns, time.monotonic()))
            send(stamp_ns, sets[len(self.sent[name]) % len(sets)])
            next_s += period_s
            self._ended.wait(max(0.0, next_s - time.monotonic()))

    def _hear(self, name: str, status: FrameStatus) -> None:
        self.heard[name].append(Heard(status, stamp_to_ns(status.header.stamp), time.monotonic()))

    def _keep(self, name: str, topic: str, message: Any) -> None:
        ids = getattr(message, "ids", ())
        result = Result(message.run_id, message.resets, message.count, min(ids, default=0), max(ids, default=0))
        self.results[name][topic][stamp_to_ns(message.header.stamp)] = result
