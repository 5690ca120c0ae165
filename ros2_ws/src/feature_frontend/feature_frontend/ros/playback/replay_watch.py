"""Watches a running front-end from outside: when it has subscribed, and when its queue is empty.

`replay.launch.py` runs it inside launch's event loop, hence coroutines instead of a spinning thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import rclpy
from feature_frontend_msgs.msg import FrameStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from feature_frontend.errors import SourceError
from feature_frontend.ros.qos import compressed_topic, qos_profile

__all__ = ["ReplayWatch"]

POLL_PERIOD_S = 0.05
# The last status may still be in transit.
DELIVERY_S = 0.5
# Far above the delivery time of the last image and the frame interval of a fast network.
LEAST_SILENCE_S = 3.0
# Later frames may be slower than the slowest one so far.
SILENCE_PER_SLOWEST_FRAME = 4.0
# The first frame includes the start of CUDA and of the thread pools.
FIRST_FRAME_S = 30.0


class ReplayWatch(AbstractContextManager["ReplayWatch"]):
    """A hidden node that watches a front-end; a context manager.

    Args:
        namespace: Namespace of the front-end, absolute.
        image_topic: Its configured image topic, absolute or relative to `namespace`.
        node_name: Its name.
    """

    def __init__(self, namespace: str, image_topic: str, node_name: str = "frontend") -> None:
        """Joins the ROS graph in a separate context, to leave launch_ros's unchanged."""
        self._context = Context()
        rclpy.init(args=[], context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node(
            "_replay_watch",
            namespace=namespace,
            context=self._context,
            use_global_arguments=False,
            start_parameter_services=False,
            enable_rosout=False,
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._node.create_subscription(FrameStatus, "status", self._on_status, qos_profile("sensor_data", 1))
        self._frontend = (node_name, self._node.get_namespace())
        self._last_heard_s = 0.0
        self._slowest_frame_s = 0.0
        self.image_topic: str = self._node.resolve_topic_name(image_topic)
        self.status: FrameStatus | None = None

    def __exit__(self, *_error: object) -> None:
        """Leaves the ROS graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _on_status(self, status: FrameStatus) -> None:
        self._last_heard_s = time.monotonic()
        work_ms = (
            status.conversion_ms + status.extraction_ms + status.matching_ms + status.tracking_ms + status.publishing_ms
        )
        self._slowest_frame_s = max(self._slowest_frame_s, work_ms / 1000)
        self.status = status

    def _is_listening(self) -> bool:
        topics = (self.image_topic, compressed_topic(self.image_topic))
        subscriptions = [end for topic in topics for end in self._node.get_subscriptions_info_by_topic(topic)]
        return self._frontend in {(end.node_name, end.node_namespace) for end in subscriptions}

    async def until(self, done: Callable[[], bool]) -> None:
        """Receives the front-end's statuses until `done()` is true."""
        while not done():
            self._executor.spin_once(timeout_sec=0)
            await asyncio.sleep(POLL_PERIOD_S)

    async def until_listening(self) -> None:
        """Returns when the front-end has subscribed to its images, which it does after loading its network."""
        await self.until(self._is_listening)

    async def until_idle(self, *, every_image_is_answered: bool = False) -> FrameStatus:
        """Returns the last status once the front-end has been silent so long that its queue must be empty.

        The messages do not contain the queue's length, but how long a frame takes.

        Args:
            every_image_is_answered: The player has waited for the status of each image, so none is left.

        Raises:
            SourceError: The front-end has not reported any frame.
        """
        called_s = time.monotonic()

        def silence_is_over() -> bool:
            now_s = time.monotonic()
            if self.status is None:
                return now_s - called_s > FIRST_FRAME_S
            allowed_s = DELIVERY_S
            if not every_image_is_answered:
                allowed_s = max(LEAST_SILENCE_S, SILENCE_PER_SLOWEST_FRAME * self._slowest_frame_s)
            return now_s - max(called_s, self._last_heard_s) > allowed_s

        await self.until(silence_is_over)
        if self.status is None:
            raise SourceError(
                f"no image reached the front-end on {self.image_topic}: "
                "give the topic on which the source's images are published with image_topic:=TOPIC"
            )
        return self.status
