"""Extraction and matching as CUDA graphs, without a synchronisation between them."""

from __future__ import annotations

import time
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.extractors.base import PaddedFeatures
from feature_frontend.extractors.extractor import Extractor, Mask
from feature_frontend.matchers.base import MatcherProtocol, PaddedMatcher, PaddedMatches
from feature_frontend.pipeline.base import FrameMatcherState, Pair
from feature_frontend.runtime.cuda_graphs import GraphDevice, download
from feature_frontend.runtime.snapshot import require
from feature_frontend.types import Matches

__all__ = ["GraphFrameMatcher"]

_MS_PER_S = 1e3


class GraphFrameMatcher:
    """Runs extraction and matching with fixed shapes back to back on the device; waits once, at the end of a frame.

    Args:
        extractor: Runs its network on `graph_device`.
        matcher: Supports padded input.
        graph_device: The extractor's.
    """

    def __init__(self, extractor: Extractor, matcher: PaddedMatcher, graph_device: GraphDevice) -> None:
        self.matcher: MatcherProtocol = matcher
        self._extractor = extractor
        self._graph_device = graph_device
        self._matching: _MatchingGraph | None = None
        self._brought_back: tuple[torch.Tensor, torch.Tensor] | None = None
        self._is_first = True

    def run(
        self, image: npt.NDArray[np.uint8], mask: Mask | None = None, right: npt.NDArray[np.uint8] | None = None
    ) -> Pair:
        """See `FrameMatcher`; `right` must be None: `make_frame_matcher` uses `PlainFrameMatcher` for stereo."""
        assert right is None
        start_s = time.perf_counter()
        submitted = self._extractor.submit(image, mask)
        if submitted is None:
            return self._blank(image, start_s)
        with self._graph_device.active():
            extracted = self._graph_device.mark()
            matching = self._matching_for(submitted)
            on_device = matching.match(submitted)
            features, matches = download(self._graph_device, submitted), download(self._graph_device, on_device)
            end = self._graph_device.mark()
        self._graph_device.wait()
        elapsed_ms = (time.perf_counter() - start_s) * _MS_PER_S
        matching_ms = extracted.elapsed_time(end)
        found = Matches.empty(self.matcher.name) if self._is_first else matches.unpadded(self.matcher.name)
        self._is_first = False
        return Pair(self._extractor.collect(features, *image.shape[:2]), found, elapsed_ms - matching_ms, matching_ms)

    def forget(self) -> None:
        """See `FrameMatcher`."""
        self._is_first = True

    def get_state(self) -> FrameMatcherState:
        """See `FrameMatcher`: the state contains the graph's memory, not the graph."""
        kept = self._brought_back if self._matching is None else self._matching.previous
        return FrameMatcherState(descriptors=kept, is_first=self._is_first)

    def set_state(self, state: FrameMatcherState) -> None:
        """See `FrameMatcher`."""
        if state.descriptors is not None:
            descriptors, count = state.descriptors
            require(descriptors.ndim == 2 and count.shape == (), "descriptors and their number")
        self._matching, self._brought_back, self._is_first = None, state.descriptors, state.is_first

    def _blank(self, image: npt.NDArray[np.uint8], start_s: float) -> Pair:
        self._brought_back = None
        features = self._extractor.collect(None, *image.shape[:2])
        if self._matching is not None:
            with self._graph_device.active():
                self._matching.clear_previous()
        self._is_first = False
        elapsed_ms = (time.perf_counter() - start_s) * _MS_PER_S
        return Pair(features.to("cpu"), Matches.empty(self.matcher.name), elapsed_ms, 0.0)

    def _matching_for(self, features: PaddedFeatures) -> _MatchingGraph:
        matcher = cast(PaddedMatcher, self.matcher)
        before = self._matching
        if before is None or not before.fits(matcher, features):
            self._matching = _MatchingGraph(self._graph_device, matcher, features)
            earlier = self._brought_back if before is None else before.previous
            self._brought_back = None
            if earlier is not None:
                self._matching.copy_from(*earlier)
        assert self._matching is not None
        return self._matching


class _MatchingGraph:
    """Matches each image's descriptors with those of the previous one, which stay on the device."""

    def __init__(self, graph_device: GraphDevice, matcher: PaddedMatcher, features: PaddedFeatures) -> None:
        self._options = matcher.options
        self._previous = torch.zeros_like(features.descriptors[0]), torch.zeros_like(features.counts[0])
        self._current = torch.zeros_like(features.descriptors[0]), torch.zeros_like(features.counts[0])
        self._graph = graph_device.capture(lambda: matcher.padded(*self._previous, *self._current))

    def fits(self, matcher: PaddedMatcher, features: PaddedFeatures) -> bool:
        """Whether the graph was captured for these gates and for features of this shape and type."""
        like = features.descriptors[0]
        descriptors = self._current[0]
        return self._options == matcher.options and (descriptors.shape, descriptors.dtype) == (like.shape, like.dtype)

    @property
    def previous(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Descriptors of the previous image, as a padded tensor, and their number."""
        return self._previous

    def copy_from(self, descriptors: torch.Tensor, count: torch.Tensor) -> None:
        """Continues from the `previous` of another graph, with the best ones if not all fit."""
        rows = min(len(descriptors), len(self._previous[0]))
        self._previous[0][:rows].copy_(descriptors[:rows])
        self._previous[1].copy_(count.clamp(max=rows))

    def match(self, features: PaddedFeatures) -> PaddedMatches:
        """Matches these features with the previous ones; the next call overwrites the returned tensors."""
        self._current[0].copy_(features.descriptors[0])
        self._current[1].copy_(features.counts[0])
        self._graph.replay()
        for previous, current in zip(self._previous, self._current, strict=True):
            previous.copy_(current)
        return self._graph.result

    def clear_previous(self) -> None:
        """Records an image without keypoints."""
        self._previous[1].zero_()
