"""The node `frontend`: images in; features, matches, tracks and a status for each frame out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from feature_frontend_msgs.msg import Features, FrameStatus, Matches, Tracks
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.frame_queue import FrameQueue
from feature_frontend.frontend import FrameResult, Frontend
from feature_frontend.ros.calibration_watch import CalibrationWatch
from feature_frontend.ros.debug_image import DebugImage
from feature_frontend.ros.diagnostics import Diagnostics, Facts
from feature_frontend.ros.image_conversion import image_to_array
from feature_frontend.ros.message_encoding import encode_features, encode_matches, encode_tracks, stamp_to_ns
from feature_frontend.ros.parameters import changed_settings, declare_parameters
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.status import FrameTimes, StatusBook
from feature_frontend.settings import Settings

__all__ = ["FrontendNode"]

_MS_PER_S = 1e3
_NEWEST_DEPTH = 5
_SILENCE_S = 5.0
_WARM_UP_SIZE = (240, 320)
_STOP_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class _Frame:
    message: Image
    received_s: float


class FrontendNode(Node):
    """Receives in the executor's thread, processes in a worker thread, one frame at a time.

    Args:
        load: Makes the front-end from the parameters; replaceable, so that a program can bring its own network.

    Raises:
        SettingsError: A parameter has a wrong type or is out of range.
        WeightsError: The weights cannot be had.
    """

    def __init__(self, load: Callable[[Settings], Frontend] = Frontend.from_pretrained) -> None:
        super().__init__("frontend")
        self._settings = declare_parameters(self)
        self._frontend = load(self._settings)
        self._frontend.warm_up(*_WARM_UP_SIZE)
        if self._frontend.notice:
            self.get_logger().warning(self._frontend.notice)
        self._applied = self._settings
        self._calibrations = CalibrationWatch()
        self._last_refusal = ""
        self._status_book = StatusBook()
        self._status_lock = threading.Lock()
        every_frame = self._settings.queue_policy == "every_frame"
        self._queue: FrameQueue[_Frame] = FrameQueue(None if every_frame else 1)
        self.add_on_set_parameters_callback(self._on_parameters)

        output = qos_profile(self._settings.output_qos, self._settings.output_depth)
        self._features_publisher = self.create_publisher(Features, "features", output)
        self._matches_publisher = self.create_publisher(Matches, "matches", output)
        self._tracks_publisher = self.create_publisher(Tracks, "tracks", output)
        self._status_publisher = self.create_publisher(FrameStatus, "status", output)

        self._debug_image = DebugImage(self)
        self._diagnostics = Diagnostics(self, self._facts)

        images = qos_profile(self._settings.image_qos, 0 if every_frame else _NEWEST_DEPTH)
        self._camera_info_subscription = self.create_subscription(
            CameraInfo, "camera_info", self._on_camera_info, qos_profile(self._settings.image_qos, _NEWEST_DEPTH)
        )
        self._image_subscription = self.create_subscription(Image, "image", self._on_image, images)
        self._silence_timer = self.create_timer(_SILENCE_S, self._on_silence)
        self._worker = threading.Thread(target=self._work, name="frontend-worker", daemon=True)
        self._worker.start()
        extractor = self._frontend.extractor
        self.get_logger().info(
            f"ready: {extractor.identity} on {extractor.device}, {self._settings.precision}, matcher "
            f"{self._settings.matcher}; waiting for images on {self._image_subscription.topic_name}"
        )

    def stop(self) -> bool:
        """Stops the worker after the frame in hand; False if that frame is still running after a second."""
        self._queue.close()
        self._debug_image.stop()
        self._worker.join(_STOP_TIMEOUT_S)
        return not self._worker.is_alive()

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            self._settings = changed_settings(self._settings, changes)
        except SettingsError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _on_camera_info(self, message: CameraInfo) -> None:
        problem = self._calibrations.take(message)
        if problem:
            self.get_logger().warning(problem)

    def _facts(self) -> Facts:
        extractor = self._frontend.extractor
        return Facts(
            model=extractor.identity,
            device=extractor.device,
            execution=extractor.execution,
            precision=self._settings.precision,
            calibration=self._calibrations.state,
            warnings=[text for text in (self._frontend.notice, self._calibrations.warning) if text],
        )

    def _on_image(self, message: Image) -> None:
        received_s = time.monotonic()
        if self._silence_timer is not None:
            self.destroy_timer(self._silence_timer)
            self._silence_timer = None
        self._diagnostics.arrived(received_s)
        with self._status_lock:
            self._status_book.note_arrival(received_s)
        dropped = self._queue.put(_Frame(message, received_s))
        if dropped is not None:
            with self._status_lock:
                self._publish_status(self._status_book.dropped(dropped.message.header, dropped.received_s))

    def _on_silence(self) -> None:
        topic = self._image_subscription.topic_name
        publishers = self.count_publishers(topic)
        advice = (
            f"{publishers} publisher(s) offer the topic; compare the QoS (image_qos is {self._settings.image_qos}) by "
            f"`ros2 topic info -v {topic}`"
            if publishers
            else "nobody publishes it; remap `image` to your camera's topic"
        )
        self.get_logger().warning(f"no image on {topic} for {_SILENCE_S:g} s: {advice}", once=True)

    def _work(self) -> None:
        while (frame := self._queue.get()) is not None:
            try:
                self._process(frame)
            except FeatureFrontendError as error:
                self._refuse(frame, str(error))
            except Exception as error:
                if not self.context.ok():
                    return
                self._refuse(frame, f"{type(error).__name__}: {error}")

    def _process(self, frame: _Frame) -> None:
        settings = self._settings
        if settings is not self._applied:
            self._frontend.configure(settings)
            self._applied = settings
        start_s = time.monotonic()
        image = image_to_array(frame.message)
        converted_s = time.monotonic()
        result = self._frontend.process(image, stamp_to_ns(frame.message.header.stamp))
        processed_s = time.monotonic()
        self._publish_result(frame.message, result, settings)
        times = FrameTimes(
            conversion_ms=(converted_s - start_s) * _MS_PER_S,
            publishing_ms=(time.monotonic() - processed_s) * _MS_PER_S,
        )
        with self._status_lock:
            header, note = frame.message.header, self._calibrations.news()
            self._publish_status(self._status_book.processed(header, frame.received_s, result, times, note))
        self._debug_image.show(header, image, result)

    def _publish_result(self, image: Image, result: FrameResult, settings: Settings) -> None:
        header = image.header
        stamp_ns = stamp_to_ns(header.stamp)
        normalized = self._calibrations.normalize(result.features, stamp_ns, rectified=settings.rectified)
        features = encode_features(header, result.features, normalized, settings.descriptor_type)
        self._features_publisher.publish(features)
        if result.stamp0_ns is not None:
            self._matches_publisher.publish(encode_matches(header, result))
        of_tracks = None if normalized is None else normalized[result.tracks.feature_indices]
        self._tracks_publisher.publish(encode_tracks(header, result.tracks, of_tracks))

    def _refuse(self, frame: _Frame, reason: str) -> None:
        # A camera that sends one bad image mostly sends thousands: a reason is logged when it is new, status has each.
        if reason != self._last_refusal:
            self.get_logger().error(f"image refused: {reason}")
            self._last_refusal = reason
        with self._status_lock:
            self._publish_status(self._status_book.refused(frame.message.header, frame.received_s, reason))

    def _publish_status(self, status: FrameStatus) -> None:
        self._status_publisher.publish(status)
        self._diagnostics.note(status)
