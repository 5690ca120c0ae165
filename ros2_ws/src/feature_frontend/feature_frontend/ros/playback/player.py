"""The publishing side of `play`: waits for subscribers, keeps the rate, and loses no image."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, Imu

from feature_frontend.errors import SourceError
from feature_frontend.image.encodings import encoding_of
from feature_frontend.ros.input.camera_info import camera_info_message
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.playback.flow_control import Answers
from feature_frontend.ros.playback.imu_messages import ImuMessages
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.sources import Frame, ImuMeasurements, ScheduledFrame
from feature_frontend.sources.imu_playback import ScheduledMeasurement

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
        imu: The IMU whose measurements to publish on `imu`; None for none.
    """

    qos: str = "reliable"
    encoding: str | None = None
    frame_id: str | None = None
    backlog: int = 8
    wait_timeout_s: float = 30.0
    in_step_with: str | None = None
    clock: bool = False
    camera_info: bool = False
    imu: ImuMeasurements | None = None


class Player:
    """Publishes scheduled frames on `image`, optionally with `camera_info`, `imu` and `/clock`.

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
        self._imu = None if options.imu is None else ImuMessages(options.imu)
        # Keeps all that are not acknowledged: FastDDS asks for that only every 3 s while its 5000 places are not full.
        keep_all = qos_profile(options.qos, 0)
        self._measurements = None if options.imu is None else node.create_publisher(Imu, "imu", keep_all)
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
        """Waits until `count` image subscriptions are matched, and all known ones of camera_info and imu.

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
        while count and not grace.passed and not all(map(self._all_matched, self._publishers)):
            time.sleep(_POLL_S)

    def publish(self, scheduled: ScheduledFrame) -> None:
        """Publishes one frame when it is due and the backlog has room.

        Raises:
            SourceError: Subscribers do not accept the images within `wait_timeout_s`.
        """
        self._wait_until_due(scheduled.due_s, scheduled.stamp_ns)
        self._wait_for_room()
        frame = scheduled.frame
        stamp_ns = time.time_ns() if scheduled.stamp_ns is None else scheduled.stamp_ns
        stamp = stamp_from_ns(stamp_ns)
        frame_id = self._options.frame_id or frame.frame_id or "camera"
        pixels, encoding = _encode(frame, self._options.encoding)
        message = array_to_image(pixels, encoding, stamp, frame_id)
        self._begin(stamp_ns)
        if self._infos is not None and frame.camera is not None:
            self._infos.publish(camera_info_message(frame.camera, stamp, frame_id))
        if self._answers is not None:
            self._answers.expect(stamp_ns)
        self._images.publish(message)
        self._unacknowledged += 1
        self.published += 1

    def publish_measurement(self, scheduled: ScheduledMeasurement) -> None:
        """Publishes one measurement of the IMU when it is due, or at once if it is late.

        Raises:
            SourceError: Subscribers do not accept measurements within `wait_timeout_s`.
        """
        assert self._imu is not None
        assert self._measurements is not None
        # Images decide about delays: after a slow one, the measurements up to the next one are late by nature.
        if self._zero_s is None or time.monotonic() < self._zero_s + scheduled.due_s:
            self._wait_until_due(scheduled.due_s, scheduled.stamp_ns)
        self._begin(scheduled.stamp_ns)
        message = self._imu.message(scheduled.index, stamp_from_ns(scheduled.stamp_ns))
        deadline = _Deadline(self._options.wait_timeout_s)
        while True:
            try:
                self._measurements.publish(message)
                return
            except RuntimeError as error:  # rclpy's, after DDS has waited 0.1 s for a place in the history
                if deadline.passed:
                    raise SourceError(self._hangs(self._measurements)) from error

    def drain(self) -> None:
        """Waits until every message is acknowledged, and every image answered if answers are expected.

        Raises:
            SourceError: One is not after `wait_timeout_s`.
        """
        self._wait_for_acknowledgements(self._publishers)
        if self._answers is not None:
            self._answers.wait_until_at_most(0, self._options.wait_timeout_s)

    @property
    def _publishers(self) -> list[Publisher | None]:
        return [self._images, self._infos, self._measurements]

    def _begin(self, stamp_ns: int) -> None:
        """Sets the clock to the stamp of a message that is about to be published."""
        if self._clocks is not None:
            self._clocks.publish(Clock(clock=stamp_from_ns(stamp_ns)))
        self._previous = (time.monotonic(), stamp_ns)

    def _wait_until_due(self, due_s: float, stamp_ns: int | None) -> None:
        now = time.monotonic()
        if self._zero_s is None:
            self._zero_s = now - due_s
        due = self._zero_s + due_s
        if now > due:
            # If source or consumer are too slow, delay all later frames; catching up would cause a burst.
            self._zero_s += now - due
            return
        if self._clocks is None or self._previous is None or stamp_ns is None:
            time.sleep(due - now)
            return
        start, start_ns = self._previous
        span_ns = max(stamp_ns - start_ns, 0)
        while (now := time.monotonic()) < due:
            time.sleep(min(due - now, _CLOCK_PERIOD_S))
            fraction = (time.monotonic() - start) / max(due - start, 1e-9)
            if fraction < 1:
                self._clocks.publish(Clock(clock=stamp_from_ns(start_ns + int(fraction * span_ns))))

    def _wait_for_room(self) -> None:
        if self._answers is not None:
            self._answers.wait_until_at_most(self._options.backlog - 1, self._options.wait_timeout_s)
        # FastDDS asks for acknowledgements every 3 s, and when the history is full. After a request of the first kind,
        # the count starts anew: else the history is not full when the backlog is, and the wait takes up to 3 s. It
        # still does, rarely: where an image is published between such a request and its answer.
        if self._unacknowledged and all(map(_has_all_acknowledged, (self._images, self._infos))):
            self._unacknowledged = 0
        if self._unacknowledged >= self._options.backlog:
            self._wait_for_acknowledgements([self._images, self._infos])
            self._unacknowledged = 0

    def _wait_for_acknowledgements(self, publishers: Sequence[Publisher | None]) -> None:
        deadline = _Deadline(self._options.wait_timeout_s)
        for publisher in publishers:
            while publisher is not None and not publisher.wait_for_all_acked(
                Duration(nanoseconds=int(_ACKNOWLEDGEMENT_SLICE_S * 1e9))
            ):
                if deadline.passed:
                    raise SourceError(self._hangs(publisher))

    def _hangs(self, publisher: Publisher) -> str:
        return (
            f"a subscriber of {publisher.topic_name} has not acknowledged all messages for "
            f"{self._options.wait_timeout_s:g} s; it hangs, or give it longer with --wait-timeout"
        )

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


def _has_all_acknowledged(publisher: Publisher | None) -> bool:
    return publisher is None or bool(publisher.wait_for_all_acked(Duration()))


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
