"""Stereo pairs: two image topics, synchronised by message_filters; images without a partner are dropped."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from feature_frontend.camera.camera_info_history import CalibrationWatch
from feature_frontend.errors import SettingsError
from feature_frontend.ros.distribution import apt_package
from feature_frontend.ros.guarded_node import GuardedNode
from feature_frontend.ros.input.camera_info_findings import CameraInfoFindings
from feature_frontend.ros.input.camera_info_topic import CameraInfoTopic
from feature_frontend.ros.input.frame import Frame
from feature_frontend.ros.input.image_subscription import cut_frame_id, offers, subscribe_to_images
from feature_frontend.ros.qos import is_best_effort
from feature_frontend.ros.stamps import stamp_to_ns
from feature_frontend.runtime.health import Finding, Level
from feature_frontend.runtime.input_loss import InputLoss
from feature_frontend.runtime.stereo_sync import SIDES, SyncStatistics
from feature_frontend.settings import Settings

__all__ = ["StereoInput", "import_message_filters"]

_LEFT, _RIGHT = range(2)
_INFO_DEPTH = 5
_NS_PER_S = 1e9


def import_message_filters() -> ModuleType:
    """Imports message_filters.

    Raises:
        SettingsError: It is not installed; the text says what to install.
    """
    try:
        return importlib.import_module("message_filters")
    except ImportError as error:
        raise SettingsError(
            f"parameter camera_type is 'stereo', which needs the package message_filters, but it cannot be "
            f"imported ({error}): sudo apt install {apt_package('message_filters')}, or take camera_type:=mono"
        ) from error


class StereoInput:
    """Subscribes to `left/image` and `right/image` and releases pairs. Call it from the executor's thread only.

    Every left image waits until it is released with a right one, or dropped: when a later left image has been paired,
    when `stereo_queue_size` later ones wait, or when the stamps go back.

    Args:
        node: The subscriber.
        settings: Uses `stereo_*`, `image_transport` and `image_qos`.
        qos: Of the subscriptions.
        right: Receives the messages of `right/camera_info`.
        outcome: Returns a warning (empty for none) and the state of stereo matching, for `/diagnostics`.
        arrived: Turns each left image into a frame on arrival.
        release: Receives a frame with its right image.
        drop: Receives a dropped frame and the reason.
        refuse: Receives the reason and the left image if its arrival raises.
    """

    def __init__(
        self,
        node: GuardedNode,
        settings: Settings,
        qos: QoSProfile,
        right: CalibrationWatch,
        outcome: Callable[[], tuple[str, str]],
        arrived: Callable[[Image | CompressedImage], Frame],
        release: Callable[[Frame], None],
        drop: Callable[[Frame, str], None],
        refuse: Callable[[str, Image | CompressedImage], None],
    ) -> None:
        self._node, self._right, self._outcome = node, right, outcome
        self._arrived, self._release_frame, self._drop = arrived, release, drop
        self._qos_name = settings.image_qos
        self._slop_ms, self._queue_size = settings.stereo_slop_ms, settings.stereo_queue_size
        self._statistics = SyncStatistics(settings.stereo_slop_ms, time.monotonic())
        self._right_loss = InputLoss()
        # By stamp in ns, as in the synchroniser.
        self._waiting: tuple[dict[int, Frame], dict[int, tuple[Image | CompressedImage, int]]] = ({}, {})
        self._newest_ns = [0, 0]
        self._pairs: list[tuple[int, int]] = []
        filters = import_message_filters()
        self._inputs = [filters.SimpleFilter() for _ in SIDES]
        self._synchronizer = filters.ApproximateTimeSynchronizer(
            self._inputs, settings.stereo_queue_size, settings.stereo_slop_ms / 1e3
        )
        self._synchronizer.registerCallback(self._note_pair)
        self._subscriptions = [
            subscribe_to_images(
                node,
                settings.image_transport,
                partial(self._take, side),
                qos,
                f"{name}/image",
                refuse if side == _LEFT else None,
            )
            for side, name in enumerate(SIDES)
        ]
        self.topic_name: str = self._subscriptions[_LEFT].topic_name
        self._camera_info_topic = CameraInfoTopic(
            node, "right/camera_info", self._take_calibration, settings.image_qos, _INFO_DEPTH
        )
        info_topic = node.resolve_topic_name("right/camera_info")
        self._camera_info = CameraInfoFindings(right, info_topic, SIDES[_RIGHT])

    def close(self) -> list[Frame]:
        """Ends the subscriptions; returns the frames that still wait."""
        self._camera_info_topic.close()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        lefts, _ = self._waiting
        return list(lefts.values())

    def facts(self) -> tuple[list[Finding], list[tuple[str, str]]]:
        """Findings, and keys and values, of `/diagnostics`."""
        now_s = time.monotonic()
        summary = self._statistics.summary(now_s)
        problem = f"{summary.problem} ({self._offers()})" if summary.problem else ""
        lost, missing = self._right_loss.facts(now_s, is_best_effort=is_best_effort(self._qos_name))
        text = f"right camera: {lost}" if lost else ""
        warning, state = self._outcome()
        findings = [
            Finding("right lost images", Level.WARN, text, "no more images of the right camera look lost on their way"),
            Finding("pairs", Level.WARN, problem, "left and right images pair again"),
            Finding("points", Level.WARN, warning, "the pairs give points again"),
        ]
        return [*self._camera_info.findings(now_s), *findings], [
            ("Right images missing (estimated)", missing),
            ("Stereo", state),
            ("Pairs since start", str(summary.pairs)),
            *((f"Unpaired {name} images since start", str(n)) for name, n in zip(SIDES, summary.unpaired, strict=True)),
            *((f"Rate {name} (Hz)", f"{hz:.2f}") for name, hz in zip(SIDES, summary.rates_hz, strict=True)),
            ("Stamp difference in pairs, median (ms)", _milliseconds(summary.median_difference_ms)),
            ("Stamp difference in pairs, largest (ms)", _milliseconds(summary.largest_difference_ms)),
        ]

    def _take_calibration(self, message: CameraInfo, is_second: bool) -> None:
        self._camera_info.note_info(time.monotonic())
        self._right.take(message, again=is_second)

    def _take(self, side: int, message: Image | CompressedImage) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        waiting: dict[int, Any] = self._waiting[side]
        cut_frame_id(message.header)
        item = self._arrived(message) if side == _LEFT else (message, self._right.arrived(stamp_ns))
        now_s = time.monotonic()
        self._statistics.arrived(side, stamp_ns, now_s)
        if side == _RIGHT:
            self._camera_info.note_image(now_s)
            self._right_loss.arrived(stamp_ns, now_s, len(message.data))
        if stamp_ns < 0:
            # rclpy has no negative time, and message_filters would raise.
            self._give_up(side, item, f"its stamp is {stamp_ns / _NS_PER_S:g} s; a pair needs stamps from 0 on")
            return
        if stamp_ns < self._newest_ns[side]:
            # The other side's images may belong to the new time segment already.
            for later_ns in list(waiting):
                self._withdraw(side, later_ns, "the stamps went back before its right image came")
        self._newest_ns[side] = stamp_ns
        if stamp_ns in waiting:
            self._give_up(side, waiting.pop(stamp_ns), "another image of the same stamp came before its right image")
        waiting[stamp_ns] = item
        self._inputs[side].signalMessage(message)
        self._release()
        self._give_up_lost()

    def _note_pair(self, left: Image | CompressedImage, right: Image | CompressedImage) -> None:
        # The synchroniser holds its lock here, and would never release it if this raised.
        self._pairs.append((stamp_to_ns(left.header.stamp), stamp_to_ns(right.header.stamp)))

    def _release(self) -> None:
        lefts, rights = self._waiting
        # Clear first: a pair that raises would raise again with every further image.
        pairs, self._pairs = self._pairs, []
        for left_ns, right_ns in pairs:
            frame, (right, run) = lefts.pop(left_ns), rights.pop(right_ns)
            # An image released after a later one would make time go back.
            for stamp_ns in [earlier_ns for earlier_ns in lefts if earlier_ns < left_ns]:
                self._withdraw(_LEFT, stamp_ns, "no right image came for it, but one for a later left image")
            self._statistics.paired(left_ns, right_ns, time.monotonic())
            self._release_frame(replace(frame, right=right, runs=(frame.runs[0], run)))

    def _give_up_lost(self) -> None:
        """Drops the images that the synchroniser has discarded."""
        for side in (_LEFT, _RIGHT):
            held = self._held(side)
            for stamp_ns in [stamp_ns for stamp_ns in self._waiting[side] if stamp_ns not in held]:
                self._withdraw(
                    side,
                    stamp_ns,
                    f"no right image within {self._slop_ms:g} ms came until {self._queue_size} later left ones waited",
                )

    def _held(self, side: int) -> dict[int, Any]:
        """The images waiting in the synchroniser, by stamp in ns; undocumented in message_filters."""
        held: dict[int, Any] = self._synchronizer.queues[side]
        return held

    def _withdraw(self, side: int, stamp_ns: int, reason: str) -> None:
        self._held(side).pop(stamp_ns, None)
        waiting: dict[int, Any] = self._waiting[side]
        self._give_up(side, waiting.pop(stamp_ns), reason)

    def _give_up(self, side: int, item: Any, reason: str) -> None:
        self._statistics.gave_up(side)
        if side == _LEFT:
            self._drop(item, reason)

    def _offers(self) -> str:
        """The publishers of each side's images, by reliability."""
        topics = [self._subscriptions[side].topic_name for side in (_LEFT, _RIGHT)]
        seen = [f"{topic}: {offers(self._node, topic) or 'nobody publishes it'}" for topic in topics]
        return f"{'; '.join(seen)}; image_qos is {self._qos_name}"


def _milliseconds(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.3f}"
