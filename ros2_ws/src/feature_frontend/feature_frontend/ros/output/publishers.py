"""The topics that the node publishes on: results, and a status for every frame."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from feature_frontend_msgs.msg import Features, FrameStatus, Matches, Tracks
from rclpy.node import Node
from std_msgs.msg import Header

from feature_frontend.camera.calibration import Intrinsics
from feature_frontend.geometry.rays import MatchRays, TrackRays
from feature_frontend.ros.output.debug_image import DebugImage
from feature_frontend.ros.output.frame_status import FrameTimes, StatusBook
from feature_frontend.ros.output.messages import Origin, encode_features, encode_matches, encode_tracks
from feature_frontend.ros.qos import qos_profile
from feature_frontend.settings import NodeSettings, Settings
from feature_frontend.stereo.matching import Disparities
from feature_frontend.types import FrameResult

__all__ = ["ResultTopics"]


class ResultTopics:
    """Publishes results and keeps the account of the frames. Any thread may report what became of a frame.

    Args:
        node: That publishes.
        settings: Name the QoS.
        book: The account; it outlives the topics.
        note: Is told of every status.
        run_id: Of all messages.

    Attributes:
        resets: Of the latest frame processed, as in its messages.
    """

    def __init__(
        self, node: Node, settings: Settings, book: StatusBook, note: Callable[[FrameStatus], None], run_id: int
    ) -> None:
        self._node = node
        self._run_id = run_id
        self.resets = 0
        self._book = book
        self._note = note
        self._lock = threading.Lock()
        output = qos_profile(settings.output_qos, settings.output_depth)
        self.features = node.create_publisher(
            Features, "left/features" if settings.camera_type == "stereo" else "features", output
        )
        self.matches = node.create_publisher(Matches, "matches", output)
        self.tracks = node.create_publisher(Tracks, "tracks", output)
        self.status = node.create_publisher(FrameStatus, "status", output)
        self._debug_image = DebugImage(node)

    def destroy(self) -> None:
        """Ends the topics."""
        for publisher in (self.features, self.matches, self.tracks, self.status):
            self._node.destroy_publisher(publisher)
        self._debug_image.destroy()

    def origin(self, header: Header, result: FrameResult) -> Origin:
        """What the messages about the image with this header begin with."""
        return Origin(header, self._run_id, result.resets)

    def publish_features(
        self, origin: Origin, result: FrameResult, normalized: npt.NDArray[np.float32] | None, settings: NodeSettings
    ) -> None:
        """Publishes a frame's features.

        Args:
            origin: The image.
            result: Of that image.
            normalized: (N, 2) undistorted (x/z, y/z) of its keypoints; None without a calibration.
            settings: Name whether and in which number format descriptors are published.
        """
        descriptor_type = settings.descriptor_type if settings.publish_descriptors else None
        self.features.publish(encode_features(origin, result.features, normalized, descriptor_type))

    def publish_tracks(
        self, origin: Origin, result: FrameResult, rays: TrackRays | None, disparities: Disparities | None
    ) -> None:
        """Publishes a frame's tracks; see `encode_tracks`."""
        self.tracks.publish(encode_tracks(origin, result, rays, disparities))

    def publish_matches(self, origin: Origin, result: FrameResult, rays: MatchRays) -> None:
        """Publishes a frame's matches, also those of a first one: 0 of them."""
        self.matches.publish(encode_matches(origin, result, rays))

    def show(self, header: Header, image: npt.NDArray[np.uint8], result: FrameResult) -> None:
        """Has a frame drawn while somebody looks; returns at once. The image must not change any more."""
        self._debug_image.show(header, image, result)

    def note_arrival(self, received_s: float) -> None:
        """Takes note of an image that arrived at `received_s` on the monotonic clock, s."""
        with self._lock:
            self._book.note_arrival(received_s)

    def processed(
        self,
        header: Header,
        received_s: float,
        result: FrameResult,
        times: FrameTimes,
        intrinsics: Intrinsics,
        note: str = "",
    ) -> None:
        """Publishes the status of a frame whose results were published; `note` goes into its reason."""
        with self._lock:
            self.resets = result.resets
            self._publish_status(self._book.processed(header, received_s, result, times, intrinsics, note))

    def dropped(self, header: Header, received_s: float, reason: str) -> None:
        """Publishes the status of a frame that was given up while it waited."""
        with self._lock:
            self._publish_status(self._book.dropped(header, received_s, reason))

    def refused(self, header: Header, received_s: float, reason: str) -> None:
        """Publishes the status of a frame that could not be processed."""
        with self._lock:
            self._publish_status(self._book.refused(header, received_s, reason))

    def _publish_status(self, status: FrameStatus) -> None:
        status.run_id, status.resets = self._run_id, self.resets
        self.status.publish(status)
        self._note(status)
