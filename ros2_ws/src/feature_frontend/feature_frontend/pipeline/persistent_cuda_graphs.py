"""`PersistentGraphFrameMatcher`: the persistent tracker as captured graphs; on a GPU, two CUDA graphs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.extractors.base import FrameMaps, PreparedImage
from feature_frontend.extractors.extractor import Extractor, Mask
from feature_frontend.image.resize import Resize
from feature_frontend.matchers.base import MatcherProtocol
from feature_frontend.pipeline.base import FrameMatcherState, Pair
from feature_frontend.pipeline.persistent import DETECTED_FRACTION, Found, PersistentFrameMatcher, Seen
from feature_frontend.runtime.cuda_graphs import GraphDevice, download
from feature_frontend.settings import Settings
from feature_frontend.tracking.state import Past, TrackState, View
from feature_frontend.tracking.step import TrackingOptions, advance, capacity

__all__ = ["PersistentGraphFrameMatcher"]

_MS_PER_S = 1e3


@dataclass(frozen=True)
class _Followed:
    """Results of one step: for the host, and for the next step."""

    seen: Seen
    state: TrackState
    latest: torch.Tensor


class PersistentGraphFrameMatcher(PersistentFrameMatcher):
    """Waits once, at the end of a frame; the state stays on the device, at fixed addresses.

    Only the step between two images of equal size and budget is captured. The first step and those between two sizes
    or budgets do not repeat: they run operation by operation, and write their state to where existing graphs for the
    new size read it.

    Args:
        extractor: Runs its network on `graph_device`, and keeps the graphs.
        matcher: As for `PersistentFrameMatcher`.
        settings: As for `PersistentFrameMatcher`.
        graph_device: The extractor's.
    """

    def __init__(
        self, extractor: Extractor, matcher: MatcherProtocol, settings: Settings, graph_device: GraphDevice
    ) -> None:
        super().__init__(extractor, matcher, settings)
        self._graph_device = graph_device
        # An entry lives as long as a graph reads it.
        self._pasts: WeakValueDictionary[tuple[int, Resize], Past] = WeakValueDictionary()

    def run(
        self, image: npt.NDArray[np.uint8], mask: Mask | None = None, right: npt.NDArray[np.uint8] | None = None
    ) -> Pair:
        """See `FrameMatcher`."""
        with self._graph_device.active():
            return super().run(image, mask, right)

    def set_state(self, state: FrameMatcherState) -> None:
        """See `FrameMatcher`: the state contains the graphs' memory, not the graphs."""
        super().set_state(state)
        self._pasts = WeakValueDictionary()
        if self._past is not None:
            self._pasts[self._past.capacity, self._past.view.resize] = self._past

    def _follow(self, image: PreparedImage) -> tuple[Found, float]:
        past = self._past
        if past is None or (past.capacity, past.view.resize) != (capacity(image.options), image.resize):
            return super()._follow(image)
        options = self._options()

        def work(maps: FrameMaps) -> _Followed:
            return _advanced(past, maps, options)

        submitted = self._extractor.submit_maps(image, DETECTED_FRACTION, ((past, options), work))
        followed = submitted.result
        seen = download(self._graph_device, followed.seen)
        past.copy_from(followed.state, replace(past.view, latest=followed.latest))
        end = self._graph_device.mark()
        self._graph_device.wait()
        start_s = time.perf_counter()
        found = self._found(seen, image)
        following_ms = submitted.extracted.elapsed_time(end) + (time.perf_counter() - start_s) * _MS_PER_S
        return found, following_ms

    def _remember(self, state: TrackState, view: View) -> None:
        new = Past(state, view)
        key = new.capacity, view.resize
        kept = self._pasts.get(key)
        if kept is None:
            kept = self._pasts[key] = new.copied()
        else:
            kept.copy_from(state, view)
        self._past = kept


def _advanced(past: Past, maps: FrameMaps, options: TrackingOptions) -> _Followed:
    """Runs one step. Overwrites only the oldest image of `past`, so repeating it gives the same result."""
    step = advance(past.state, maps, options, past.view)
    return _Followed(Seen.of(step, maps.resize), step.state, step.view.latest)
