"""Extraction and matching operation by operation, without captured graphs."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from feature_frontend.extractors.extractor import Extractor, Mask
from feature_frontend.matchers.base import MatcherProtocol
from feature_frontend.pipeline.base import FrameMatcherState, Pair
from feature_frontend.runtime.cuda_graphs import wait_for_own_work
from feature_frontend.runtime.snapshot import require
from feature_frontend.types import Features, Matches

__all__ = ["PlainFrameMatcher"]

_MS_PER_S = 1e3


class PlainFrameMatcher:
    """Runs the stages one after another, with tensors as large as the number of points found."""

    def __init__(self, extractor: Extractor, matcher: MatcherProtocol) -> None:
        self.matcher = matcher
        self._extractor = extractor
        self._previous: Features | None = None

    def run(
        self, image: npt.NDArray[np.uint8], mask: Mask | None = None, right: npt.NDArray[np.uint8] | None = None
    ) -> Pair:
        """See `FrameMatcher`."""
        start = self._now()
        features, of_right = self._extract(image, mask, right)
        extracted = self._now()
        if self._previous is None:
            matches = Matches.empty(self.matcher.name)
        else:
            matches = self.matcher.match(self._previous, features).to("cpu")
        self._previous = features
        of_right = None if of_right is None else of_right.to("cpu")
        return Pair(features.to("cpu"), matches, extracted - start, self._now() - extracted, of_right)

    def forget(self) -> None:
        """See `FrameMatcher`."""
        self._previous = None

    def get_state(self) -> FrameMatcherState:
        """See `FrameMatcher`."""
        return FrameMatcherState(features=self._previous, is_first=self._previous is None)

    def set_state(self, state: FrameMatcherState) -> None:
        """See `FrameMatcher`."""
        if state.features is not None:
            require(state.features.is_whole, "keypoint arrays of equal length")
        self._previous = state.features

    def _extract(
        self, image: npt.NDArray[np.uint8], mask: Mask | None, right: npt.NDArray[np.uint8] | None
    ) -> tuple[Features, Features | None]:
        if right is None:
            return self._extractor.extract(image, mask), None
        if right.shape[:2] != image.shape[:2]:
            return self._extractor.extract(image, mask), self._extractor.extract(right)
        features, of_right = self._extractor.extract_batch([image, right], [mask, None])
        return features, of_right

    def _now(self) -> float:
        """Wall-clock time in ms after the device has finished all submitted work."""
        wait_for_own_work(self._extractor.device)
        return time.perf_counter() * _MS_PER_S
