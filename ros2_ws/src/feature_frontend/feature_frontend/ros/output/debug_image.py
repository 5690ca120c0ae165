"""`debug_image`: tracks drawn on the images, while there are subscribers."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from feature_frontend.image.drawing import TrackTrails, draw_caption, draw_tracks
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.qos import qos_profile
from feature_frontend.runtime.frame_queue import FrameQueue
from feature_frontend.types import FrameResult

__all__ = ["DebugImage"]

MAX_WIDTH_PX = 960
_STOP_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class _Shot:
    header: Header
    image: npt.NDArray[np.uint8]
    result: FrameResult


class DebugImage:
    """Draws the newest frame in a separate thread: publishing features never waits for drawing.

    Args:
        node: The publisher.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        # Reliable publishers suit all subscribers; depth 1, because only the newest image is of interest.
        self._publisher = node.create_publisher(Image, "debug_image", qos_profile("reliable", 1))
        self._queue: FrameQueue[_Shot] = FrameQueue(1)
        self._trails = TrackTrails()
        self._worker = threading.Thread(target=self._work, name="debug-image", daemon=True)
        self._worker.start()

    def show(self, header: Header, image: npt.NDArray[np.uint8], result: FrameResult) -> None:
        """Draws a processed frame if there are subscribers; returns at once.

        Args:
            header: Of the image.
            image: (H, W) grey or (H, W, 3) RGB, uint8; must not change afterwards.
            result: Of the image.
        """
        if self._publisher.get_subscription_count():
            self._queue.put(_Shot(header, image, result))

    def destroy(self) -> None:
        """Ends the thread after the current image, and the topic."""
        self._queue.close()
        self._worker.join(_STOP_TIMEOUT_S)
        self._node.destroy_publisher(self._publisher)

    def _work(self) -> None:
        while (shot := self._queue.get()) is not None:
            try:
                picture = draw_result(shot.image, shot.result, self._trails)
                self._publisher.publish(array_to_image(picture, "rgb8", shot.header.stamp, shot.header.frame_id))
            except Exception as error:
                if not self._node.context.ok():
                    return
                # Log one line only; the next image may succeed.
                self._node.get_logger().error(f"no debug_image: {type(error).__name__}: {error}", once=True)


def draw_result(image: npt.NDArray[np.uint8], result: FrameResult, trails: TrackTrails) -> npt.NDArray[np.uint8]:
    """Draws a frame's tracks with their trails and a line of figures, at most `MAX_WIDTH_PX` wide, RGB.

    Args:
        image: (H, W) grey or (H, W, 3) RGB, uint8.
        result: Of the image.
        trails: Of earlier frames; this one is added.
    """
    tracks = result.tracks
    scale = min(1.0, MAX_WIDTH_PX / image.shape[1])
    drawn = draw_tracks(image, trails.update(tracks.ids, tracks.keypoints), tracks.ages, scale=scale)
    caption = f"{len(result.features)} keypoints  {len(result.matches)} matches  {result.features.extractor}"
    return draw_caption(drawn, caption, max(drawn.shape[1] / MAX_WIDTH_PX, 0.5))
