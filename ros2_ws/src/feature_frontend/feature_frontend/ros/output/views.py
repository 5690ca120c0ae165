"""What the node makes only for viewers, of the newest frame: `debug_image` and the annotations."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from feature_frontend.image.drawing import TrackTrails
from feature_frontend.ros.output.annotations import foxglove_annotations, image_marker, optional_message
from feature_frontend.ros.output.debug_image import debug_image
from feature_frontend.ros.qos import qos_profile
from feature_frontend.runtime.frame_queue import FrameQueue
from feature_frontend.types import FrameResult

__all__ = ["Views"]

_STOP_TIMEOUT_S = 1.0
_Trails = list[npt.NDArray[np.floating]]
_Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Shot:
    header: Header
    image: _Pixels
    result: FrameResult


@dataclass(frozen=True)
class _View:
    topic: str
    publisher: Publisher
    encode: Callable[[Header, _Pixels, FrameResult, _Trails], Any]


class Views:
    """Encodes the newest frame in a separate thread: publishing features never waits for a viewer.

    Args:
        node: The publisher.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        # Reliable publishers suit all subscribers; depth 1, because only the newest frame is of interest.
        qos = qos_profile("reliable", 1)
        self._views = [_View("debug_image", node.create_publisher(Image, "debug_image", qos), debug_image)]
        for topic, kind, encode in (
            ("~/annotations", "visualization_msgs/ImageMarker", image_marker),
            ("~/annotations/foxglove", "foxglove_msgs/ImageAnnotations", foxglove_annotations),
        ):
            try:
                publisher = node.create_publisher(optional_message(kind), topic, qos)
            except Exception as error:  # what creating it raises for a broken installation is up to rclpy
                node.get_logger().debug(f"{topic} is not offered: {error}")
                continue
            self._views.append(_View(topic, publisher, encode))
        self._queue: FrameQueue[_Shot] = FrameQueue(1)
        self._trails = TrackTrails()
        self._failed: set[str] = set()
        self._worker = threading.Thread(target=self._work, name="views", daemon=True)
        self._worker.start()

    def show(self, header: Header, image: _Pixels, result: FrameResult) -> None:
        """Encodes a processed frame for each topic that has subscribers; returns at once.

        Args:
            header: Of the image.
            image: (H, W) grey or (H, W, 3) RGB, uint8; must not change afterwards.
            result: Of the image.
        """
        if any(view.publisher.get_subscription_count() for view in self._views):
            self._queue.put(_Shot(header, image, result))

    def destroy(self) -> None:
        """Ends the thread after the current frame, and the topics."""
        self._queue.close()
        self._worker.join(_STOP_TIMEOUT_S)
        for view in self._views:
            self._node.destroy_publisher(view.publisher)

    def _work(self) -> None:
        while (shot := self._queue.get()) is not None:
            # All topics show the same trails, whichever of them are watched.
            trails = self._trails.update(shot.result.tracks.ids, shot.result.tracks.keypoints)
            for view in self._views:
                try:
                    if view.publisher.get_subscription_count():
                        view.publisher.publish(view.encode(shot.header, shot.image, shot.result, trails))
                except Exception as error:
                    if not self._node.context.ok():
                        return
                    # One line for each topic; the next frame may succeed.
                    if view.topic not in self._failed:
                        self._failed.add(view.topic)
                        self._node.get_logger().error(f"no {view.topic}: {type(error).__name__}: {error}")
