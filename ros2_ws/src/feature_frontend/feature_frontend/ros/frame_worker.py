"""The worker thread: turns image messages into published results."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from rclpy.impl.rcutils_logger import RcutilsLogger

from feature_frontend.errors import FeatureFrontendError, ImageError
from feature_frontend.image.image_header import live_decoding_ms
from feature_frontend.pipeline.frame import FrameImage
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.pipeline.masks import MaskCounts
from feature_frontend.pipeline.process_frame import FrameProcessor, Refusal
from feature_frontend.ros.frame_store import FrameStore, StoredFrame
from feature_frontend.ros.input.frame import Frame
from feature_frontend.ros.input.image_subscription import pixels_of
from feature_frontend.ros.output.publishers import Publishers, ResultTopics
from feature_frontend.ros.stamps import stamp_to_ns
from feature_frontend.runtime.adaptive_resolution import LatencyController
from feature_frontend.runtime.frame_queue import FrameQueue
from feature_frontend.runtime.heap import HeapReserve

__all__ = ["WARM_UP_SIZE", "FrameWorker"]

WARM_UP_SIZE = (240, 320)
_MS_PER_S = 1e3
_LOG_S = 5.0
_NS_PER_S = 1_000_000_000


class FrameWorker:
    """Processes frames in a separate thread, one at a time. Call its methods from one thread only.

    Args:
        processor: Used only by the worker thread while it runs.
        topics: Publishes the results.
        publishers: Show the frames to viewers.
        store: Receives the features of every processed frame.
        logger: Of the node.
        is_ros_up: Whether publishing is still possible.
        note_failure: Receives place and error of exceptions that are not caused by a frame.

    Attributes:
        image_size: (height, width) px of the latest image; WARM_UP_SIZE before the first one.
    """

    def __init__(
        self,
        processor: FrameProcessor,
        topics: ResultTopics,
        publishers: Publishers,
        store: FrameStore,
        logger: RcutilsLogger,
        is_ros_up: Callable[[], bool],
        note_failure: Callable[[str, Exception], None],
    ) -> None:
        self.image_size = WARM_UP_SIZE
        self._processor = processor
        self._topics = topics
        self._publishers = publishers
        self._store = store
        self._latency_controller = LatencyController()
        self._logger = logger
        self._is_ros_up = is_ros_up
        self._note_failure = note_failure
        self._changes: deque[Callable[[Frontend], None]] = deque()
        self._queue: FrameQueue[Frame] = FrameQueue(None)
        self._thread: threading.Thread | None = None

    def start(self, capacity: int | None) -> None:
        """Starts processing.

        Args:
            capacity: Maximum number of waiting frames; older ones are replaced. None for no bound.
        """
        self._queue = FrameQueue(capacity)
        self._thread = threading.Thread(target=self._work, args=(self._queue,), name="frontend-worker", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> list[Frame]:
        """Stops after the current frame, waiting at most `timeout_s`; returns the frames still in the queue."""
        left = self._queue.close()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if not self._thread.is_alive():
                self._thread = None
                self._apply_changes()
        return left

    @property
    def is_running(self) -> bool:
        """Whether the thread has been started and has not ended."""
        return self._thread is not None

    @property
    def tracker(self) -> str:
        """The tracker in use."""
        return self._processor.frontend.settings.tracker

    @property
    def mask_counts(self) -> MaskCounts:
        """Number of frames by the mask they got from the topic."""
        return self._processor.masks.counts

    def put(self, frame: Frame) -> Frame | None:
        """Queues a frame; returns the frame that it replaces, if any."""
        return self._queue.put(frame)

    def change(self, change: Callable[[Frontend], None]) -> None:
        """Queues a change of the front-end, applied between two frames in call order; at once if no thread runs."""
        self._changes.append(change)
        if self._thread is None:
            self._apply_changes()

    def use_mask_file(self, path: str, mask: npt.NDArray[np.uint8] | None) -> None:
        """Uses `mask`, read from the file `path`, from the next frame on."""
        self.change(lambda _frontend: self._processor.masks.use_file(path, mask))

    def remark(self, text: str) -> None:
        """Puts `text` into the status of the next processed frame whose reason is otherwise empty."""

        def set_remark(_frontend: Frontend) -> None:
            self._processor.remark = text

        self.change(set_remark)

    def _apply_changes(self) -> None:
        while self._changes:
            change = self._changes.popleft()
            try:
                change(self._processor.frontend)
            except Exception as error:
                # Such as a GPU that has disappeared: the next frames report what fails.
                self._note_failure("a change between two frames", error)

    def _work(self, queue: FrameQueue[Frame]) -> None:
        slack = HeapReserve()
        while (frame := queue.get()) is not None:
            try:
                if not self._process_or_refuse(frame):
                    return
                extractor = self._processor.frontend.extractor
                # On a GPU the maps are not in this heap, and a Jetson shares its memory with the GPU.
                if extractor.device.type == "cpu":
                    slack.note((extractor.identity, extractor.execution), self.image_size)
            except Exception as error:
                # Not even a refusal could be published; the next frame may succeed.
                if not self._is_ros_up():
                    return
                self._note_failure("the thread of the frames", error)

    def _process_or_refuse(self, frame: Frame) -> bool:
        """Processes or refuses a frame; False if its status can no longer be published."""
        try:
            self._process(frame)
        except Exception as error:
            if not isinstance(error, FeatureFrontendError) and not self._is_ros_up():
                return False
            self._topics.refused(frame.message.header, frame.received_s, Refusal.of(error).reason)
        return True

    def _process(self, frame: Frame) -> None:
        self._apply_changes()
        header = frame.message.header
        start_s = time.monotonic()
        if header.stamp.nanosec >= _NS_PER_S:
            raise ImageError(
                f"its stamp has {header.stamp.nanosec} ns in addition to the seconds; expected less than a second"
            )
        settings = self._processor.frontend.settings
        max_decoding_ms = live_decoding_ms(settings.max_image_pixels)
        stamp_ns = stamp_to_ns(header.stamp)
        image = FrameImage(pixels_of(frame.message, settings, max_decoding_ms), stamp_ns, frame.runs[0])
        right = None
        if frame.right is not None:
            try:
                pixels = pixels_of(frame.right, settings, max_decoding_ms)
            except ImageError as error:
                raise ImageError(f"the right image: {error}") from error
            right = FrameImage(pixels, stamp_to_ns(frame.right.header.stamp), frame.runs[1])
        conversion_ms = (time.monotonic() - start_s) * _MS_PER_S
        messages = self._topics.of_frame(header, settings, None if frame.right is None else frame.right.header)
        report = self._processor.process_frame(image, messages, right, frame.mask, self._latency_controller.fraction)
        self.image_size = image.pixels.shape[:2]
        features = report.result.features
        self._store.put(stamp_ns, StoredFrame(messages.origin(report.result), features, report.rays))
        self._topics.processed(header, frame.received_s, report, conversion_ms)
        self._publishers.show(header, image.pixels, report.result)
        self._keep_rate(frame.received_s, settings.deadline_ms)

    def _keep_rate(self, received_s: float, deadline_ms: float) -> None:
        now_s = time.monotonic()
        step = self._latency_controller.note((now_s - received_s) * _MS_PER_S, now_s, deadline_ms)
        if step is not None:
            self._processor.remark = step.reason
            self._logger.info(step.reason, throttle_duration_sec=_LOG_S)
