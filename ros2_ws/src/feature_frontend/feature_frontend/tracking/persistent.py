"""`PersistentPairing`: an image's features, with the points of earlier images among them where they are still seen."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.errors import SettingsError
from feature_frontend.extractors.base import FrameMaps
from feature_frontend.extractors.extractor import Extractor, Mask
from feature_frontend.matchers.base import MatcherProtocol
from feature_frontend.pairing import Pair
from feature_frontend.settings import Settings
from feature_frontend.tracker import Continuation
from feature_frontend.tracking.state import TrackState, View
from feature_frontend.tracking.step import Step, TrackingOptions, advance, miss_all, start
from feature_frontend.types import Features, Matches

__all__ = ["DETECTED_SHARE", "NAME", "PersistentPairing"]

# Of the budget, once points are followed. The rest of the places goes to points that are found again, and needs no
# detections, which would be described in vain; on real sequences that is 20 to 30 % of them.
DETECTED_SHARE = 0.75
_MS_PER_S = 1e3
NAME = "persistent"


class PersistentPairing:
    """Extracts from one image after another and follows the points; its matches are those of the tracks.

    Args:
        extractor: Whose network gives the maps.
        matcher: Is not used: its gates are for pairs of which nothing else is known.
        settings: Of the tracker.

    Raises:
        SettingsError: The extractor's network has no maps.
    """

    def __init__(self, extractor: Extractor, matcher: MatcherProtocol, settings: Settings) -> None:
        if not extractor.has_maps:
            msg = f"{extractor.identity} gives no maps to find points again on; use tracker:=chain with it"
            raise SettingsError(msg)
        self.matcher = matcher
        self.settings = settings
        self._extractor = extractor
        self._state: TrackState | None = None
        self._view: View | None = None

    @torch.no_grad()
    def __call__(
        self, image: npt.NDArray[np.uint8], mask: Mask | None = None, right: npt.NDArray[np.uint8] | None = None
    ) -> Pair:
        """See `Pairing`; a right image goes through the network by itself."""
        start_ms = self._now()
        of_right = None if right is None else self._extractor(right).to("cpu")
        maps = self._extractor.maps(image, mask, 1.0 if self._state is None else DETECTED_SHARE)
        extracted_ms = self._now()
        if maps is None or maps.features.keypoints.shape[1] == 0:
            features, matches, continuation = self._nothing(*image.shape[:2])
        else:
            features, matches, continuation = self._follow(maps)
        return Pair(features, matches, extracted_ms - start_ms, self._now() - extracted_ms, of_right, continuation)

    def forget(self) -> None:
        """See `Pairing`."""
        self._state = self._view = None

    def _follow(self, maps: FrameMaps) -> tuple[Features, Matches, Continuation]:
        step = advance(start(maps) if self._state is None else self._state, maps, self._options(maps), self._view)
        self._state, self._view = step.state, step.view
        count = int(step.count)
        points = step.keypoints[:count]
        features = Features(
            keypoints=points if maps.resize.is_identity else maps.resize.invert(points),
            scores=step.scores[:count],
            descriptors=step.descriptors[:count],
            height=maps.resize.height0,
            width=maps.resize.width0,
            extractor=self._extractor.identity,
        )
        return features.to("cpu"), _matches(step), _continuation(step.state, step.origins)

    def _nothing(self, height: int, width: int) -> tuple[Features, Matches, Continuation]:
        features = self._extractor.nothing(height, width).to("cpu")
        if self._state is None:
            return features, Matches.empty(NAME), Continuation.empty()
        self._state, origins = miss_all(self._state, self.settings.track_max_gap)
        return features, Matches.empty(NAME), _continuation(self._state, origins)

    def _options(self, maps: FrameMaps) -> TrackingOptions:
        settings = self.settings
        own = settings.track_min_similarity
        return TrackingOptions(
            min_similarity=own if own >= 0 else maps.network.default_track_similarity,
            epipolar_px=settings.track_epipolar_px,
            max_gap=settings.track_max_gap,
            survival_share=settings.track_survival_share,
            grid_rows=settings.grid_rows,
            grid_columns=settings.grid_columns,
        )

    def _now(self) -> float:
        """Wall-clock ms, once the device has done what it was given."""
        if self._extractor.device.type == "cuda":
            torch.cuda.synchronize(self._extractor.device)
        return time.perf_counter() * _MS_PER_S


def _matches(step: Step) -> Matches:
    """Of the points that are seen in this image and in the one before, in the order of `indices0`."""
    rows0, rows1, similarity, margin = (
        tensor.cpu() for tensor in (step.previous_rows, step.current_rows, step.similarity, step.margin)
    )
    pairs = ((rows0 >= 0) & (rows1 >= 0)).nonzero()[:, 0]
    pairs = pairs[rows0[pairs].argsort()]
    return Matches(rows0[pairs], rows1[pairs], similarity[pairs], margin[pairs], NAME)


def _continuation(state: TrackState, origins: torch.Tensor) -> Continuation:
    count = int(state.is_valid.sum())
    return Continuation(origins[:count].cpu().numpy(), state.rows[:count].cpu().numpy())
