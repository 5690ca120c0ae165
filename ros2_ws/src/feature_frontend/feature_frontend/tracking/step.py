"""One step of the persistent tracker: which points are seen again, where, and which detections start new tracks.

With padded maps, all shapes depend on the budget only and nothing here waits for a GPU, so it can be captured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from feature_frontend.extractors.base import DetectionOptions, FrameMaps
from feature_frontend.extractors.networks.layers.selection import lie_on_allowed
from feature_frontend.geometry.fundamental import epipolar_residuals, fundamental_by_reweighting
from feature_frontend.geometry.parallax import view_motion
from feature_frontend.image.resize import Resize
from feature_frontend.matchers.nearest_neighbors import Nearest, SimilaritySearch
from feature_frontend.runtime.cuda_graphs import constants
from feature_frontend.tracking.local_motion import LocalMotion, local_motion
from feature_frontend.tracking.lucas_kanade import DETECTION_FRACTION, TemplateMatch, approach, match_templates
from feature_frontend.tracking.predictions import (
    CameraMotion,
    Predictions,
    along_lines,
    camera_motion,
    predict,
    slopes_of,
    spread,
)
from feature_frontend.tracking.relocalization import (
    Candidates,
    PixelIndex,
    describe_places,
    find_places,
    smallest_distance,
)
from feature_frontend.tracking.state import TrackState, View, Views

__all__ = ["Step", "TrackingOptions", "advance", "capacity", "miss_all", "start"]

_BLOCK_ELEMENTS = 16 * 1024 * 1024
# The first descriptor may be from far away and long ago: allow this many times the distance allowed to the latest one.
_FIRST_DISTANCE = 2.0
_FEWEST_SIGHTINGS = 2
_ALONE_PX = 2.0  # a point that moves so differently from its neighbours is at another depth
# Without a template, the descriptor alone says that it is the point: allow this part of the distance.
_ALONE_DISTANCE = 0.5
_CLEAR_CORRELATION = 0.85
# Predictions so near to each other need no choice: alignment begins at any of them.
_ALIKE_PX = 1.0
_ALONG_LINE = 5  # places along the epipolar line of a point of unknown depth
_FEWEST_FOR_GEOMETRY = 16  # pairs; twice what the eight-point algorithm needs


@dataclass(frozen=True)
class TrackingOptions:
    """Options of the persistent tracker; each has the meaning of the parameter `track_...` of the same name.

    `grid_rows` and `grid_columns` are the parameters of these names: new points go to empty grid cells first.
    """

    min_similarity: float
    epipolar_px: float
    max_gap: int
    survival_fraction: float
    grid_rows: int
    grid_columns: int

    @property
    def alone_similarity(self) -> float:
        """Minimum cosine similarity of a point whose template is not found."""
        return 1.0 - _ALONE_DISTANCE * (1.0 - self.min_similarity)

    @property
    def first_similarity(self) -> float:
        """Minimum cosine similarity of a point to its first descriptor."""
        return 1.0 - _FIRST_DISTANCE * (1.0 - self.min_similarity)


@dataclass(frozen=True)
class Step:
    """The result of tracking into one image. C0: rows of the previous state.

    Attributes:
        state: The tracked points, for the next step.
        view: The image, for the next step.
        origins: (C,) int64, row in the previous state of each row of `state`; -1 for a new point.
        keypoints: (B, 2) float32 px in the network's image; detections first, best first, then re-localised points.
        scores: (B,) float32.
        descriptors: (B, D).
        covariances: (B, 3) float32 px^2 of the network's image.
        count: () int64, how many of the B rows are valid.
        previous_rows: (C0,) int64, row of each point in the features of the previous image; -1 if it was missed.
        current_rows: (C0,) int64, its row in the features of this image; -1 if it is missed.
        similarity: (C0,) float32, cosine similarity of its descriptors in both images.
        margin: (C0,) float32, `similarity` minus that of the best other detection; negative if a detection elsewhere
            is more similar.
        correlation: (C0,) float32, correlation of its template; NaN if the template was not found.
    """

    state: TrackState
    view: View
    origins: torch.Tensor
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


@dataclass(frozen=True)
class _Matched:
    """Descriptor matches of (C,) points, and the image motion estimated from them."""

    points: torch.Tensor
    detected: torch.Tensor
    nearest: Nearest
    motion: LocalMotion
    is_matched: torch.Tensor
    fundamental: torch.Tensor
    has_geometry: torch.Tensor
    epipolar_px: float
    camera: CameraMotion
    predictions: Predictions

    def fits(self, points0: torch.Tensor, points1: torch.Tensor) -> torch.Tensor:
        """Whether pairs agree with the epipolar geometry; all True if there is none."""
        return ~self.has_geometry | (epipolar_residuals(points0, points1, self.fundamental) <= self.epipolar_px)


@dataclass(frozen=True)
class _Sightings:
    """Where (C,) points are seen: `sources` are rows of detections, then of candidates; -1 if a point is not seen."""

    sources: torch.Tensor
    positions: torch.Tensor
    similarity: torch.Tensor
    margin: torch.Tensor
    expected: torch.Tensor
    is_in_image: torch.Tensor
    surroundings: TemplateMatch


def start(maps: FrameMaps) -> TrackState:
    """An empty state for images of this kind."""
    descriptors = maps.features.descriptors
    rows = capacity(maps.options) if maps.is_padded else 1
    return TrackState.empty(rows, descriptors.shape[2], descriptors.device)


def miss_all(state: TrackState, max_gap: int) -> tuple[TrackState, torch.Tensor]:
    """The state after an image without keypoints, and the row (C,) in `state` of each of its rows."""
    missed = replace(state, missed=state.missed + 1, rows=torch.full_like(state.rows, -1))
    missed = replace(missed, is_valid=missed.is_valid & (missed.missed <= max_gap))
    order = torch.argsort((~missed.is_valid).to(torch.uint8), stable=True)
    return missed.select(order), order


def advance(state: TrackState, maps: FrameMaps, options: TrackingOptions, earlier: View | None) -> Step:
    """Tracks the points of `state` into the image of `maps`, which holds at least one keypoint, detected or padded.

    Args:
        state: From `start` or the previous step.
        maps: Of the image.
        options: Of the tracker.
        earlier: The images in which `state` was seen; None for the first image.
    """
    found = maps.features
    height, width = maps.resize.height1, maps.resize.width1
    is_detected = torch.arange(found.keypoints.shape[1], device=found.keypoints.device) < found.counts[0]
    index = PixelIndex(found.keypoints[0], is_detected, height, width)
    views = Views.of(_grey(maps), maps.resize, earlier)
    matched = _matched(state, maps, is_detected, options)
    candidates, sightings = _follow(state, maps, index, options, matched, views)
    return _compose(state, maps, options, is_detected, index, candidates, sightings, views.latest, matched)


def _matched(state: TrackState, maps: FrameMaps, is_detected: torch.Tensor, options: TrackingOptions) -> _Matched:
    found = maps.features
    keypoints, descriptors = found.keypoints[0], found.descriptors[0].float()
    points = maps.resize.apply(state.points)
    counts = (state.is_valid.sum(), found.counts[0]) if maps.is_padded else None
    nearest = SimilaritySearch(state.recent, descriptors, _BLOCK_ELEMENTS, counts).nearest()
    is_alike = nearest.is_mutual & (nearest.similarity >= options.min_similarity)
    is_alike &= state.is_valid & is_detected[nearest.index]
    of_nearest = descriptors.index_select(0, nearest.index)
    is_alike &= (state.first * of_nearest).sum(dim=1) >= options.first_similarity
    detected = keypoints[nearest.index]
    motion = local_motion(points, detected - points, is_alike, is_padded=maps.is_padded)
    used = (points, detected, motion.agrees)
    if not maps.is_padded:
        rows = motion.agrees.nonzero()[:, 0]
        used = (points[rows], detected[rows], motion.agrees[rows])
    fundamental = fundamental_by_reweighting(*used, is_padded=maps.is_padded)
    has_geometry = (motion.agrees.sum() >= _FEWEST_FOR_GEOMETRY) & (options.epipolar_px > 0)
    size = maps.resize.height1, maps.resize.width1
    view = view_motion(*used, fundamental, *size, is_padded=maps.is_padded)
    fits = ~has_geometry | (epipolar_residuals(points, detected, fundamental) <= options.epipolar_px)
    is_matched = motion.agrees & fits
    camera = camera_motion(view, has_geometry, state, points, detected, is_matched)
    predictions = predict(state, points, maps.resize, motion, camera)
    return _Matched(
        points,
        detected,
        nearest,
        motion,
        is_matched,
        fundamental,
        has_geometry,
        options.epipolar_px,
        camera,
        predictions,
    )


def _follow(
    state: TrackState,
    maps: FrameMaps,
    index: PixelIndex,
    options: TrackingOptions,
    matched: _Matched,
    views: Views,
) -> tuple[Candidates, _Sightings]:
    """Locates matched points, and re-localises points without a match."""
    keypoints, is_matched, nearest, points = (
        maps.features.keypoints[0],
        matched.is_matched,
        matched.nearest,
        matched.points,
    )
    is_foreseen = matched.predictions.is_known.any(dim=1)
    expected = torch.where(is_foreseen[:, None], matched.predictions.at(matched.predictions.first())[0], points)
    is_in_image = _is_inside(expected, maps.resize)

    # The most recently seen points first; among these the oldest, then the best detections, which come first.
    eligible = state.is_valid & ~is_matched & is_foreseen & is_in_image
    urgency = torch.where(eligible, 1e6 * state.missed - state.ages.clamp(max=100_000), torch.inf)
    number = min(math.ceil(options.survival_fraction * maps.options.max_num_keypoints), len(urgency))
    if not maps.is_padded:
        number = max(min(number, int(eligible.sum())), 1)
    tried = urgency.argsort(stable=True)[:number]

    def of_tried(values: torch.Tensor) -> torch.Tensor:
        return values.index_select(0, tried)  # faster than indexing on a CPU

    is_tried = torch.zeros_like(eligible).index_fill(0, tried, value=True) & eligible
    is_taken = torch.zeros(len(keypoints) + 1, dtype=torch.bool, device=points.device)
    is_taken.index_fill_(0, torch.where(is_matched, nearest.index, len(keypoints)), value=True)
    is_taken[-1:].fill_(value=False)
    starts, slopes, fallback = _starts(state, maps, options, matched, views, tried, is_taken[:-1])
    prior = matched.detected.index_copy(
        0, tried, torch.where(of_tried(is_tried)[:, None], starts, of_tried(matched.detected))
    )
    slopes = _slopes_of_matched(matched).index_copy(0, tried, slopes)
    surroundings = match_templates(
        state, views, is_matched | is_tried, is_matched, prior, slopes, is_padded=maps.is_padded
    )
    settled = surroundings.points
    is_settled = surroundings.is_found & _may_lie(maps, settled)
    settled = settled.index_copy(
        0, tried, torch.where(of_tried(surroundings.is_found)[:, None], of_tried(settled), fallback)
    )
    places = find_places(maps, of_tried(settled), index, is_taken)
    # Where the score map has no maximum, a point that is seen as clearly as its anchor stays where its template is.
    is_clear = is_settled & (surroundings.correlation >= _CLEAR_CORRELATION)
    places = places.or_at(of_tried(settled), of_tried(is_clear))
    pulled = torch.lerp(of_tried(settled), places.keypoints, DETECTION_FRACTION)
    found_at = torch.where((of_tried(is_settled) & _may_lie(maps, pulled))[:, None], pulled, places.keypoints)
    accepted = places.is_maximum & of_tried(eligible) & ~is_taken[places.detections]
    accepted &= matched.fits(of_tried(points), found_at)
    # A lost template is the first sign that a point has jumped to something else.
    candidates = describe_places(maps, places, accepted, of_tried(state.recent))
    accepted &= candidates.scores > maps.options.detection_threshold
    accepted &= candidates.similarity >= torch.where(
        of_tried(surroundings.is_found), options.min_similarity, options.alone_similarity
    )
    accepted &= (candidates.descriptors.float() * of_tried(state.first)).sum(dim=1) >= options.first_similarity
    accepted = index.one_each(candidates.keypoints, candidates.similarity, accepted)
    is_other = accepted & (candidates.detections < 0)
    room = maps.options.max_num_keypoints - is_matched.sum() - (accepted & ~is_other).sum()
    order = torch.where(is_other, candidates.similarity, -2.0).argsort(descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    accepted &= ~is_other | (rank < room)

    own = torch.arange(len(tried), device=tried.device) + len(keypoints)
    source = torch.where(candidates.detections >= 0, candidates.detections, own)
    sources = torch.where(is_matched, nearest.index, -1)
    sources[tried] = torch.where(accepted, source, sources[tried])
    similarity = nearest.similarity.clone()
    similarity[tried] = torch.where(accepted, candidates.similarity, similarity[tried])
    positions = torch.where(is_settled[:, None], settled, matched.detected)
    positions[tried] = torch.where(accepted[:, None], found_at, positions[tried])
    is_best = sources == nearest.index
    margin = similarity - torch.where(is_best, nearest.second_similarity, nearest.similarity)
    return candidates, _Sightings(sources, positions, similarity, margin, expected, is_in_image, surroundings)


def _starts(
    state: TrackState,
    maps: FrameMaps,
    options: TrackingOptions,
    matched: _Matched,
    views: Views,
    tried: torch.Tensor,
    is_taken: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where to look for the (R,) points `tried`.

    Returns:
        (R, 2) px where to look for their templates; (R, 2, 2) slopes there, since the previous image; and (R, 2) px
        where to look for points whose template is not found.
    """
    camera, points = matched.camera, matched.points.index_select(0, tried)
    predictions = matched.predictions.select(tried)
    # Without depths, nothing is known along the lines. A GPU would wait for the answer: it does the work in vain.
    has_lines = maps.is_padded or bool(camera.is_clear)
    if has_lines:
        predictions = _with_alike(state, maps, options, camera, points, predictions, tried, is_taken)
    starts, slopes = predictions.at(predictions.first())
    if not views.compare:
        return starts, slopes, starts
    was_seen = (state.missed == 0).index_select(0, tried)
    has_depth = camera.knows_depth(state).index_select(0, tried)
    wide = predictions.followed_by(spread(camera, points, ~has_depth, _ALONG_LINE)) if has_lines else predictions
    is_rough = was_seen & ~has_depth
    is_asked = was_seen & has_depth & predictions.differ(_ALIKE_PX)
    if maps.is_padded:
        near, own = approach(state, views, tried, wide, is_rough, is_padded=True)
        is_asked |= is_rough
        return torch.where(is_asked[:, None], near, starts), torch.where(is_asked[:, None, None], own, slopes), starts
    near = starts
    for is_one, of_these, is_far in ((is_asked, predictions, None), (is_rough, wide, is_rough)):
        rows = is_one.nonzero()[:, 0]
        if len(rows):
            far = None if is_far is None else is_far.index_select(0, rows)
            found, own = approach(
                state, views, tried.index_select(0, rows), of_these.select(rows), far, is_padded=False
            )
            near, slopes = near.index_copy(0, rows, found), slopes.index_copy(0, rows, own)
    return near, slopes, starts


def _with_alike(
    state: TrackState,
    maps: FrameMaps,
    options: TrackingOptions,
    camera: CameraMotion,
    points: torch.Tensor,
    predictions: Predictions,
    tried: torch.Tensor,
    is_taken: torch.Tensor,
) -> Predictions:
    """Predictions of the (R, 2) px `points`, rows `tried`, behind the most similar free detection along their lines."""
    keypoints, descriptors = maps.features.keypoints[0], maps.features.descriptors[0].float()
    is_free = torch.arange(len(keypoints), device=points.device) < maps.features.counts[0]
    is_free &= ~is_taken
    if not maps.is_padded:
        free = (~is_free).to(torch.uint8).argsort(stable=True)[: max(int(is_free.sum()), 1)]
        keypoints, descriptors, is_free = keypoints[free], descriptors[free], is_free[free]
    similarity = state.recent.index_select(0, tried) @ descriptors.T - 3.0 * (~is_free).float()
    rows, best = along_lines(camera, points, keypoints, similarity, options.epipolar_px)
    alike = keypoints.index_select(0, rows)
    _, growth = camera.view.move(points, camera.view.inverse_depths(points, alike))
    return predictions.preceded_by(alike, slopes_of(camera, growth), best >= options.min_similarity)


def _slopes_of_matched(matched: _Matched) -> torch.Tensor:
    """(C, 2, 2): those of the neighbours, unless the point moved otherwise; then those of its depth."""
    motion, camera = matched.motion, matched.camera
    _, growth = camera.view.move(matched.points, camera.view.inverse_depths(matched.points, matched.detected))
    moved = matched.detected - matched.points
    is_alone = camera.is_clear & ((moved - motion.flow).norm(dim=1) > _ALONE_PX)
    return torch.where(is_alone[:, None, None], slopes_of(camera, growth), motion.slopes)


def _may_lie(maps: FrameMaps, points: torch.Tensor) -> torch.Tensor:
    """(R,) whether mask and border allow keypoints at (R, 2) points."""
    may = _is_inside(points, maps.resize, maps.options.border)
    return may if maps.allowed is None else may & lie_on_allowed(maps.allowed, points[None])[0]


def _compose(
    state: TrackState,
    maps: FrameMaps,
    options: TrackingOptions,
    is_detected: torch.Tensor,
    index: PixelIndex,
    candidates: Candidates,
    sightings: _Sightings,
    view: View,
    matched: _Matched,
) -> Step:
    """Assembles the features and the next state."""
    found = maps.features
    num_detections, num_candidates = len(is_detected), len(candidates.keypoints)
    device = is_detected.device
    is_seen = sightings.sources >= 0
    is_kept = torch.zeros(num_detections + num_candidates + 1, dtype=torch.bool, device=device)
    # Points that are not seen write to the extra last element.
    is_kept = is_kept.index_fill(0, torch.where(is_seen, sightings.sources, len(is_kept) - 1), value=True)[:-1]
    is_fresh = _fresh(maps, options, is_detected, is_kept, candidates, index)
    is_kept = torch.cat([is_kept[:num_detections] | is_fresh, is_kept[num_detections:]])
    order = torch.argsort((~is_kept).to(torch.uint8), stable=True)[: maps.options.max_num_keypoints]
    rows = torch.where(is_kept, is_kept.cumsum(0) - 1, -1)

    keypoints = torch.cat([found.keypoints[0], candidates.keypoints, found.keypoints[0, :1]])
    # Points that are not seen write to the extra last element.
    keypoints = keypoints.index_copy(0, torch.where(is_seen, sightings.sources, len(rows)), sightings.positions)[:-1]
    descriptors = torch.cat([found.descriptors[0], candidates.descriptors])
    of_seen = descriptors.index_select(0, sightings.sources.clamp(min=0))
    covariances = torch.cat([found.covariances[0], candidates.covariances, found.covariances[0, :1]])
    noise = maps.network.position_noise
    of_sightings = sightings.surroundings.covariances(covariances[sightings.sources.clamp(min=0)], noise)
    covariances = noise.first_factor * covariances
    covariances[..., ::2] += noise.aligned_px2
    covariances = covariances.index_copy(0, torch.where(is_seen, sightings.sources, len(rows)), of_sightings)
    current_rows = torch.where(is_seen, rows[sightings.sources], -1)
    missed = torch.where(is_seen, 0, state.missed + 1)
    positions = torch.where(is_seen[:, None], sightings.positions, sightings.expected)
    # A point seen only once was mostly noise: keep missed points only if they were seen more often.
    is_awaited = sightings.is_in_image & (missed <= options.max_gap) & (state.ages >= _FEWEST_SIGHTINGS)
    is_followed = is_seen & (state.missed == 0)
    moved = maps.resize.invert(positions) - state.points
    depths = matched.camera.next_inverse_depths(state, matched.points, positions, is_followed)
    old = TrackState(
        is_valid=state.is_valid & (is_seen | is_awaited),
        points=maps.resize.invert(positions),
        recent=torch.where(is_seen[:, None], of_seen.float(), state.recent),
        first=state.first,
        ages=state.ages + is_seen,
        missed=missed,
        rows=current_rows,
        flows=torch.where(is_followed[:, None], moved, state.flows),
        inverse_depths=depths,
        **sightings.surroundings.anchored(state, positions),
    )
    fresh_descriptors = found.descriptors[0].float()
    zeros = torch.zeros_like(rows[:num_detections])
    fresh = TrackState(
        is_valid=is_fresh,
        points=maps.resize.invert(found.keypoints[0]),
        recent=fresh_descriptors,
        first=fresh_descriptors,
        ages=zeros + 1,
        missed=zeros,
        rows=rows[:num_detections],
        anchors=found.keypoints[0],
        anchor_ages=zeros,
        anchor_slopes=found.keypoints.new_zeros((num_detections, 2, 2)),
        flows=torch.full_like(found.keypoints[0], torch.nan),
        inverse_depths=torch.full_like(found.scores[0], torch.nan),
    )
    every = old.followed_by(fresh)
    urgency = torch.where(every.is_valid, every.missed.float(), torch.inf)
    kept = urgency.argsort(stable=True)[: capacity(maps.options)]
    if not maps.is_padded:
        kept = kept[: max(int(every.is_valid.sum()), 1)]
    return Step(
        state=every.select(kept),
        view=view,
        origins=torch.where(kept < len(state.is_valid), kept, -1),
        keypoints=keypoints[order],
        scores=torch.cat([found.scores[0], candidates.scores])[order],
        descriptors=descriptors.index_select(0, order),
        covariances=covariances.index_select(0, order),
        count=is_kept.sum(),
        previous_rows=state.rows,
        current_rows=current_rows,
        similarity=sightings.similarity,
        margin=sightings.margin,
        correlation=sightings.surroundings.correlation,
    )


def _fresh(
    maps: FrameMaps,
    options: TrackingOptions,
    is_detected: torch.Tensor,
    is_kept: torch.Tensor,
    candidates: Candidates,
    index: PixelIndex,
) -> torch.Tensor:
    """(K,) bool: the detections without a track that fill the remaining budget.

    The best detection of each cell without a visible track comes first, then the best of all.
    """
    found, num_detections = maps.features, len(is_detected)
    height, width = maps.resize.height1, maps.resize.width1
    # A detection next to a tracked point is not new, even if the network has no non-maximum suppression.
    near = index.near(torch.cat([found.keypoints[0], candidates.keypoints]), smallest_distance(maps))
    is_near = torch.zeros(num_detections + 1, dtype=torch.bool, device=is_kept.device)
    is_near.index_fill_(0, torch.where(is_kept[:, None] & (near >= 0), near, num_detections).flatten(), value=True)
    is_free = is_detected & ~is_kept[:num_detections] & ~is_near[:num_detections]

    cell_size = constants(found.keypoints, width / options.grid_columns, height / options.grid_rows)

    def cells_of(points: torch.Tensor) -> torch.Tensor:
        column, row = ((points + 0.5) / cell_size).long().unbind(1)
        return row.clamp(0, options.grid_rows - 1) * options.grid_columns + column.clamp(0, options.grid_columns - 1)

    num_cells = options.grid_rows * options.grid_columns
    of_detections, of_candidates = cells_of(found.keypoints[0]), cells_of(candidates.keypoints)
    occupied = torch.zeros(num_cells, dtype=torch.int64, device=is_kept.device)
    occupied.scatter_add_(0, torch.cat([of_detections, of_candidates]), is_kept.long())
    rows = torch.arange(num_detections, device=is_kept.device)
    first = torch.full_like(occupied, num_detections)
    first.scatter_reduce_(0, of_detections, torch.where(is_free, rows, num_detections), "amin")
    opens_a_cell = (first[of_detections] == rows) & (occupied[of_detections] == 0)

    order = (rows + num_detections * (~opens_a_cell).long() + 2 * num_detections * (~is_free).long()).argsort()
    rank = torch.empty_like(order).scatter_(0, order, rows)
    return is_free & (rank < maps.options.max_num_keypoints - is_kept.sum())


def _grey(maps: FrameMaps) -> torch.Tensor:
    """(H, W) grey of the image; equal weights for all channels."""
    image = maps.images[0]
    if len(image) == 1:
        return image[0]
    if maps.is_padded or image.device.type != "cpu" or image.dtype != torch.float32:
        return image.mean(dim=0)
    # PyTorch takes five times as long for so short a dimension.
    weights = np.full((1, len(image)), 1.0 / len(image), np.float32)
    return torch.from_numpy(cv2.transform(image.permute(1, 2, 0).contiguous().numpy(), weights))


def capacity(options: DetectionOptions) -> int:
    """Maximum number of tracked points: a full budget of visible points and one of missed points."""
    return 2 * options.max_num_keypoints


def _is_inside(points: torch.Tensor, resize: Resize, border: int = 0) -> torch.Tensor:
    x, y = points.unbind(1)
    last_x, last_y = resize.width1 - 1 - border, resize.height1 - 1 - border
    return (x >= border) & (y >= border) & (x <= last_x) & (y <= last_y)
