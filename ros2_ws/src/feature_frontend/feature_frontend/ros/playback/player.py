"""The publishing side of `play`: waits for subscribers, keeps the rate, and loses no image."""

from __future__ import annotations

import time
from dataclasses import dataclass

import cv2
import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from feature_frontend.errors import SourceError
from feature_frontend.image.encodings import encoding_of
from feature_frontend.ros.input.camera_info import camera_info_message
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.playback.flow_control import Answers
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.sources import Frame, ScheduledFrame

__all__ = ["ENCODINGS", "Player", "PlayerOptions"]

ENCODINGS = ("mono8", "rgb8", "bgr8")

# What `ros2 bag play --clock` publishes by default.
_CLOCK_PERIOD_S = 1 / 40
_POLL_S = 0.02
_ACKNOWLEDGEMENT_SLICE_S = 0.1
# Timeout for matching a subscription known to the graph; typical is less than a tenth of it.
_MATCH_GRACE_S = 2.0

_CONVERSIONS = {
    ("mono8", "rgb8"): cv2.COLOR_GRAY2RGB,
    ("mono8", "bgr8"): cv2.COLOR_GRAY2BGR,
    ("rgb8", "mono8"): cv2.COLOR_RGB2GRAY,
    ("rgb8", "bgr8"): cv2.COLOR_RGB2BGR,
}


@dataclass(frozen=True)
class PlayerOptions:
    """How to publish.

    Attributes:
        qos: QoS profile of the image and camera_info publishers, a name of `QOS_PROFILES`.
        encoding: One of `ENCODINGS`, of 8 bits; None for the one that keeps the samples unchanged, such as mono8, rgb8,
            mono16 and 32FC1.
        frame_id: Frame of all headers; None for the source's own, or "camera".
        backlog: Maximum number of images published but not acknowledged (or not answered), and depth of the
            publisher's history.
        wait_timeout_s: Timeout for subscribers, acknowledgements and answers; 0 for none.
        in_step_with: Topic on which the consumer answers each image; None not to wait for answers.
        clock: Whether to publish `/clock`.
        camera_info: Whether to publish `camera_info`.
    """

    qos: str = "reliable"
    encoding: str | None = None
    frame_id: str | None = None
    backlog: int = 8
    wait_timeout_s: float = 30.0
    in_step_with: str | None = None
    clock: bool = False
    camera_info: bool = False


class Player:
    """Publishes scheduled frames on `image`, optionally with `camera_info` and `/clock`.

    Spin its node in another thread.
    """

    def __init__(self, node: Node, options: PlayerOptions) -> None:
        """Creates the publishers."""
        self._node = node
        self._options = options
        profile = qos_profile(options.qos, options.backlog)
        self._images = node.create_publisher(Image, "image", profile)
        self._infos = node.create_publisher(CameraInfo, "camera_info", profile) if options.camera_info else None
        self._clocks = node.create_publisher(Clock, "/clock", qos_profile("reliable", 10)) if options.clock else None
        self._answers: Answers | None = None
        self._unacknowledged = 0
        self._zero_s: float | None = None
        self._previous: tuple[float, int] | None = None
        self.published = 0

    @property
    def topic(self) -> str:
        """The image topic after remapping."""
        return str(self._images.topic_name)

    @property
    def has_best_effort_subscriber(self) -> bool:
        """Whether an image subscription is best effort, so that it can lose images."""
        endpoints = self._node.get_subscriptions_info_by_topic(self.topic)
        return any(endpoint.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for endpoint in endpoints)

    def wait_for_subscribers(self, count: int) -> None:
        """Waits until `count` image subscriptions are matched, and all known camera_info subscriptions.

        Raises:
            SourceError: They are not matched after `wait_timeout_s`; the text says what was found instead.
        """
        if self._options.in_step_with is not None:
            self._answers = Answers(self._node, self._options.in_step_with, self._options.wait_timeout_s)
        deadline = _Deadline(self._options.wait_timeout_s)
        while self._images.get_subscription_count() < count:
            if deadline.passed:
                raise SourceError(self._no_subscriber_reason(count))
            time.sleep(_POLL_S)
        # A node's subscriptions are matched one by one; without waiting, the first image could lack its calibration. A
        # subscription with an incompatible QoS never matches: hence the timeout.
        grace = _Deadline(_MATCH_GRACE_S)
        while count and not grace.passed and not all(map(self._all_matched, (self._images, self._infos))):
            time.sleep(_POLL_S)

    def publish(self, scheduled: ScheduledFrame) -> None:
        """Publishes one frame when it is due and the backlog has room.

        Raises:
            SourceError: Subscribers do not accept the images within `wait_timeout_s`.
        """
        self._wait_until_due(scheduled)
        self._wait_for_room()
        frame = scheduled.frame
        stamp_ns = time.time_ns() if scheduled.stamp_ns is None else scheduled.stamp_ns
        stamp = stamp_from_ns(stamp_ns)
        frame_id = self._options.frame_id or frame.frame_id or "camera"
        pixels, encoding = _encode(frame, self._options.encoding)
        message = array_to_image(pixels, encoding, stamp, frame_id)
        if self._clocks is not None:
            self._clocks.publish(Clock(clock=stamp))
        if self._infos is not None and frame.camera is not None:
            self._infos.publish(camera_info_message(frame.camera, stamp, frame_id))
        if self._answers is not None:
            self._answers.expect(stamp_ns)
        self._images.publish(message)
        self._previous = (time.monotonic(), stamp_ns)
        self._unacknowledged += 1
        self.published += 1

    def drain(self) -> None:
        """Waits until every image is acknowledged, and answered if answers are expected.

        Raises:
            SourceError: An image is not after `wait_timeout_s`.
        """
        self._wait_for_acknowledgements()
        if self._answers is not None:
            self._answers.wait_until_at_most(0, self._options.wait_timeout_s)

    def _wait_until_due(self, scheduled: ScheduledFrame) -> None:
        now = time.monotonic()
        if self._zero_s is None:
            self._zero_s = now - scheduled.due_s
        due = self._zero_s + scheduled.due_s
        if now > due:
            # If source or consumer are too slow, delay all later frames; catching up would cause a burst.
            self._zero_s += now - due
            return
        if self._clocks is None or self._previous is None or scheduled.stamp_ns is None:
            time.sleep(due - now)
            return
        start, start_ns = self._previous
        span_ns = max(scheduled.stamp_ns - start_ns, 0)
        while (now := time.monotonic()) < due:
            time.sleep(min(due - now, _CLOCK_PERIOD_S))
            fraction = (time.monotonic() - start) / max(due - start, 1e-9)
            if fraction < 1:
                self._clocks.publish(Clock(clock=stamp_from_ns(start_ns + int(fraction * span_ns))))

    def _wait_for_room(self) -> None:
        if self._answers is not None:
            self._answers.wait_until_at_most(self._options.backlog - 1, self._options.wait_timeout_s)
        if self._unacknowledged >= self._options.backlog:
            self._wait_for_acknowledgements()

    def _wait_for_acknowledgements(self) -> None:
        deadline = _Deadline(self._options.wait_timeout_s)
        for publisher in (self._images, self._infos):
            while publisher is not None and not publisher.wait_for_all_acked(
                Duration(nanoseconds=int(_ACKNOWLEDGEMENT_SLICE_S * 1e9))
            ):
                if deadline.passed:
                    raise SourceError(
                        f"a subscriber of {publisher.topic_name} has not acknowledged {self._unacknowledged} images "
                        f"for {self._options.wait_timeout_s:g} s; it hangs, or give it longer with --wait-timeout"
                    )
        self._unacknowledged = 0

    def _all_matched(self, publisher: Publisher | None) -> bool:
        if publisher is None:
            return True
        known = len(self._node.get_subscriptions_info_by_topic(publisher.topic_name))
        return bool(publisher.get_subscription_count() >= known)

    def _no_subscriber_reason(self, count: int) -> str:
        topic = self.topic
        matched = self._images.get_subscription_count()
        msg = f"{matched} of {count} subscribers on topic {topic} after {self._options.wait_timeout_s:g} s"
        endpoints = self._node.get_subscriptions_info_by_topic(topic)
        reliable = [e for e in endpoints if e.qos_profile.reliability == ReliabilityPolicy.RELIABLE]
        if reliable and self._options.qos == "sensor_data":
            names = ", ".join(sorted(endpoint.node_name for endpoint in reliable))
            return (
                f"{msg}: {names} asks for reliable images, which --qos sensor_data does not offer; use --qos reliable"
            )
        elsewhere = sorted(
            name
            for name, types in self._node.get_topic_names_and_types()
            if name != topic and "sensor_msgs/msg/Image" in types and self._node.count_subscribers(name)
        )
        if elsewhere:
            return (
                f"{msg}, but images are awaited on {', '.join(elsewhere)}: "
                f"play there with --ros-args -r image:={elsewhere[0]}"
            )
        return (
            f"{msg}: start the node that takes the images, with the same ROS_DOMAIN_ID, or say where it listens with "
            "--ros-args -r image:=TOPIC; --wait-for-subscribers 0 plays to nobody, --wait-timeout 0 waits for ever"
        )


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds if seconds > 0 else None

    @property
    def passed(self) -> bool:
        return self._end is not None and time.monotonic() > self._end


def _encode(frame: Frame, encoding: str | None) -> tuple[np.ndarray, str]:
    if encoding is None:
        stored, pixels = encoding_of(frame.samples)
        return pixels, stored
    native = "mono8" if frame.image.ndim == 2 else "rgb8"
    if encoding == native:
        return frame.image, native
    return np.asarray(cv2.cvtColor(frame.image, _CONVERSIONS[native, encoding]), dtype=np.uint8), encoding
