"""`Frontend`: takes images one by one and returns features, matches and tracks."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from feature_frontend.errors import SettingsError, WeightsUnavailableError
from feature_frontend.extractors.automatic import with_extractor
from feature_frontend.extractors.extractor import Extractor, Mask
from feature_frontend.geometry.epipolar_check import explained_matches
from feature_frontend.matchers.base import MatcherProtocol
from feature_frontend.matchers.factory import make_matcher, matching_options
from feature_frontend.models.catalog import AUTO
from feature_frontend.pipeline.base import FrameMatcherState
from feature_frontend.pipeline.factory import frame_matcher_of, with_tracker
from feature_frontend.pipeline.persistent import PersistentFrameMatcher
from feature_frontend.pipeline.stream_rhythm import RhythmState, StreamRhythm
from feature_frontend.runtime.device import return_device_memory
from feature_frontend.runtime.heap import give_back_freed_memory
from feature_frontend.runtime.snapshot import require
from feature_frontend.settings import Settings
from feature_frontend.tracking.track_table import TrackerState, TrackTable, compare_tracks
from feature_frontend.types import (
    Features,
    FrameResult,
    FrameState,
    StageTimes,
    TrackChange,
    Tracks,
)

__all__ = ["Frontend", "FrontendState"]

_MS_PER_S = 1e3
_NS_PER_S = 1e9
_SAME_STAMP = "the stamp is that of the previous image: velocities are 0, and topics cannot be joined by stamp"


@dataclass(frozen=True)
class _Previous:
    features: Features
    tracks: Tracks
    stamp_ns: int


@dataclass(frozen=True)
class FrontendState:
    """What a `Frontend` remembers from one image to the next, without model and settings."""

    previous: _Previous | None
    why_first: str
    resets: int
    tracker: TrackerState
    pairing: FrameMatcherState
    rhythm: RhythmState


class Frontend:
    """Extracts, matches with the previous image, and tracks. Not thread-safe: one thread calls it.

    Args:
        extractor: With its weights loaded.
        settings: Of the matcher and the extractor. The extractor adopts them. Tracker "auto" is resolved.
        notice: One line for the user about the choice of the extractor; empty for none.

    Attributes:
        resets: How often the previous image and all tracks were discarded.
    """

    def __init__(self, extractor: Extractor, settings: Settings, notice: str = "") -> None:
        self.notice = notice
        self.resets = 0
        self._extractor = extractor
        self._tracker = TrackTable()
        self._rhythm = StreamRhythm()
        self._previous: _Previous | None = None
        self._settings, self._why_chain = with_tracker(extractor, settings)
        self._why_first = ""
        extractor.settings = self._settings
        self._frame_matcher = frame_matcher_of(extractor, self._settings)

    @classmethod
    def from_pretrained(cls, settings: Settings | None = None, **parameters: bool | float | str) -> Frontend:
        """Creates a front-end with published weights, or with the fallback extractor if they are unavailable.

        Args:
            settings: All parameters; None for the defaults.
            **parameters: Override `settings` by name, such as `extractor="aliked-n16"`.

        Raises:
            SettingsError: A name or the device is unknown, or a value is out of range.
            WeightsError: The weights are unavailable and there is no fallback, or a file is not the expected one.
        """
        if settings is None or parameters:
            settings = Settings.from_mapping({**(vars(settings) if settings is not None else {}), **parameters})
        settings, notice = with_extractor(settings)
        try:
            return cls(Extractor.from_pretrained(settings), settings, notice)
        except WeightsUnavailableError as error:
            if settings.fallback_extractor in {"", settings.extractor}:
                raise
            # The requested matcher may not support the fallback's descriptors; mnn does.
            in_use = replace(settings, extractor=settings.fallback_extractor, matcher="mnn")
            fallback = Extractor.from_pretrained(in_use)
            notice = (
                f"using {fallback.identity}, which comes with this package, instead of {settings.extractor}: {error}"
            )
            return cls(fallback, in_use, notice)

    @property
    def extractor(self) -> Extractor:
        """The extractor in use."""
        return self._extractor

    @property
    def matcher(self) -> MatcherProtocol:
        """The matcher in use."""
        return self._frame_matcher.matcher

    @property
    def settings(self) -> Settings:
        """The settings in force; they name the model and the tracker in use."""
        return self._settings

    def choices(self, wanted: Settings) -> str:
        """What stands for the extractor and the tracker that are "auto" in `wanted`, in one line; "" if none is."""
        found = []
        if wanted.extractor == AUTO and self._settings.extractor != AUTO:
            found.append(f"extractor {AUTO} is {self._extractor.identity} on {self._extractor.device}")
        if wanted.tracker == AUTO:
            found.append(f"tracker {AUTO} is {self._tracker_in_use}")
        return "; ".join(found)

    @property
    def _tracker_in_use(self) -> str:
        """The tracker in use, and why "auto" did not choose the other."""
        return self._settings.tracker + (f": {self._why_chain}" if self._why_chain else "")

    def configure(self, settings: Settings) -> None:
        """Applies the live parameters from the next image on, except those of the model: see `swap_model`.

        Rebuilds only what depends on a changed parameter: the matcher for one of `MatchingSettings`; the frame matcher
        for `tracker` and `matcher`, which makes the next image a first one; nothing for any other. Tracker "auto" is
        resolved again.
        """
        settings, why_chain = with_tracker(self._extractor, settings)
        before, self._settings, self._why_chain = self._settings, settings, why_chain
        self._extractor.settings = settings
        changed = [name for name in ("tracker", "matcher") if getattr(before, name) != getattr(settings, name)]
        if changed:
            self._frame_matcher = frame_matcher_of(self._extractor, settings)
            now = {"tracker": self._tracker_in_use, "matcher": settings.matcher}
            self.reset("; ".join(f"{name} is now {now[name]}" for name in changed))
        elif matching_options(before) != matching_options(settings):
            self._frame_matcher.matcher = make_matcher(settings)
        if isinstance(self._frame_matcher, PersistentFrameMatcher):
            self._frame_matcher.settings = settings

    def swap_model(self, other: Frontend, reason: str) -> None:
        """Switches to the extractor of `other` and frees the current one; `other` must not be used afterwards.

        Descriptors of different models are not comparable: the next image is a first one. Tracks end, ids continue.

        Args:
            other: A front-end with the new model.
            reason: Goes into the next image's result.
        """
        self.close()
        before, self._why_chain = self._settings.tracker, other._why_chain
        self._extractor, self._frame_matcher, self._settings = other.extractor, other._frame_matcher, other.settings
        self.reset(reason if before == self._settings.tracker else f"{reason}; tracker is now {self._tracker_in_use}")
        return_device_memory()
        give_back_freed_memory()

    def reset(self, reason: str = "") -> None:
        """Discards the previous image, all tracks and the stream's median interval; track ids continue.

        Args:
            reason: Goes into the next image's result.
        """
        self._rhythm.forget()
        self._restart(reason)

    def _restart(self, reason: str) -> None:
        self.resets += 1
        self._previous = None
        self._frame_matcher.forget()
        self._why_first = reason
        self._tracker.reset()

    def get_state(self) -> FrontendState:
        """State for another instance with the same model and settings to continue; valid until the next image."""
        return FrontendState(
            self._previous,
            self._why_first,
            self.resets,
            self._tracker.get_state(),
            self._frame_matcher.get_state(),
            self._rhythm.get_state(),
        )

    def set_state(self, state: FrontendState) -> None:
        """Continues from the state of another instance with the same model and settings.

        Raises:
            SnapshotError: The state is invalid.
        """
        if state.previous is not None:
            require(state.previous.features.is_whole, "keypoint arrays of equal length")
            require(state.previous.tracks.is_whole, "track arrays of equal length")
        require(state.resets >= 0, "a count of resets")
        self._previous, self._why_first, self.resets = state.previous, state.why_first, state.resets
        self._tracker.set_state(state.tracker)
        self._frame_matcher.set_state(state.pairing)
        self._rhythm.set_state(state.rhythm)

    def close(self) -> None:
        """Stops background work."""
        self._extractor.close()

    def free_memory(self) -> None:
        """Frees the captured graphs and the memory cached for reuse."""
        self._extractor.free_graphs()
        return_device_memory()
        give_back_freed_memory()

    def warm_up(self, height: int, width: int) -> None:
        """Runs the network on noise, so that the first image does not pay for lazy initialisation."""
        noise = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
        right = noise if self._settings.camera_type == "stereo" else None
        for _ in range(2):
            self._frame_matcher.run(noise, right=right)
        self._frame_matcher.forget()

    def process(
        self,
        image: npt.NDArray[np.uint8],
        stamp_ns: int,
        mask: Mask | None = None,
        right: npt.NDArray[np.uint8] | None = None,
    ) -> FrameResult:
        """Extracts, matches and tracks the next image.

        An image counts as a first one if its stamp is before that of the previous image (the sequence has restarted),
        or later by more than both the parameter max_gap_s and five median intervals of the stream.

        Args:
            image: (H, W) grey or (H, W, 3) RGB, uint8.
            stamp_ns: Its time in ns.
            mask: (H, W) uint8 or bool, 0 = do not use; None to use all.
            right: The right image of a stereo pair, as `image`; only if the parameter camera_type is stereo. Images of
                equal size go through the network as one batch. Only the left image is matched with the previous one,
                tracked and masked.

        Raises:
            SettingsError: There is a right image, but the parameter camera_type is mono.
            ImageError: The image or its mask cannot be processed. The state does not change: the next image is matched
                with the last good one.
        """
        if right is not None and self._settings.camera_type != "stereo":
            raise SettingsError(
                f"a right image came, but parameter camera_type is {self._settings.camera_type!r}; expected stereo"
            )
        interval_ns = 0 if self._previous is None else stamp_ns - self._previous.stamp_ns
        before = self._forget_across(interval_ns)
        try:
            pair = self._frame_matcher.run(image, mask, right)
        except Exception:
            if before is not None:
                self.set_state(before)
            raise
        features, matches = pair.features, pair.matches
        start_s = time.perf_counter()
        previous, noise = self._previous, self._extractor.position_noise
        keypoints0 = features.keypoints[:0] if previous is None else previous.features.keypoints[matches.indices0]
        if pair.continuation is None:
            keypoints1 = features.keypoints[matches.indices1]
            explained = explained_matches(
                matches, keypoints0.numpy(), keypoints1.numpy(), self._settings.track_epipolar_px
            )
            zoom_factor = 0.0 if noise is None else noise.zoom_factor
            tracks = self._tracker.update(features, explained, stamp_ns, zoom_factor)
        else:
            zoom_factor = 0.0 if noise is None else noise.aligned_zoom_factor
            tracks = self._tracker.follow(features, pair.continuation, stamp_ns, zoom_factor)
        tracking_ms = (time.perf_counter() - start_s) * _MS_PER_S
        change = TrackChange() if previous is None else compare_tracks(previous.tracks, tracks)
        self._previous = _Previous(features, tracks, stamp_ns)
        if previous is not None and interval_ns > 0:
            self._rhythm.add(interval_ns)
        state, reason = _judge(features, previous, self._why_first, is_masked=mask is not None)
        if previous is not None and previous.stamp_ns == stamp_ns:
            reason = "; ".join(part for part in (reason, _SAME_STAMP) if part)
        return FrameResult(
            state=state,
            reason=reason,
            features=features,
            matches=matches,
            keypoints0=keypoints0,
            stamp0_ns=None if previous is None else previous.stamp_ns,
            tracks=tracks,
            times=StageTimes(pair.extraction_ms, pair.matching_ms, tracking_ms),
            right=pair.right,
            resets=self.resets,
            change=change,
        )

    def _forget_across(self, interval_ns: int) -> FrontendState | None:
        """Discards the previous image if the interval to the next one is negative or a gap.

        Returns:
            The state before the reset, to restore if the next image cannot be processed; None without a reset.
        """
        interval_s, max_gap_s = interval_ns / _NS_PER_S, self._settings.max_gap_s
        is_back = interval_ns < 0
        if not is_back and not (0 < max_gap_s < interval_s and self._rhythm.is_long(interval_ns)):
            return None
        before = self.get_state()
        if is_back:
            self.reset(f"the stamp went back by {-interval_s:g} s, as in a bag that is played again")
        else:
            self._rhythm.add(interval_ns)
            self._restart(
                f"{interval_s:g} s have passed since the previous image (max_gap_s is {max_gap_s:g}): "
                "nothing is matched across"
            )
        return before


def _judge(
    features: Features, previous: _Previous | None, why_first: str, *, is_masked: bool
) -> tuple[FrameState, str]:
    if len(features) == 0:
        causes = "the image is blank, or all scores are below detection_threshold"
        if is_masked:
            causes += ", or the mask leaves nothing"
        reason = f"no keypoints: {causes}"
        return FrameState.DEGENERATE, f"{reason}; {why_first}" if previous is None and why_first else reason
    return (FrameState.FIRST, why_first) if previous is None else (FrameState.OK, "")
