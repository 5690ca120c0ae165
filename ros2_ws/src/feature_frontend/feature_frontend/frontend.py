"""`Frontend`: one image after another in; features, matches and tracks out."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.api import make_matcher
from feature_frontend.errors import WeightsUnavailableError
from feature_frontend.extractors.extractor import Extractor, Mask
from feature_frontend.pairing import make_pairing
from feature_frontend.settings import Settings
from feature_frontend.tracker import ChainTracker
from feature_frontend.types import Features, Matches, Tracks

__all__ = ["FrameResult", "FrameState", "Frontend", "StageTimes"]

_MS_PER_S = 1e3


class FrameState(enum.IntEnum):
    """What became of a frame; the values are those of `FrameStatus.state`."""

    OK = 0
    FIRST = 1
    DEGENERATE = 2
    DROPPED = 3
    ERROR = 4


@dataclass(frozen=True)
class StageTimes:
    """Wall-clock time of each stage, ms."""

    extraction_ms: float
    matching_ms: float
    tracking_ms: float


@dataclass(frozen=True)
class FrameResult:
    """What one image gave. All tensors are on the CPU.

    Attributes:
        state: OK, FIRST (no earlier image to match with) or DEGENERATE (no keypoints).
        reason: Why it is DEGENERATE; empty otherwise.
        features: Of this image.
        matches: From the previous image to this one; empty for the first.
        keypoints0: (M, 2) float32, (x, y) px: where the matches were in the previous image.
        stamp0_ns: Time of the previous image in ns; None for the first.
        tracks: Of this image.
        times: How long it took.
    """

    state: FrameState
    reason: str
    features: Features
    matches: Matches
    keypoints0: torch.Tensor
    stamp0_ns: int | None
    tracks: Tracks
    times: StageTimes


@dataclass(frozen=True)
class _Previous:
    keypoints: torch.Tensor
    stamp_ns: int


class Frontend:
    """Extracts, matches with the previous image, and tracks. Not thread-safe: one thread calls it.

    Args:
        extractor: With its weights loaded.
        settings: Of the matcher; and of the extractor, which takes them over.
        notice: What the user should know of how it came about, in one line; empty for nothing.
    """

    def __init__(self, extractor: Extractor, settings: Settings, notice: str = "") -> None:
        self.notice = notice
        self._extractor = extractor
        self._tracker = ChainTracker()
        self._previous: _Previous | None = None
        extractor.settings = settings
        self._pairing = make_pairing(extractor, make_matcher(settings))

    @classmethod
    def from_pretrained(cls, settings: Settings) -> Frontend:
        """A front-end with the weights that `settings` name, or with the fallback where those cannot be had.

        Raises:
            SettingsError: A name or the device is unknown.
            WeightsError: The weights cannot be had and there is no fallback, or a file is not what it should be.
        """
        try:
            return cls(Extractor.from_pretrained(settings), settings)
        except WeightsUnavailableError as error:
            if settings.fallback_extractor in {"", settings.extractor}:
                raise
            fallback = Extractor.from_pretrained(replace(settings, extractor=settings.fallback_extractor))
            notice = (
                f"using {fallback.identity}, which comes with this package, instead of {settings.extractor}: {error}"
            )
            return cls(fallback, settings, notice)

    @property
    def extractor(self) -> Extractor:
        """The extractor in use."""
        return self._extractor

    def configure(self, settings: Settings) -> None:
        """Takes over the live parameters, from the next image on."""
        self._extractor.settings = settings
        self._pairing.matcher = make_matcher(settings)

    def reset(self) -> None:
        """Forgets the previous image and all tracks; track ids go on."""
        self._previous = None
        self._pairing.forget()
        self._tracker.reset()

    def warm_up(self, height: int, width: int) -> None:
        """Runs the network once on noise, so that the first image does not pay for lazy initialisation."""
        noise = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
        for _ in range(2):
            self._pairing(noise)
        self._pairing.forget()

    def process(self, image: npt.NDArray[np.uint8], stamp_ns: int, mask: Mask | None = None) -> FrameResult:
        """Features, matches and tracks of the next image.

        Args:
            image: (H, W) grey or (H, W, 3) RGB, uint8.
            stamp_ns: Its time in ns.
            mask: (H, W) uint8 or bool, 0 = do not use; None to use all.

        Raises:
            ImageError: The image or its mask cannot be processed. The state is as before: the next image is matched
                with the last good one.
        """
        pair = self._pairing(image, mask)
        features, matches = pair.features, pair.matches
        start_s = time.perf_counter()
        previous = self._previous
        tracks = self._tracker.update(features, matches, stamp_ns)
        keypoints0 = features.keypoints[:0] if previous is None else previous.keypoints[matches.indices0]
        tracking_ms = (time.perf_counter() - start_s) * _MS_PER_S
        self._previous = _Previous(features.keypoints, stamp_ns)
        state, reason = _judge(features, previous, is_masked=mask is not None)
        return FrameResult(
            state=state,
            reason=reason,
            features=features,
            matches=matches,
            keypoints0=keypoints0,
            stamp0_ns=None if previous is None else previous.stamp_ns,
            tracks=tracks,
            times=StageTimes(pair.extraction_ms, pair.matching_ms, tracking_ms),
        )


def _judge(features: Features, previous: _Previous | None, *, is_masked: bool) -> tuple[FrameState, str]:
    if len(features) == 0:
        causes = "the image is blank, or all scores are below detection_threshold"
        if is_masked:
            causes += ", or the mask leaves nothing"
        return FrameState.DEGENERATE, f"no keypoints: {causes}"
    return (FrameState.FIRST if previous is None else FrameState.OK), ""
