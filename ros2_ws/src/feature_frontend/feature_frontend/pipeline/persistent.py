"""`PersistentFrameMatcher`: features of an image, including the points of earlier images that are still visible."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.errors import SettingsError
from feature_frontend.extractors.base import PreparedImage
from feature_frontend.extractors.extractor import Extractor, Mask
from feature_frontend.image.resize import Resize
from feature_frontend.matchers.base import MatcherProtocol
from feature_frontend.pipeline.base import FrameMatcherState, Pair
from feature_frontend.runtime.cuda_graphs import wait_for_own_work
from feature_frontend.settings import Settings
from feature_frontend.tracking.state import Past, TrackState, View
from feature_frontend.tracking.step import Step, TrackingOptions, advance, miss_all, start
from feature_frontend.tracking.track_table import TrackAssociation
from feature_frontend.types import Features, Matches

__all__ = ["DETECTED_FRACTION", "NAME", "Found", "PersistentFrameMatcher", "Seen"]

# Fraction of the budget to detect while points are tracked. Re-localised points take the rest, 20 to 30 % on real
# sequences; more detections would be described in vain.
DETECTED_FRACTION = 0.75
_MS_PER_S = 1e3
NAME = "persistent"


@dataclass(frozen=True)
class Seen:
    """The part of a `Step` that the host needs; as in `Step`, but positions are in px of the image as published.

    Attributes:
        rows: (C,) int64, `TrackState.rows` after the step.
        num_points: () int64, how many of these rows are valid.
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    descriptors: torch.Tensor
    covariances: torch.Tensor
    count: torch.Tensor
    previous_rows: torch.Tensor
    current_rows: torch.Tensor
    similarity: torch.Tensor
    margin: torch.Tensor
    correlation: torch.Tensor
    origins: torch.Tensor
    rows: torch.Tensor
    num_points: torch.Tensor

    @staticmethod
    def of(step: Step, resize: Resize) -> Seen:
        """Extracts it from a step on an image resized by `resize`."""
        return Seen(
            keypoints=step.keypoints if resize.is_identity else resize.invert(step.keypoints),
            scores=step.scores,
            descriptors=step.descriptors,
            covariances=resize.invert_covariances(step.covariances),
            count=step.count,
            previous_rows=step.previous_rows,
            current_rows=step.current_rows,
            similarity=step.similarity,
            margin=step.margin,
            correlation=step.correlation,
            origins=step.origins,
            rows=step.state.rows,
            num_points=step.state.is_valid.sum(),
        )


Found = tuple[Features, Matches, TrackAssociation]


class PersistentFrameMatcher:
    """Extracts features from successive images and tracks them; its matches come from the tracks.

    Args:
        extractor: Its network provides the maps.
        matcher: Not used: its gates are for pairs without prior knowledge.
        settings: Of the tracker.

    Raises:
        SettingsError: The extractor's network provides no maps.
    """

    def __init__(self, extractor: Extractor, matcher: MatcherProtocol, settings: Settings) -> None:
        if not extractor.has_maps:
            raise SettingsError(
                f"{extractor.identity} provides no maps for re-localisation; use tracker:=chain with it"
            )
        self.matcher = matcher
        self.settings = settings
        self._extractor = extractor
        self._past: Past | None = None

    @torch.no_grad()
    def run(
        self, image: npt.NDArray[np.uint8], mask: Mask | None = None, right: npt.NDArray[np.uint8] | None = None
    ) -> Pair:
        """See `FrameMatcher`; a right image is extracted separately."""
        start_s = time.perf_counter()
        of_right = None if right is None else self._extractor.extract(right).to("cpu")
        prepared = self._extractor.prepare(image, mask)
        if prepared is None:
            found, following_ms = self._nothing(*image.shape[:2]), 0.0
        else:
            found, following_ms = self._follow(prepared)
        features, matches, continuation = found
        # All results are on the CPU, so the device has finished.
        elapsed_ms = (time.perf_counter() - start_s) * _MS_PER_S
        return Pair(features, matches, elapsed_ms - following_ms, following_ms, of_right, continuation)

    def forget(self) -> None:
        """See `FrameMatcher`."""
        self._past = None

    def get_state(self) -> FrameMatcherState:
        """See `FrameMatcher`."""
        return FrameMatcherState(past=self._past, is_first=self._past is None)

    def set_state(self, state: FrameMatcherState) -> None:
        """See `FrameMatcher`."""
        if state.past is not None:
            state.past.check()
        self._past = state.past

    def _follow(self, image: PreparedImage) -> tuple[Found, float]:
        """The results, and the time that tracking took, ms."""
        past = self._past
        maps = self._extractor.maps(image, 1.0 if past is None else DETECTED_FRACTION)
        extracted_s = self._now_s()
        if maps.features.keypoints.shape[1] == 0:
            return self._nothing(image.resize.height0, image.resize.width0), 0.0
        state, earlier = (start(maps), None) if past is None else (past.state, past.view)
        # Autograd's part of each operation costs 7 % of the step, in any other mode.
        with torch.inference_mode():
            step = advance(state, maps, self._options(), earlier)
            seen = Seen.of(step, image.resize)
        found = self._found(seen, image)
        self._remember(step.state, step.view)
        return found, (time.perf_counter() - extracted_s) * _MS_PER_S

    def _found(self, seen: Seen, image: PreparedImage) -> Found:
        count, num_points = int(seen.count), int(seen.num_points)
        # Copies on the CPU too, because autograd refuses what was made in inference mode.
        keypoints, scores, descriptors, covariances = (
            values[:count].to("cpu", copy=True)
            for values in (seen.keypoints, seen.scores, seen.descriptors, seen.covariances)
        )
        features = Features(
            keypoints=keypoints,
            scores=scores,
            descriptors=descriptors,
            height=image.resize.height0,
            width=image.resize.width0,
            extractor=self._extractor.identity,
            scales=image.resize.invert_lengths(torch.ones_like(scores)),
            covariances=covariances,
        )
        continuation = _continuation(seen.origins[:num_points], seen.rows[:num_points], seen.correlation)
        return features, _matches(seen), continuation

    def _nothing(self, height: int, width: int) -> Found:
        features = self._extractor.nothing(height, width).to("cpu")
        if self._past is None:
            return features, Matches.empty(NAME), TrackAssociation.empty()
        state, origins = miss_all(self._past.state, self.settings.track_max_gap)
        self._remember(state, self._past.view)
        count = int(state.is_valid.sum())
        unknown = torch.full_like(state.points[:, 0], torch.nan)
        return features, Matches.empty(NAME), _continuation(origins[:count], state.rows[:count], unknown)

    def _remember(self, state: TrackState, view: View) -> None:
        self._past = Past(state, view)

    def _options(self) -> TrackingOptions:
        settings = self.settings
        own = settings.track_min_similarity
        return TrackingOptions(
            min_similarity=own if own >= 0 else self._extractor.default_track_similarity,
            epipolar_px=settings.track_epipolar_px,
            max_gap=settings.track_max_gap,
            survival_fraction=settings.track_survival_fraction,
            grid_rows=settings.grid_rows,
            grid_columns=settings.grid_columns,
        )

    def _now_s(self) -> float:
        """Wall-clock time in s after the device has finished all submitted work."""
        wait_for_own_work(self._extractor.device)
        return time.perf_counter()


def _matches(seen: Seen) -> Matches:
    """Matches of the points seen in this image and in the previous one, sorted by `indices0`."""
    rows0, rows1, similarity, margin = (
        tensor.cpu() for tensor in (seen.previous_rows, seen.current_rows, seen.similarity, seen.margin)
    )
    pairs = ((rows0 >= 0) & (rows1 >= 0)).nonzero()[:, 0]
    pairs = pairs[rows0[pairs].argsort()]
    return Matches(rows0[pairs], rows1[pairs], similarity[pairs], margin[pairs], NAME)


def _continuation(origins: torch.Tensor, rows: torch.Tensor, correlation: torch.Tensor) -> TrackAssociation:
    """The association of (P,) points; `correlation` belongs to the points before the step."""
    before = origins.cpu().numpy()
    quality = np.full(len(before), np.nan, np.float32)
    quality[before >= 0] = correlation.cpu().numpy()[before[before >= 0]]
    return TrackAssociation(before, rows.cpu().numpy(), quality)
