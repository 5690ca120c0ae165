"""The topic `mask`: each frame waits for the mask with its stamp; unclaimed masks take bounded memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from feature_frontend.errors import ImageError
from feature_frontend.pipeline.masks import TopicMask
from feature_frontend.ros.input.image_conversion import image_to_array
from feature_frontend.ros.stamps import stamp_to_ns
from feature_frontend.runtime.mask_sync import MaskSynchronizer, PairedMask
from feature_frontend.system.text import quoted

__all__ = ["MaskTopic", "mask_from_message"]

F = TypeVar("F")
# One second of a typical camera; ten if all frames are kept.
_MOST_WAITING = {"newest": 32, "every_frame": 300}
# A hundred masks of 640x480 px, sixteen of full HD.
_MOST_BYTES = 32 << 20
_ENCODINGS = ("mono8", "8UC1")
_LOG_S = 10.0
_NS_PER_S = 1e9


def mask_from_message(message: Image, max_pixels: int) -> TopicMask:
    """Copies the mask out of a message of at most `max_pixels`."""
    if message.encoding not in _ENCODINGS:
        encoding = quoted(message.encoding)
        return TopicMask(None, f"the mask on topic mask has encoding {encoding}; expected mono8, 0 = do not use")
    try:
        return TopicMask(image_to_array(message, max_pixels=max_pixels).copy())
    except ImageError as error:
        return TopicMask(None, f"the mask on topic mask is malformed: {error}")


class MaskTopic(Generic[F]):
    """Subscribes to `mask` and makes each frame wait for its own.

    With the queue policy newest, a frame that is ready replaces earlier frames that still wait.

    Args:
        node: The subscriber.
        queue_policy: The parameter of this name.
        qos: Of the subscription.
        release: Receives a frame that need not wait any longer, with its mask.
        drop: Receives a frame that a newer one has replaced.
        max_pixels: Returns the maximum number of pixels of an accepted mask.
    """

    def __init__(
        self,
        node: Node,
        queue_policy: str,
        qos: QoSProfile,
        release: Callable[[F, PairedMask[TopicMask]], None],
        drop: Callable[[F], None],
        max_pixels: Callable[[], int],
    ) -> None:
        self._keeps_all = queue_policy == "every_frame"
        self._release = release
        self._drop = drop
        self._max_pixels = max_pixels
        self._frame_matcher: MaskSynchronizer[F, TopicMask] = MaskSynchronizer(
            _MOST_WAITING[queue_policy], _MOST_BYTES, lambda mask: mask.num_bytes
        )
        self._lock = threading.Lock()
        self._node = node
        self._subscription = node.create_subscription(Image, "mask", self._on_mask, qos)
        # Not the node's clock, which stops in a paused simulation.
        self._timer = node.create_timer(1.0, self._release_ready, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._timer.cancel()

    def hold(self, frame: F, stamp_ns: int, received_s: float, timeout_ms: float) -> None:
        """Holds a frame that arrived at `received_s` (monotonic clock, s) for at most `timeout_ms`."""
        with self._lock:
            self._frame_matcher.add_image(frame, stamp_ns, received_s, timeout_ms)
        self._release_ready()

    def close(self) -> list[F]:
        """Ends the subscription; returns the frames that still wait."""
        with self._lock:
            self._node.destroy_subscription(self._subscription)
            self._node.destroy_timer(self._timer)
            return self._frame_matcher.clear()

    def _on_mask(self, message: Image) -> None:
        mask, stamp_ns = mask_from_message(message, self._max_pixels()), stamp_to_ns(message.header.stamp)
        if mask.problem:
            # The status of its image, if that arrives, says so too.
            self._node.get_logger().warning(f"mask refused: {mask.problem}", throttle_duration_sec=_LOG_S)
            with self._lock:
                self._frame_matcher.refuse_mask(mask, stamp_ns)
        elif removed := self._add(mask, stamp_ns):
            self._node.get_logger().warning(
                f"masks come without images of their stamps: the oldest are given up, now {removed}; expected in each "
                "the stamp of its image",
                throttle_duration_sec=_LOG_S,
            )
        self._release_ready()

    def _add(self, mask: TopicMask, stamp_ns: int) -> int:
        with self._lock:
            return self._frame_matcher.add_mask(mask, stamp_ns)

    def _release_ready(self) -> None:
        with self._lock:
            ready = self._frame_matcher.release(time.monotonic())
            for index, (frame, paired) in enumerate(ready):
                if self._keeps_all or index == len(ready) - 1:
                    self._release(frame, paired)
                else:
                    self._drop(frame)
            self._timer.cancel()
            deadline_s = self._frame_matcher.next_deadline_s
            if deadline_s is not None:
                self._timer.timer_period_ns = max(int((deadline_s - time.monotonic()) * _NS_PER_S), 1)
                self._timer.reset()
