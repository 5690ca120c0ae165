"""`process_frame`: turns an image's pixels into all its results. The node's worker and `process` call it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import Intrinsics
from feature_frontend.camera.camera_info_history import CalibrationState, CalibrationWatch
from feature_frontend.errors import DamagedImageError, FeatureFrontendError
from feature_frontend.extractors.extractor import Mask
from feature_frontend.geometry.epipolar_check import check_frame
from feature_frontend.geometry.rays import MissedTracks, RayMemory, RayState, rays_of_tracks
from feature_frontend.pipeline.frame import FrameImage, FrameOutput
from feature_frontend.pipeline.frontend import Frontend, FrontendState
from feature_frontend.pipeline.masks import FrameMasks, TopicMask
from feature_frontend.pipeline.stereo_pairs import StereoPairs
from feature_frontend.runtime.adaptive_resolution import OutOfMemoryGuard
from feature_frontend.runtime.mask_sync import PairedMask
from feature_frontend.system.text import short_text
from feature_frontend.types import FrameResult

__all__ = ["FrameProcessor", "FrameReport", "ProcessorState", "Refusal"]

_MS_PER_S = 1e3


@dataclass(frozen=True)
class FrameReport:
    """The results of one processed frame.

    Attributes:
        result: Includes the epipolar check; its reason holds every remark except `news`.
        rays: (N, 2) undistorted (x/z, y/z) of the keypoints; None without a calibration.
        intrinsics: Used for `rays`; all 0 and empty without a calibration.
        news: What changed about the calibration, in one line; empty for nothing.
        publishing_ms: Wall-clock time to create the output and pass it on.
    """

    result: FrameResult
    rays: npt.NDArray[np.float32] | None
    intrinsics: Intrinsics
    news: str
    publishing_ms: float


@dataclass(frozen=True)
class Refusal:
    """Why a frame cannot be processed.

    Attributes:
        reason: In one line.
        is_lost: Whether the image was once intact; False if its kind is not supported or processing failed.
    """

    reason: str
    is_lost: bool = False

    @staticmethod
    def of(error: Exception) -> Refusal:
        """The refusal for an error raised by decoding or processing."""
        if isinstance(error, FeatureFrontendError):
            return Refusal(str(error), isinstance(error, DamagedImageError))
        return Refusal(f"{type(error).__name__}: {short_text(error)}")


@dataclass(frozen=True)
class ProcessorState:
    """What a `FrameProcessor` remembers, except the state of memory, masks and stereo."""

    frontend: FrontendState
    calibrations: CalibrationState
    rays: RayState
    remark: str


class FrameProcessor:
    """Processes one frame after another. Not thread-safe: one thread calls it.

    Args:
        frontend: Used by this object only.
        calibrations: Of the camera, in stereo of the left one; accepts messages from any thread.
        warn: Receives what the user should know at once.
        stereo: Matches pairs; None for one camera.

    Attributes:
        frontend: As given.
        masks: From the parameter mask_path and the topic `mask`.
        remark: Goes into the next frame's reason that is otherwise empty.
    """

    def __init__(
        self,
        frontend: Frontend,
        calibrations: CalibrationWatch,
        warn: Callable[[str], None],
        stereo: StereoPairs | None = None,
    ) -> None:
        self.frontend = frontend
        self.masks = FrameMasks()
        self.remark = ""
        self._calibrations = calibrations
        self._warn = warn
        self._stereo = stereo
        self._rays = RayMemory()
        self._out_of_memory_guard = OutOfMemoryGuard()

    def get_state(self) -> ProcessorState:
        """The state that another instance needs to continue; valid until the next frame."""
        states = self.frontend.get_state(), self._calibrations.get_state(), self._rays.state
        return ProcessorState(*states, self.remark)

    def set_state(self, state: ProcessorState) -> None:
        """Continues from the state of another instance.

        Raises:
            SnapshotError: The state is invalid.
        """
        self.frontend.set_state(state.frontend)
        self._calibrations.set_state(state.calibrations)
        self._rays.state, self.remark = state.rays, state.remark

    def process_frame(
        self,
        image: FrameImage,
        output: FrameOutput,
        right: FrameImage | None = None,
        mask: PairedMask[TopicMask] | None = None,
        pixel_fraction: float = 1.0,
    ) -> FrameReport:
        """Processes a frame and passes its parts to `output`, matches last.

        Args:
            image: In stereo the left one.
            output: Receives the parts.
            right: The right image of a stereo pair.
            mask: What the topic `mask` has for the image; None without the topic.
            pixel_fraction: As of `Extractor`: upper limit of the pixels that the network processes, in (0, 1].

        Raises:
            FeatureFrontendError: The frame cannot be processed. After this or any other exception, the next frame is
                matched with the last good one. `Refusal` turns the exception into a report.
        """
        settings = self.frontend.settings
        height, width = image.pixels.shape[:2]
        masked = self.masks.of_frame(mask, (height, width), settings)
        result = masked.annotate(self._extract(image, right, masked.mask, pixel_fraction))
        clock = _Clock()
        missed = MissedTracks.of(result)
        all_rays = self._calibrations.normalize(
            result.features, image.stamp_ns, image.run, rectified=settings.rectified, further=missed.points
        )
        rays = None if all_rays is None else all_rays[: len(result.features)]
        of_matches = self._rays.of_matches(result, rays, image.stamp_ns)
        output.features(result, rays)
        disparities = None
        if self._stereo is not None and right is not None:
            with clock.stopped():
                result, disparities = self._stereo.match(image, right, result, rays, output, settings)
        if settings.publish_tracks:
            output.tracks(result, rays_of_tracks(result, all_rays, of_matches, missed), disparities)
        with clock.stopped():
            result = check_frame(result, of_matches, self._calibrations.focal_px, settings)
        if settings.publish_matches:
            output.matches(result, of_matches)
        publishing_ms = clock.elapsed_ms()
        if self.remark and not result.reason:
            result, self.remark = replace(result, reason=self.remark), ""
        return FrameReport(result, rays, self._calibrations.intrinsics, self._calibrations.news(), publishing_ms)

    def _extract(
        self, image: FrameImage, right: FrameImage | None, mask: Mask | None, pixel_fraction: float
    ) -> FrameResult:
        """Runs the front-end, on a smaller image if memory is short."""

        def process() -> FrameResult:
            self.frontend.extractor.pixel_fraction = pixel_fraction * self._out_of_memory_guard.fraction
            return self.frontend.process(image.pixels, image.stamp_ns, mask, None if right is None else right.pixels)

        result, shortage = self._out_of_memory_guard.run(process, self.frontend.free_memory, time.monotonic())
        if shortage:
            self.remark = shortage
            self._warn(shortage)
        return result


class _Clock:
    """Measures wall-clock time; can be paused."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        began_s = time.monotonic()
        yield
        self._start_s += time.monotonic() - began_s

    def elapsed_ms(self) -> float:
        return (time.monotonic() - self._start_s) * _MS_PER_S
