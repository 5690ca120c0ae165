"""The thread that processes frames: from an image message to what is published of it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from std_msgs.msg import Header

from feature_frontend.errors import DamagedImageError, FeatureFrontendError, ImageError
from feature_frontend.extractors.extractor import Mask
from feature_frontend.geometry.epipolar_check import check_frame
from feature_frontend.geometry.rays import MissedTracks, RayMemory, RayState, rays_of_tracks
from feature_frontend.image.image_header import live_decoding_ms
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.ros.frame_store import FrameStore, StoredFrame
from feature_frontend.ros.input.camera_info_history import CalibrationWatch
from feature_frontend.ros.input.frame import Frame
from feature_frontend.ros.input.image_subscription import pixels_of, right_pixels
from feature_frontend.ros.input.masks import FrameMasks, MaskCounts
from feature_frontend.ros.output.frame_status import FrameTimes
from feature_frontend.ros.output.messages import Origin
from feature_frontend.ros.output.publishers import ResultTopics
from feature_frontend.ros.output.stereo_publishers import StereoTopics
from feature_frontend.ros.stamps import stamp_to_ns
from feature_frontend.runtime.adaptive_resolution import MemoryKeeper, RateKeeper
from feature_frontend.runtime.frame_queue import FrameQueue
from feature_frontend.runtime.heap import SlackKeeper
from feature_frontend.sources.base import LostImages
from feature_frontend.system.text import short_text
from feature_frontend.types import FrameResult

__all__ = ["WARM_UP_SIZE", "FrameWorker", "WorkerState"]

WARM_UP_SIZE = (240, 320)
Uint8Array = npt.NDArray[np.uint8]
_MS_PER_S = 1e3
_LOG_S = 5.0
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class WorkerState:
    """What a `FrameWorker` remembers beside its front-end, but for what hangs on time and memory.

    Attributes:
        remark: For the status of the next frame.
        lost: Frames whose images are cut off or damaged.
        rays: Of the frame before.
    """

    remark: str
    lost: LostImages
    rays: RayState


class FrameWorker:
    """Processes frames in a thread of its own, one at a time. Its methods are called by one other thread.

    Args:
        frontend: Used by this thread alone while it runs.
        topics: Where results go.
        store: Takes the features of every frame processed.
        calibrations: Normalise keypoints.
        logger: Of the node.
        is_ros_up: Whether there is still somebody to publish to.
        stereo: Takes pairs; None for one camera.
        note_failure: Told what was raised where no frame is to blame, and where; None to have it raised.
        is_live: Other frames wait meanwhile: images that take long to decode are refused.

    Attributes:
        image_size: (height, width) px of the latest image; WARM_UP_SIZE before the first one.
        lost: Frames that were refused because their images are cut off or damaged.
    """

    def __init__(
        self,
        frontend: Frontend,
        topics: ResultTopics,
        store: FrameStore,
        calibrations: CalibrationWatch,
        logger: Any,
        is_ros_up: Callable[[], bool],
        stereo: StereoTopics | None = None,
        note_failure: Callable[[str, Exception], None] | None = None,
        *,
        is_live: bool = False,
    ) -> None:
        self.image_size = WARM_UP_SIZE
        self.lost = LostImages()
        self._frontend = frontend
        self._topics = topics
        self._store = store
        self._calibrations = calibrations
        self._masks = FrameMasks()
        self._rays = RayMemory()
        self._rate_keeper = RateKeeper()
        self._memory_keeper = MemoryKeeper()
        self._logger = logger
        self._is_ros_up = is_ros_up
        self._stereo = stereo
        self._note_failure = note_failure
        self._is_live = is_live
        self._changes: deque[Callable[[Frontend], None]] = deque()
        self._remark = ""
        self._last_refusal = ""
        self._queue: FrameQueue[Frame] = FrameQueue(None)
        self._thread: threading.Thread | None = None

    def start(self, capacity: int | None) -> None:
        """Begins to process.

        Args:
            capacity: Most frames that wait, the newest win; None for no bound.
        """
        self._queue = FrameQueue(capacity)
        self._thread = threading.Thread(target=self._work, args=(self._queue,), name="frontend-worker", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> list[Frame]:
        """Ends after the frame in hand, or after `timeout_s`; the frames that were still waiting."""
        left = self._queue.close()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if not self._thread.is_alive():
                self._thread = None
                self._apply_changes()
        return left

    def get_state(self) -> WorkerState:
        """What another one needs to go on. It holds until the next frame."""
        return WorkerState(self._remark, self.lost, self._rays.state)

    def set_state(self, state: WorkerState) -> None:
        """Goes on from the state of another one."""
        self._remark, self.lost, self._rays.state = state.remark, state.lost, state.rays

    @property
    def is_running(self) -> bool:
        """Whether it has been started and not ended."""
        return self._thread is not None

    @property
    def mask_counts(self) -> MaskCounts:
        """Frames by the mask that the topic gave them."""
        return self._masks.counts

    def put(self, frame: Frame) -> Frame | None:
        """Gives it a frame; returns the one that it replaces in the queue."""
        return self._queue.put(frame)

    def change(self, change: Callable[[Frontend], None]) -> None:
        """Has the front-end changed between two frames, in the order of the calls; at once where no thread runs."""
        self._changes.append(change)
        if self._thread is None:
            self._apply_changes()

    def use_mask_file(self, path: str, mask: npt.NDArray[np.uint8] | None) -> None:
        """Has the mask of `mask_path` used from the next frame on; it has been read already."""
        self.change(lambda _frontend: self._masks.use_file(path, mask))

    def remark(self, text: str) -> None:
        """Puts `text` into the status of the next frame processed that has nothing else to say."""

        def put_down(_frontend: Frontend) -> None:
            self._remark = text

        self.change(put_down)

    def _apply_changes(self) -> None:
        while self._changes:
            change = self._changes.popleft()
            try:
                change(self._frontend)
            except Exception as error:
                # Such as a GPU that is gone: the frames that follow say what they can and cannot do.
                if self._note_failure is None:
                    raise
                self._note_failure("a change between two frames", error)

    def _work(self, queue: FrameQueue[Frame]) -> None:
        slack = SlackKeeper()
        while (frame := queue.get()) is not None:
            try:
                if not self.process(frame):
                    return
                extractor = self._frontend.extractor
                # On a GPU the maps are not in this heap, and a Jetson's memory is the GPU's, too.
                if extractor.device.type == "cpu":
                    slack.note((extractor.identity, extractor.execution), self.image_size)
            except Exception as error:
                # Not even a refusal could be published; the frames that follow may be luckier.
                if not self._is_ros_up() or self._note_failure is None:
                    return
                self._note_failure("the thread of the frames", error)

    def process(self, frame: Frame) -> bool:
        """Processes a frame in the calling thread; False where there is nobody left to tell what became of it."""
        try:
            self._process(frame)
        except FeatureFrontendError as error:
            self.refuse(frame, str(error), is_lost=isinstance(error, DamagedImageError))
        except Exception as error:
            if not self._is_ros_up():
                return False
            self.refuse(frame, f"{type(error).__name__}: {short_text(error)}")
        return True

    def _process(self, frame: Frame) -> None:
        self._apply_changes()
        header = frame.message.header
        start_s = time.monotonic()
        if header.stamp.nanosec >= _NS_PER_S:
            msg = f"its stamp has {header.stamp.nanosec} ns beside the seconds; expected less than a second"
            raise ImageError(msg)
        settings = self._frontend.settings
        max_decoding_ms = live_decoding_ms(settings.max_image_pixels) if self._is_live else math.inf
        image = pixels_of(frame.message, settings, max_decoding_ms)
        right = None if frame.right is None else right_pixels(frame.right, settings, max_decoding_ms)
        converted_s = time.monotonic()
        masked = self._masks.of_frame(frame.mask, (image.shape[0], image.shape[1]), self._frontend.settings)
        result = masked.annotate(self._extract(image, right, stamp_to_ns(header.stamp), masked.mask, start_s))
        self.image_size = image.shape[:2]
        pair = None if frame.right is None or right is None else (frame.right.header, image, right)
        result, publishing_ms = self._publish(header, result, pair, frame.runs)
        times = FrameTimes(conversion_ms=(converted_s - start_s) * _MS_PER_S, publishing_ms=publishing_ms)
        if self._remark and not result.reason:
            result, self._remark = replace(result, reason=self._remark), ""
        of_camera = self._calibrations.intrinsics, self._calibrations.news()
        self._topics.processed(header, frame.received_s, result, times, *of_camera)
        self._topics.show(header, image, result)
        self._keep_rate(frame.received_s, self._frontend.settings.deadline_ms)

    def _extract(
        self,
        image: npt.NDArray[np.uint8],
        right: npt.NDArray[np.uint8] | None,
        stamp_ns: int,
        mask: Mask | None,
        now_s: float,
    ) -> FrameResult:
        """The frame's results, from a smaller image where time or memory do not suffice."""

        def process() -> FrameResult:
            self._frontend.extractor.pixel_share = self._rate_keeper.share * self._memory_keeper.share
            return self._frontend.process(image, stamp_ns, mask, right)

        result, shortage = self._memory_keeper.run(process, self._frontend.free_memory, now_s)
        if shortage:
            self._remark = shortage
            self._logger.warning(shortage, throttle_duration_sec=_LOG_S)
        return result

    def _publish(
        self,
        header: Header,
        result: FrameResult,
        pair: tuple[Header, Uint8Array, Uint8Array] | None,
        runs: tuple[int, int],
    ) -> tuple[FrameResult, float]:
        """Publishes what the frame gave, matches last; the result with its check, and the ms without the matching's.

        Args:
            header: The image's.
            result: Of that image.
            pair: The right image's header, the left and the right image; None for one camera.
            runs: As of `Frame`.
        """
        clock = _Clock()
        settings, stamp_ns = self._frontend.settings, stamp_to_ns(header.stamp)
        origin = self._topics.origin(header, result)
        missed = MissedTracks.of(result)
        rays = self._calibrations.normalize(
            result.features, stamp_ns, runs[0], rectified=settings.rectified, further=missed.points
        )
        normalized = None if rays is None else rays[: len(result.features)]
        of_matches = self._rays.of_matches(result, normalized, stamp_ns)
        self._topics.publish_features(origin, result, normalized, settings)
        disparities = None
        if self._stereo is not None and pair is not None:
            right_header, *images = pair
            with clock.stopped():
                result, disparities = self._stereo.publish(
                    right_header, origin, result, normalized, (images[0], images[1]), runs, settings
                )
        if settings.publish_tracks:
            of_tracks = rays_of_tracks(result, rays, of_matches, missed)
            self._topics.publish_tracks(origin, result, of_tracks, disparities)
        with clock.stopped():
            result = check_frame(result, of_matches, self._calibrations.focal_px, settings)
        if settings.publish_matches:
            self._topics.publish_matches(origin, result, of_matches)
        self._keep(origin, normalized)
        return result, clock.elapsed_ms()

    def _keep_rate(self, received_s: float, deadline_ms: float) -> None:
        now_s = time.monotonic()
        step = self._rate_keeper.note((now_s - received_s) * _MS_PER_S, now_s, deadline_ms)
        if step is not None:
            self._remark = step.reason
            self._logger.info(step.reason, throttle_duration_sec=_LOG_S)

    def _keep(self, origin: Origin, normalized: npt.NDArray[np.float32] | None) -> None:
        features = self._frontend.latest_features
        if features is not None:
            self._store.put(stamp_to_ns(origin.header.stamp), StoredFrame(origin, features, normalized))

    def refuse(self, frame: Frame, reason: str, *, is_lost: bool = False) -> None:
        """Says that a frame cannot be processed, and why; `is_lost`: it was whole once."""
        if is_lost:
            self.lost.note(reason)
        # One who sends one bad image mostly sends thousands. A live node finds that by its statuses.
        if not self._is_live and reason != self._last_refusal:
            self._logger.error(f"image refused: {reason}")
            self._last_refusal = reason
        self._topics.refused(frame.message.header, frame.received_s, reason)


class _Clock:
    """Measures its own time, less what is done while it is stopped."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        began_s = time.monotonic()
        yield
        self._start_s += time.monotonic() - began_s

    def elapsed_ms(self) -> float:
        return (time.monotonic() - self._start_s) * _MS_PER_S
