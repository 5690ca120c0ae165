"""`Frontend`: one image after another in; features, matches and tracks out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from feature_frontend.errors import SettingsError, WeightsUnavailableError
from feature_frontend.extractors.extractor import Extractor, Mask
from feature_frontend.matchers.base import MatcherProtocol
from feature_frontend.matchers.factory import make_matcher, matching_options
from feature_frontend.pipeline.base import FrameMatcherState
from feature_frontend.pipeline.factory import frame_matcher_of
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
_SAME_STAMP = "the stamp is that of the image before: velocities are 0, and topics cannot be joined by stamp"


@dataclass(frozen=True)
class _Previous:
    features: Features
    tracks: Tracks
    stamp_ns: int


@dataclass(frozen=True)
class FrontendState:
    """What a `Frontend` remembers from one image to the next; model and settings are not among it."""

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
        settings: Of the matcher; and of the extractor, which takes them over.
        notice: What the user should know of how it came about, in one line; empty for nothing.

    Attributes:
        resets: How often it has forgotten the previous image and all tracks.
    """

    def __init__(self, extractor: Extractor, settings: Settings, notice: str = "") -> None:
        self.notice = notice
        self.resets = 0
        self._extractor = extractor
        self._tracker = TrackTable()
        self._rhythm = StreamRhythm()
        self._previous: _Previous | None = None
        self._settings = settings
        self._why_first = ""
        extractor.settings = settings
        self._frame_matcher = frame_matcher_of(extractor, settings)

    @classmethod
    def from_pretrained(cls, settings: Settings | None = None, **parameters: bool | float | str) -> Frontend:
        """A front-end with published weights, or with the fallback where those cannot be had.

        Args:
            settings: All parameters; None for the defaults.
            **parameters: Any of them by name, instead of what `settings` says: `extractor="aliked-n16"`.

        Raises:
            SettingsError: A name or the device is unknown, or a value out of range.
            WeightsError: The weights cannot be had and there is no fallback, or a file is not what it should be.
        """
        if settings is None or parameters:
            settings = Settings.from_mapping({**(vars(settings) if settings is not None else {}), **parameters})
        try:
            return cls(Extractor.from_pretrained(settings), settings)
        except WeightsUnavailableError as error:
            if settings.fallback_extractor in {"", settings.extractor}:
                raise
            # Whatever the matcher, this one takes the fallback's descriptors.
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
        """The settings in force; those of the model name the one in use."""
        return self._settings

    def configure(self, settings: Settings) -> None:
        """Takes over the live parameters, from the next image on; those of the extractor's model: see `swap_model`.

        Only what depends on a parameter is made anew: the matcher for one of `MatchingSettings`; how images are matched
        and followed for `tracker` and `matcher`, which makes the next image a first one; nothing for any other.
        """
        before, self._settings = self._settings, settings
        self._extractor.settings = settings
        changed = [name for name in ("tracker", "matcher") if getattr(before, name) != getattr(settings, name)]
        if changed:
            self._frame_matcher = frame_matcher_of(self._extractor, settings)
            self.reset("; ".join(f"{name} is now {getattr(settings, name)}" for name in changed))
        elif matching_options(before) != matching_options(settings):
            self._frame_matcher.matcher = make_matcher(settings)
        if isinstance(self._frame_matcher, PersistentFrameMatcher):
            self._frame_matcher.settings = settings

    def swap_model(self, other: Frontend, reason: str) -> None:
        """Goes on with the extractor of `other`, which must not be used any more; the own one is freed.

        Descriptors of two models do not compare: the next image is a first one. Tracks end, ids go on.

        Args:
            other: A front-end with the new model.
            reason: What the next image's result shall say.
        """
        self.close()
        self._extractor, self._frame_matcher, self._settings = other.extractor, other._frame_matcher, other.settings
        self.reset(reason)
        return_device_memory()
        give_back_freed_memory()

    def reset(self, reason: str = "") -> None:
        """Forgets the previous image, all tracks and the images' usual interval; track ids go on.

        Args:
            reason: What the next image's result shall say.
        """
        self._rhythm.forget()
        self._begin_anew(reason)

    def _begin_anew(self, reason: str) -> None:
        self.resets += 1
        self._previous = None
        self._frame_matcher.forget()
        self._why_first = reason
        self._tracker.reset()

    def get_state(self) -> FrontendState:
        """What another one with the same model and settings needs to go on. It holds until the next image."""
        return FrontendState(
            self._previous,
            self._why_first,
            self.resets,
            self._tracker.get_state(),
            self._frame_matcher.get_state(),
            self._rhythm.get_state(),
        )

    def set_state(self, state: FrontendState) -> None:
        """Goes on from the state of another one with the same model and settings.

        Raises:
            SnapshotError: It is the state of none.
        """
        if state.previous is not None:
            require(state.previous.features.is_whole, "as much of each keypoint")
            require(state.previous.tracks.is_whole, "as much of each track")
        require(state.resets >= 0, "a count of resets")
        self._previous, self._why_first, self.resets = state.previous, state.why_first, state.resets
        self._tracker.set_state(state.tracker)
        self._frame_matcher.set_state(state.pairing)
        self._rhythm.set_state(state.rhythm)

    def close(self) -> None:
        """Ends what goes on in the background."""
        self._extractor.close()

    def free_memory(self) -> None:
        """Gives back what the next image may need in other sizes: captured graphs, and memory kept for reuse."""
        self._extractor.free_graphs()
        return_device_memory()
        give_back_freed_memory()

    def warm_up(self, height: int, width: int) -> None:
        """Runs the network once on noise, so that the first image does not pay for lazy initialisation."""
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
        """Features, matches and tracks of the next image.

        The image is a first one where its stamp is before that of the last image, for a sequence has begun anew then,
        and where it is later by more than parameter max_gap_s and five median intervals of the stream.

        Args:
            image: (H, W) grey or (H, W, 3) RGB, uint8.
            stamp_ns: Its time in ns.
            mask: (H, W) uint8 or bool, 0 = do not use; None to use all.
            right: The right image of a stereo pair, as `image`; only where the parameter camera_type is stereo. Two of
                one size go through the network together. Only the left one is matched with the image before, tracked
                and masked.

        Raises:
            SettingsError: There is a right image, and the parameter camera_type is mono.
            ImageError: The image or its mask cannot be processed. The state is as before: the next image is matched
                with the last good one.
        """
        if right is not None and self._settings.camera_type != "stereo":
            msg = f"a right image came, but parameter camera_type is {self._settings.camera_type!r}; expected stereo"
            raise SettingsError(msg)
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
        previous = self._previous
        if pair.continuation is None:
            tracks = self._tracker.update(features, matches, stamp_ns)
        else:
            tracks = self._tracker.follow(features, pair.continuation, stamp_ns)
        keypoints0 = features.keypoints[:0] if previous is None else previous.features.keypoints[matches.indices0]
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
        """Forgets the image before where the time from it to the next one says that they do not belong together.

        Returns:
            The state before that, to go back to where the next image turns out bad; None where nothing was forgotten.
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
            self._begin_anew(
                f"{interval_s:g} s have passed since the image before (max_gap_s is {max_gap_s:g}): nothing is matched "
                "across"
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
