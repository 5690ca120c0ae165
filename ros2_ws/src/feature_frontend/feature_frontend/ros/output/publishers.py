"""Publishes the results of frames, and a status for each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from feature_frontend_msgs.msg import Features, FrameStatus, Matches, Tracks
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from feature_frontend.geometry.rays import MatchRays, TrackRays
from feature_frontend.pipeline.process_frame import FrameReport
from feature_frontend.ros.output.frame_status import FrameStatistics
from feature_frontend.ros.output.messages import (
    Origin,
    encode_features,
    encode_matches,
    encode_pair,
    encode_points,
    encode_tracks,
)
from feature_frontend.ros.output.views import Views
from feature_frontend.ros.qos import qos_profile
from feature_frontend.settings import Settings
from feature_frontend.stereo.matching import Disparities, StereoResult
from feature_frontend.types import FrameResult

__all__ = ["FrameMessages", "Publishers", "ResultTopics", "result_topics"]

_Publish = Callable[[str, Any], None]


def result_topics(camera_type: str) -> dict[str, type]:
    """The result topics and their types; `camera_type` is the parameter."""
    if camera_type == "mono":
        return {"features": Features, "matches": Matches, "tracks": Tracks, "status": FrameStatus}
    left = {"left/features": Features, "matches": Matches, "tracks": Tracks, "status": FrameStatus}
    return {**left, "right/features": Features, "stereo_matches": Matches, "points": PointCloud2}


class Publishers:
    """The publishers of the result topics, and of what is made for viewers.

    Args:
        node: The publisher.
        settings: Contain the QoS.
    """

    def __init__(self, node: Node, settings: Settings) -> None:
        self._node = node
        output = qos_profile(settings.output_qos, settings.output_depth)
        topics = result_topics(settings.camera_type)
        self._publishers = {name: node.create_publisher(kind, name, output) for name, kind in topics.items()}
        self._views = Views(node)
        self.show = self._views.show

    def publish(self, name: str, message: Any) -> None:
        """Publishes a message on a topic of `result_topics`."""
        self._publishers[name].publish(message)

    def destroy(self) -> None:
        """Destroys the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._views.destroy()


@dataclass(frozen=True)
class FrameMessages:
    """Encodes the results of a frame as messages; see `FrameOutput`.

    Attributes:
        publish: Receives each message, with its topic of `result_topics`.
        header: Of the image.
        right_header: Of the right image; None for one camera.
        run_id: Of the messages.
        descriptor_type: As for `encode_features`.
    """

    publish: _Publish
    header: Header
    right_header: Header | None
    run_id: int
    descriptor_type: str | None

    def origin(self, result: FrameResult) -> Origin:
        """The origin of the messages about the image."""
        return Origin(self.header, self.run_id, result.resets)

    def features(self, result: FrameResult, rays: npt.NDArray[np.float32] | None) -> None:
        """See `FrameOutput`."""
        name = "features" if self.right_header is None else "left/features"
        self.publish(name, encode_features(self.origin(result), result.features, rays, self.descriptor_type))

    def right_features(self, result: FrameResult, rays: npt.NDArray[np.float32] | None) -> None:
        """See `FrameOutput`."""
        assert result.right is not None
        message = encode_features(self._right(result), result.right, rays, self.descriptor_type)
        self.publish("right/features", message)

    def stereo_matches(self, result: FrameResult, found: StereoResult, rays: MatchRays) -> None:
        """See `FrameOutput`."""
        assert result.right is not None
        matches = found.matches
        keypoints = result.features.keypoints[matches.indices0], result.right.keypoints[matches.indices1]
        message = encode_pair(self.origin(result), self._right(result), matches, keypoints, rays)
        self.publish("stereo_matches", message)

    def points(self, found: StereoResult) -> None:
        """See `FrameOutput`."""
        self.publish("points", encode_points(self.header, found))

    def tracks(self, result: FrameResult, rays: TrackRays | None, disparities: Disparities | None) -> None:
        """See `FrameOutput`."""
        self.publish("tracks", encode_tracks(self.origin(result), result, rays, disparities))

    def matches(self, result: FrameResult, rays: MatchRays) -> None:
        """See `FrameOutput`."""
        self.publish("matches", encode_matches(self.origin(result), result, rays))

    def _right(self, result: FrameResult) -> Origin:
        assert self.right_header is not None
        return replace(self.origin(result), header=self.right_header)


class ResultTopics:
    """Publishes results and keeps the statistics of the frames. Any thread may report the outcome of a frame.

    Args:
        publish: Receives each message, with its topic of `result_topics`.
        book: The statistics; they outlive the topics.
        run_id: Of all messages.
        note: Receives every status.

    Attributes:
        resets: Of the latest processed frame, as in its messages.
    """

    def __init__(
        self,
        publish: _Publish,
        book: FrameStatistics,
        run_id: int,
        note: Callable[[FrameStatus], None] = lambda _: None,
    ) -> None:
        self.resets = 0
        self._publish = publish
        self._book = book
        self._note = note
        self._run_id = run_id
        self._lock = threading.Lock()

    def of_frame(self, header: Header, settings: Settings, right_header: Header | None = None) -> FrameMessages:
        """The receiver of a frame's results.

        Args:
            header: Of the image.
            settings: Say whether, and in which number format, descriptors are published.
            right_header: Of the right image; None for one camera.
        """
        descriptor_type = settings.descriptor_type if settings.publish_descriptors else None
        return FrameMessages(self._publish, header, right_header, self._run_id, descriptor_type)

    def note_arrival(self, received_s: float) -> None:
        """Records an image that arrived at `received_s` on the monotonic clock, s."""
        with self._lock:
            self._book.note_arrival(received_s)

    def processed(self, header: Header, received_s: float, report: FrameReport, conversion_ms: float) -> None:
        """Publishes the status of a frame whose results were published."""
        with self._lock:
            self.resets = report.result.resets
            self._publish_status(self._book.processed(header, received_s, report, conversion_ms))

    def dropped(self, header: Header, received_s: float, reason: str) -> None:
        """Publishes the status of a frame that was dropped while it waited."""
        with self._lock:
            self._publish_status(self._book.dropped(header, received_s, reason))

    def refused(self, header: Header, received_s: float, reason: str) -> None:
        """Publishes the status of a frame that could not be processed."""
        with self._lock:
            self._publish_status(self._book.refused(header, received_s, reason))

    def _publish_status(self, status: FrameStatus) -> None:
        status.run_id, status.resets = self._run_id, self.resets
        self._publish("status", status)
        self._note(status)
