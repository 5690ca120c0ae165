"""The mask of each frame: that of a file, that of the topic `mask`, or what stands in for one that is missing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from feature_frontend.errors import ImageError, MaskError
from feature_frontend.frontend import FrameResult
from feature_frontend.mask_file import read_mask_file
from feature_frontend.mask_pairing import MaskPairing, PairedMask
from feature_frontend.preprocessing import check_mask
from feature_frontend.ros.image_conversion import image_to_array
from feature_frontend.ros.message_encoding import stamp_to_ns
from feature_frontend.settings import NodeSettings

__all__ = ["FrameMask", "FrameMasks", "MaskCounts", "MaskTopic"]

F = TypeVar("F")
# A second of an ordinary camera; ten of one whose frames are all kept.
_MOST_WAITING = {"newest": 32, "every_frame": 300}
_ENCODINGS = ("mono8", "8UC1")
_NS_PER_S = 1e9
Uint8Array = npt.NDArray[np.uint8]


class MaskTopic(Generic[F]):
    """Subscribes to `mask` and lets each frame wait for its own.

    With the queue policy newest, a frame that may go on replaces those before it that still waited.

    Args:
        node: Where the topic is.
        queue_policy: The parameter of this name.
        qos: Of the subscription.
        release: Takes a frame whose waiting is over, with its mask.
        drop: Takes a frame that a newer one replaced.
    """

    def __init__(
        self,
        node: Node,
        queue_policy: str,
        qos: QoSProfile,
        release: Callable[[F, PairedMask[Image]], None],
        drop: Callable[[F], None],
    ) -> None:
        self._keeps_all = queue_policy == "every_frame"
        self._release = release
        self._drop = drop
        self._pairing: MaskPairing[F, Image] = MaskPairing(_MOST_WAITING[queue_policy])
        self._lock = threading.Lock()
        self._node = node
        self._subscription = node.create_subscription(Image, "mask", self._on_mask, qos)
        # Not the node's clock, which stands still with a paused simulation.
        self._timer = node.create_timer(1.0, self._release_ready, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._timer.cancel()

    def hold(self, frame: F, stamp_ns: int, received_s: float, timeout_ms: float) -> None:
        """Takes a frame that arrived at `received_s` on the monotonic clock and waits until `timeout_ms` later."""
        with self._lock:
            self._pairing.add_image(frame, stamp_ns, received_s, timeout_ms)
        self._release_ready()

    def close(self) -> list[F]:
        """Ends the subscription; returns the frames that still wait."""
        with self._lock:
            self._node.destroy_subscription(self._subscription)
            self._node.destroy_timer(self._timer)
            return self._pairing.clear()

    def _on_mask(self, message: Image) -> None:
        with self._lock:
            self._pairing.add_mask(message, stamp_to_ns(message.header.stamp))
        self._release_ready()

    def _release_ready(self) -> None:
        with self._lock:
            ready = self._pairing.release(time.monotonic())
            for index, (frame, paired) in enumerate(ready):
                if self._keeps_all or index == len(ready) - 1:
                    self._release(frame, paired)
                else:
                    self._drop(frame)
            self._timer.cancel()
            deadline_s = self._pairing.next_deadline_s
            if deadline_s is not None:
                self._timer.timer_period_ns = max(int((deadline_s - time.monotonic()) * _NS_PER_S), 1)
                self._timer.reset()


@dataclass
class MaskCounts:
    """Frames by the mask that the topic gave them.

    Attributes:
        own: Their own.
        last: An earlier one.
        none: None.
        refused: Frames refused because theirs was missing.
    """

    own: int = 0
    last: int = 0
    none: int = 0
    refused: int = 0

    def __str__(self) -> str:
        """As /diagnostics has it."""
        return f"{self.own} own, {self.last} of an earlier image, {self.none} none, {self.refused} refused"


@dataclass(frozen=True)
class FrameMask:
    """A frame's mask.

    Attributes:
        mask: (H, W) uint8, 0 = do not use; None to use all.
        note: What status shall say of it; empty for nothing.
    """

    mask: Uint8Array | None
    note: str

    def annotate(self, result: FrameResult) -> FrameResult:
        """`result` with the note added to its reason."""
        return replace(result, reason="; ".join(part for part in (result.reason, self.note) if part))


class FrameMasks:
    """Decides on the mask of each frame. Not thread-safe: the thread that processes frames calls it."""

    def __init__(self) -> None:
        self.counts = MaskCounts()
        self._path = ""
        self._of_file: Uint8Array | None = None

    def of_frame(self, paired: PairedMask[Image] | None, size: tuple[int, int], settings: NodeSettings) -> FrameMask:
        """The mask of an image.

        Args:
            paired: What the topic has for it; None without the topic.
            size: (height, width) of the image, px.
            settings: Those that begin with `mask_`.

        Raises:
            SettingsError: The file of `mask_path` cannot be read any more.
            MaskError: A mask is malformed or has another size than the image, or it is missing and `mask_missing` is
                refuse.
        """
        if settings.mask_path != self._path:
            self._of_file = read_mask_file(settings.mask_path) if settings.mask_path else None
            self._path = settings.mask_path
        of_file = self._of_file
        if of_file is not None:
            of_file = check_mask(of_file, *size, name=f"the mask {self._path}")
        if paired is None:
            return FrameMask(of_file, "")
        message, note = self._of_topic(paired, settings)
        if message is None:
            return FrameMask(of_file, note)
        of_topic = check_mask(
            _mask_from_message(message, settings.max_image_pixels), *size, name="the mask on topic mask"
        )
        return FrameMask(of_topic if of_file is None else np.minimum(of_file, of_topic), note)

    def _of_topic(self, paired: PairedMask[Image], settings: NodeSettings) -> tuple[Image | None, str]:
        """The message for a frame, and what to say of it."""
        if not paired.cause:
            self.counts.own += 1
            return paired.mask, ""
        if settings.mask_missing == "refuse":
            self.counts.refused += 1
            msg = (
                f"{paired.cause}, and parameter mask_missing is 'refuse'; raise mask_timeout_ms, or choose last or none"
            )
            raise MaskError(msg)
        if settings.mask_missing == "last" and paired.mask is not None and paired.age_ms <= settings.mask_max_age_ms:
            self.counts.last += 1
            return (
                paired.mask,
                f"{paired.cause}: used that of {paired.age_ms:.0f} ms before ({self.counts.last} so far)",
            )
        self.counts.none += 1
        return None, f"{paired.cause}: used none ({self.counts.none} so far)"


def _mask_from_message(message: Image, max_pixels: int) -> Uint8Array:
    if message.encoding not in _ENCODINGS:
        msg = f"the mask on topic mask has encoding {message.encoding!r}; expected mono8, 0 = do not use"
        raise MaskError(msg)
    try:
        return image_to_array(message, max_pixels=max_pixels)
    except ImageError as error:
        msg = f"the mask on topic mask is malformed: {error}"
        raise MaskError(msg) from error
