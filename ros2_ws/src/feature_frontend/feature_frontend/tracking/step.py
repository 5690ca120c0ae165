"""One image further: which points are seen again, where, and what takes the places that are left.

Where the maps are padded, all shapes are those of the budget. Nothing here waits for a GPU but the decompositions of
linear algebra, which PyTorch checks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from feature_frontend.coordinates import Resize
from feature_frontend.extractors.base import FrameMaps
from feature_frontend.extractors.layers.selection import lie_on_allowed
from feature_frontend.matchers.similarity_search import SimilaritySearch
from feature_frontend.tracking.epipolar_motion import epipolar_residuals, fundamental_by_reweighting
from feature_frontend.tracking.local_motion import local_motion
from feature_frontend.tracking.patch_alignment import DETECTION_SHARE, align_patches
from feature_frontend.tracking.relocalization import (
    Candidates,
    PixelIndex,
    describe_places,
    find_places,
    smallest_distance,
)
from feature_frontend.tracking.state import TrackState

__all__ = ["Step", "TrackingOptions", "View", "advance", "miss_all", "start"]

_BLOCK_ELEMENTS = 16 * 1024 * 1024
# The first descriptor may be from far away and long ago: so many times the distance to the latest one is allowed.
_FIRST_DISTANCE = 2.0
_FEWEST_SIGHTINGS = 2
_FEWEST_FOR_GEOMETRY = 16  # pairs; twice what the eight-point algorithm needs


@dataclass(frozen=True)
class TrackingOptions:
    """How points are followed; the meaning of each is that of the parameter `track_...` of the same name.

    `grid_rows` and `grid_columns` are the parameters of these names: the cells in which fresh points come first.
    """

    min_similarity: float
    epipolar_px: float
    max_gap: int
    survival_share: float
    grid_rows: int
    grid_columns: int


@dataclass(frozen=True)
class View:
    """What points were seen in.

    Attributes:
        image: (H, W) float32 grey in [0, 1], as the network saw it.
        resize: From the image as published to that one.
    """

    image: torch.Tensor
    resize: Resize


@dataclass(frozen=True)
class Step:
    """What one image gave.

    Attributes:
        state: Of the points that are followed from here on.
        view: The image, for the next step.
        origins: (C,) int64, for each row of `state` its row in the state before; -1 for a new point.
        keypoints: (B, 2) float32 px in the network's image; detections first, best first, then re-localised points.
        scores: (B,) float32.
        descriptors: (B, D).
        count: () int64, how many of the B rows are there.
        previous_rows: (C0,) int64, for each row of the state before its row in the features of the image before; -1
            where it was missed there.
        current_rows: (C0,) int64, its row in the features of this image; -1 where it is missed.
        similarity: (C0,) float32, cosine of its descriptors in both.
        margin: (C0,) float32, how much that exceeds the best other detection's; negative where another one is more
            similar, but not where the point should be.
    """

    state: TrackState
    view: View
    origins: torch.Tensor
    keypoints: torch.Tensor
    scores: torch.Tensor
    descriptors: torch.Tensor
    count: torch.Tensor
    previous_rows: torch.Tensor
    current_rows: torch.Tensor
    similarity: torch.Tensor
    margin: torch.Tensor


@dataclass(frozen=True)
class _Sightings:
    """Where (C,) points are seen: `sources` are rows of detections, then of candidates; -1 where they are not."""

    sources: torch.Tensor
    positions: torch.Tensor
    similarity: torch.Tensor
    margin: torch.Tensor
    expected: torch.Tensor
    is_in_image: torch.Tensor


def start(maps: FrameMaps) -> TrackState:
    """A state without points, for images such as this one."""
    descriptors = maps.features.descriptors
    rows = _capacity(maps) if maps.is_padded else 1
    return TrackState.empty(rows, descriptors.shape[2], descriptors.device)


def miss_all(state: TrackState, max_gap: int) -> tuple[TrackState, torch.Tensor]:
    """The state behind an image that shows nothing, and the rows (C,) that its own were."""
    missed = replace(state, missed=state.missed + 1, rows=torch.full_like(state.rows, -1))
    missed = replace(missed, is_valid=missed.is_valid & (missed.missed <= max_gap))
    order = torch.argsort((~missed.is_valid).to(torch.uint8), stable=True)
    return missed.select(order), order


def advance(state: TrackState, maps: FrameMaps, options: TrackingOptions, earlier: View | None) -> Step:
    """Follows the points of `state` into the image of `maps`, in which at least one keypoint was detected or padded.

    Args:
        state: From `start`, or of the step before.
        maps: Of the image.
        options: How they are followed.
        earlier: What `state` was seen in, where it was; None for the first image.
    """
    found = maps.features
    height, width = maps.resize.height1, maps.resize.width1
    is_detected = torch.arange(found.keypoints.shape[1], device=found.keypoints.device) < found.counts[0]
    index = PixelIndex(found.keypoints[0], is_detected, height, width)
    view = View(maps.images.mean(dim=1)[0], maps.resize)
    candidates, sightings = _follow(state, maps, is_detected, index, options, earlier, view)
    return _compose(state, maps, options, is_detected, index, candidates, sightings, view)


def _follow(
    state: TrackState,
    maps: FrameMaps,
    is_detected: torch.Tensor,
    index: PixelIndex,
    options: TrackingOptions,
    earlier: View | None,
    view: View,
) -> tuple[Candidates, _Sightings]:
    found = maps.features
    keypoints, descriptors = found.keypoints[0], found.descriptors[0].float()
    points = maps.resize.apply(state.points)
    counts = (state.is_valid.sum(), found.counts[0]) if maps.is_padded else None
    nearest = SimilaritySearch(state.recent, descriptors, _BLOCK_ELEMENTS, counts).nearest()
    floor = options.min_similarity
    first_floor = 1.0 - _FIRST_DISTANCE * (1.0 - floor)
    is_alike = nearest.is_mutual & (nearest.similarity >= floor) & state.is_valid & is_detected[nearest.index]
    is_alike &= (state.first * descriptors[nearest.index]).sum(dim=1) >= first_floor

    shifts = keypoints[nearest.index] - points
    motion = local_motion(points, shifts, is_alike, is_padded=maps.is_padded)
    fundamental = fundamental_by_reweighting(points, points + shifts, motion.agrees)
    has_geometry = (motion.agrees.sum() >= _FEWEST_FOR_GEOMETRY) & (options.epipolar_px > 0)

    def fits(points0: torch.Tensor, points1: torch.Tensor) -> torch.Tensor:
        return ~has_geometry | (epipolar_residuals(points0, points1, fundamental) <= options.epipolar_px)

    is_matched = motion.agrees & fits(points, points + shifts)
    sources = torch.where(is_matched, nearest.index, -1)
    expected = points + motion.flow
    is_in_image = _is_inside(expected, maps.resize)

    # The ones seen last come first, of these the oldest.
    eligible = state.is_valid & ~is_matched & motion.is_known & is_in_image
    urgency = torch.where(eligible, 1e6 * state.missed - state.ages.clamp(max=100_000), torch.inf)
    number = min(math.ceil(options.survival_share * maps.options.max_num_keypoints), len(urgency))
    if not maps.is_padded:
        number = max(min(number, int(eligible.sum())), 1)
    tried = urgency.topk(number, largest=False, sorted=True).indices
    is_taken = torch.zeros(len(keypoints) + 1, dtype=torch.bool, device=points.device)
    is_taken[torch.where(is_matched, nearest.index, len(keypoints))] = True
    is_taken[-1] = False

    is_wanted = is_matched.index_fill(0, tried, True) & (is_matched | eligible) & (state.missed == 0)
    prior = torch.where(is_matched[:, None], keypoints[nearest.index], expected)
    trust = torch.where(is_matched, DETECTION_SHARE, 0.0)
    settled, is_settled = _settled(is_wanted, maps, earlier, view, points, prior, trust, motion.slopes)
    predicted = torch.where(is_settled[:, None], settled, expected)[tried]
    places = find_places(maps, predicted, index)
    pulled = torch.lerp(predicted, places.keypoints, DETECTION_SHARE)
    pulled = torch.where((is_settled[tried] & _may_lie(maps, pulled))[:, None], pulled, places.keypoints)
    accepted = places.is_maximum & eligible[tried] & ~is_taken[places.detections] & fits(points[tried], pulled)
    candidates = describe_places(maps, places, accepted, state.recent[tried])
    accepted &= candidates.similarity >= floor
    accepted &= (candidates.descriptors.float() * state.first[tried]).sum(dim=1) >= first_floor
    accepted = index.one_each(candidates.keypoints, candidates.similarity, accepted)
    is_other = accepted & (candidates.detections < 0)
    room = maps.options.max_num_keypoints - is_matched.sum() - (accepted & ~is_other).sum()
    order = torch.where(is_other, candidates.similarity, -2.0).argsort(descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    accepted &= ~is_other | (rank < room)

    own = torch.arange(len(tried), device=tried.device) + len(keypoints)
    source = torch.where(candidates.detections >= 0, candidates.detections, own)
    sources[tried] = torch.where(accepted, source, sources[tried])
    similarity = nearest.similarity.clone()
    similarity[tried] = torch.where(accepted, candidates.similarity, similarity[tried])
    positions = torch.where((is_settled & _may_lie(maps, settled))[:, None], settled, keypoints[nearest.index])
    positions[tried] = torch.where(accepted[:, None], pulled, positions[tried])
    is_best = sources == nearest.index
    margin = similarity - torch.where(is_best, nearest.second_similarity, nearest.similarity)
    expected = torch.where(motion.is_known[:, None], expected, points)
    return candidates, _Sightings(sources, positions, similarity, margin, expected, is_in_image)


def _settled(
    is_wanted: torch.Tensor,
    maps: FrameMaps,
    earlier: View | None,
    view: View,
    points: torch.Tensor,
    prior: torch.Tensor,
    trust: torch.Tensor,
    slopes: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(C, 2) where the surroundings of (C, 2) points went, near `prior`, and (C,) whether that is known."""
    if earlier is None or earlier.resize != maps.resize:
        return prior, torch.zeros_like(is_wanted)
    if maps.is_padded:
        settled, is_settled = align_patches(earlier.image, view.image, points, prior, trust, slopes)
        return settled, is_settled & is_wanted
    rows = is_wanted.nonzero()[:, 0]
    settled, is_settled = align_patches(earlier.image, view.image, points[rows], prior[rows], trust[rows], slopes[rows])
    return prior.index_copy(0, rows, settled), is_wanted.index_copy(0, rows, is_settled)


def _may_lie(maps: FrameMaps, points: torch.Tensor) -> torch.Tensor:
    """(R,) whether keypoints may lie at (R, 2) points, as far as the mask and the border go."""
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
) -> Step:
    """The features and the state that follow from what is seen."""
    found = maps.features
    num_detections, num_candidates = len(is_detected), len(candidates.keypoints)
    device = is_detected.device
    is_seen = sightings.sources >= 0
    is_kept = torch.zeros(num_detections + num_candidates + 1, dtype=torch.bool, device=device)
    is_kept[sightings.sources] = True
    is_kept = is_kept[:-1]
    is_fresh = _fresh(maps, options, is_detected, is_kept, candidates, index)
    is_kept = torch.cat([is_kept[:num_detections] | is_fresh, is_kept[num_detections:]])
    order = torch.argsort((~is_kept).to(torch.uint8), stable=True)[: maps.options.max_num_keypoints]
    rows = torch.where(is_kept, is_kept.cumsum(0) - 1, -1)

    keypoints = torch.cat([found.keypoints[0], candidates.keypoints, found.keypoints[0, :1]])
    # Those that are not seen write to a place behind the last one.
    keypoints = keypoints.index_copy(0, torch.where(is_seen, sightings.sources, len(rows)), sightings.positions)[:-1]
    descriptors = torch.cat([found.descriptors[0], candidates.descriptors])
    current_rows = torch.where(is_seen, rows[sightings.sources], -1)
    missed = torch.where(is_seen, 0, state.missed + 1)
    positions = torch.where(is_seen[:, None], sightings.positions, sightings.expected)
    # A point that was seen once and not again was mostly noise: only those with a past are waited for.
    is_awaited = sightings.is_in_image & (missed <= options.max_gap) & (state.ages >= _FEWEST_SIGHTINGS)
    old = TrackState(
        is_valid=state.is_valid & (is_seen | is_awaited),
        points=maps.resize.invert(positions),
        recent=torch.where(is_seen[:, None], descriptors[sightings.sources].float(), state.recent),
        first=state.first,
        ages=state.ages + is_seen,
        missed=missed,
        rows=current_rows,
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
    )
    every = old.followed_by(fresh)
    urgency = torch.where(every.is_valid, every.missed.float(), torch.inf)
    kept = urgency.argsort(stable=True)[: _capacity(maps)]
    if not maps.is_padded:
        kept = kept[: max(int(every.is_valid.sum()), 1)]
    return Step(
        state=every.select(kept),
        view=view,
        origins=torch.where(kept < len(state.is_valid), kept, -1),
        keypoints=keypoints[order],
        scores=torch.cat([found.scores[0], candidates.scores])[order],
        descriptors=descriptors[order],
        count=is_kept.sum(),
        previous_rows=state.rows,
        current_rows=current_rows,
        similarity=sightings.similarity,
        margin=sightings.margin,
    )


def _fresh(
    maps: FrameMaps,
    options: TrackingOptions,
    is_detected: torch.Tensor,
    is_kept: torch.Tensor,
    candidates: Candidates,
    index: PixelIndex,
) -> torch.Tensor:
    """(K,) bool: which of the detections that no track has taken get the places left.

    The best one of each cell in which no track is seen comes first, then the best of all.
    """
    found, num_detections = maps.features, len(is_detected)
    height, width = maps.resize.height1, maps.resize.width1
    # One pixel beside a point that is followed there is nothing new, also where the network suppresses nothing.
    near = index.near(torch.cat([found.keypoints[0], candidates.keypoints]), smallest_distance(maps))
    is_near = torch.zeros(num_detections + 1, dtype=torch.bool, device=is_kept.device)
    is_near[torch.where(is_kept[:, None], near, num_detections)] = True
    is_free = is_detected & ~is_kept[:num_detections] & ~is_near[:num_detections]

    cell_size = found.keypoints.new_tensor([width / options.grid_columns, height / options.grid_rows])

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


def _capacity(maps: FrameMaps) -> int:
    """Most points that are followed: all that one image showed may wait behind all that another one shows."""
    return 2 * maps.options.max_num_keypoints


def _is_inside(points: torch.Tensor, resize: Resize, border: int = 0) -> torch.Tensor:
    x, y = points.unbind(1)
    last_x, last_y = resize.width1 - 1 - border, resize.height1 - 1 - border
    return (x >= border) & (y >= border) & (x <= last_x) & (y <= last_y)
