"""Points found again where they should be, on the score map near the prediction, picked by the budget or not.

The candidates are maxima of the score map in a small window. Those that the detector picked are known already; the
others are refined to a fraction of a pixel and described as the detector would have done, so that a point that is found
again lies where a detection of it would lie, and nothing drifts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch

from feature_frontend.extractors.base import FrameMaps
from feature_frontend.extractors.layers.keypoint_detection import refine_keypoints, suppress_non_maxima, zero_border
from feature_frontend.extractors.layers.sampling import sample_bilinear
from feature_frontend.extractors.layers.selection import lie_on_allowed

__all__ = ["Candidates", "PixelIndex", "find_candidates", "smallest_distance"]

WINDOW_RADIUS_PX = 3
FARTHEST_PX = 2.5  # from the prediction, in the network's image
_PRIOR_PX = 1.2  # how far from the prediction a maximum loses 39 % of its weight
_NUM_CANDIDATES = 2
_SMALLEST_NMS_RADIUS = 2  # for networks that suppress nothing: each of a point's pixels would be a candidate


class PixelIndex:
    """Which point lies on which pixel.

    Args:
        points: (K, 2) px.
        is_point: (K,) bool; the others are nowhere.
        height: Of the image, px.
        width: Of the image, px.
    """

    def __init__(self, points: torch.Tensor, is_point: torch.Tensor, height: int, width: int) -> None:
        self._size = height, width
        self._rows = torch.full((height * width + 1,), -1, dtype=torch.int64, device=points.device)
        # What is no point goes to the place behind the last pixel, which is then cleared.
        places = torch.where(is_point, self.pixels_of(points), height * width)
        rows = torch.arange(len(points), device=points.device)
        self._rows.scatter_reduce_(0, places, rows, "amax")
        self._rows[-1] = -1

    def pixels_of(self, points: torch.Tensor) -> torch.Tensor:
        """(...) int64, the number of the pixel on which each of (..., 2) points lies."""
        height, width = self._size
        x, y = points.round().long().unbind(-1)
        return y.clamp(0, height - 1) * width + x.clamp(0, width - 1)

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """(...) int64 row of the point on the same pixel as each of (..., 2) points; -1 for none."""
        return self._rows[self.pixels_of(points)]

    def near(self, points: torch.Tensor, radius: int) -> torch.Tensor:
        """(R, (2 radius + 1)^2) int64 rows of the points on the pixels around (R, 2) points; -1 for none."""
        reach = torch.arange(-radius, radius + 1, device=points.device)
        window = torch.stack(torch.meshgrid(reach, reach, indexing="xy"), dim=-1).reshape(-1, 2)
        return self(points[:, None] + window)

    def one_each(self, points: torch.Tensor, values: torch.Tensor, is_point: torch.Tensor) -> torch.Tensor:
        """(R,) bool: of the (R, 2) points on one pixel the one with the highest value, of equals the first."""
        pixels = self.pixels_of(points)
        rows = torch.arange(len(points), device=points.device)
        highest = torch.full(self._rows.shape, -torch.inf, device=points.device)
        highest.scatter_reduce_(0, pixels, torch.where(is_point, values, -torch.inf), "amax")
        is_highest = is_point & (values == highest[pixels])
        first = torch.full_like(self._rows, len(points))
        first.scatter_reduce_(0, pixels, torch.where(is_highest, rows, len(points)), "amin")
        return is_highest & (first[pixels] == rows)


@dataclass(frozen=True)
class Candidates:
    """For each of R points the strongest maximum near its prediction that looks like it.

    Attributes:
        is_found: (R,) bool, whether there is one at all; the other rows mean nothing.
        keypoints: (R, 2) float32 px in the network's image.
        scores: (R,) float32.
        descriptors: (R, D), L2-normalised.
        similarity: (R,) float32, cosine to the point's own descriptor.
        detections: (R,) int64, row of the detection that it is; -1 where the detector did not pick it.
    """

    is_found: torch.Tensor
    keypoints: torch.Tensor
    scores: torch.Tensor
    descriptors: torch.Tensor
    similarity: torch.Tensor
    detections: torch.Tensor

    def unless(self, others: Candidates, rows: torch.Tensor) -> Candidates:
        """These, with (Q,) `others` in the given `rows` where they are found and the own ones are not."""
        is_better = others.is_found & ~self.is_found[rows]

        def merged(own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            chosen = is_better.reshape(-1, *[1] * (own.ndim - 1))
            return own.index_copy(0, rows, torch.where(chosen, other, own[rows]))

        return Candidates(*(merged(getattr(self, field.name), getattr(others, field.name)) for field in fields(self)))


def find_candidates(
    maps: FrameMaps,
    expected: torch.Tensor,
    recent: torch.Tensor,
    detections: PixelIndex,
    is_taken: torch.Tensor,
    floor: float,
) -> Candidates:
    """The candidate for each of R points: the first, from the strongest on, that looks like it.

    Args:
        maps: Of the current image.
        expected: (R, 2) px, where the points should be in the network's image.
        recent: (R, D) float32, their descriptors.
        detections: Of `maps.features`.
        is_taken: (K + 1,) bool, which of those are another point's already; the last is for no detection.
        floor: Lowest cosine of two descriptors of one point.
    """
    score_map = maps.network.score_maps(maps.dense)
    pixels, is_maximum = _maxima(maps, score_map, expected)
    rows = torch.arange(len(expected), device=expected.device)
    result: Candidates | None = None
    for rank in range(pixels.shape[1]):
        if result is not None and not maps.is_padded:
            # What is found need not be described again.
            rows = (is_maximum[:, rank] & ~result.is_found).nonzero()[:, 0]
        keypoints = _located(maps, score_map[0, 0], pixels[rows, rank])
        is_near = (keypoints - expected[rows]).norm(dim=1) <= FARTHEST_PX
        found = _described(maps, score_map, keypoints, detections(keypoints), recent[rows])
        is_found = is_maximum[rows, rank] & is_near & (found.similarity >= floor) & ~is_taken[found.detections]
        found = replace(found, is_found=is_found)
        result = found if result is None else result.unless(found, rows)
    assert result is not None
    return result


def _described(
    maps: FrameMaps, score_map: torch.Tensor, keypoints: torch.Tensor, detections: torch.Tensor, recent: torch.Tensor
) -> Candidates:
    """(Q,) points as candidates: those that are detections with what is known of them, the others described anew."""
    found = maps.features
    is_new = detections < 0
    picked = detections.clamp(min=0)
    descriptors = found.descriptors[0][picked]
    every = torch.arange(len(keypoints), device=keypoints.device)
    new = every if maps.is_padded else every[is_new]
    fresh = maps.network.describe(maps.dense, keypoints[new][None])[0]
    descriptors = descriptors.index_copy(0, new, torch.where(is_new[new, None], fresh, descriptors[new]))
    positions = torch.where(is_new[:, None], keypoints, found.keypoints[0][picked])
    read = sample_bilinear(score_map, positions[None, None])[0, 0, 0]
    return Candidates(
        is_found=torch.ones_like(is_new),
        keypoints=positions,
        scores=torch.where(is_new, read, found.scores[0][picked]),
        descriptors=descriptors,
        similarity=(descriptors.float() * recent).sum(dim=1),
        detections=detections,
    )


def smallest_distance(maps: FrameMaps) -> int:
    """How close together points that are followed may be at most, px in the network's image."""
    return max(maps.options.nms_radius, _SMALLEST_NMS_RADIUS)


def _maxima(maps: FrameMaps, score_maps: torch.Tensor, expected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, M, 2) int64 pixels of the strongest maxima near each prediction, and (R, M) bool whether they are any."""
    options = maps.options
    maxima = suppress_non_maxima(score_maps, smallest_distance(maps))[:, 0]
    maxima = zero_border(maxima, max(options.nms_radius, options.border))
    if maps.allowed is not None:
        maxima = maxima.masked_fill(~maps.allowed, 0.0)
    height, width = maxima.shape[1:]
    reach = torch.arange(-WINDOW_RADIUS_PX, WINDOW_RADIUS_PX + 1, device=expected.device)
    window = torch.stack(torch.meshgrid(reach, reach, indexing="xy"), dim=-1).reshape(-1, 2)
    around = expected.round().long()[:, None] + window
    x, y = around.unbind(-1)
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    scores = maxima[0, y.clamp(0, height - 1), x.clamp(0, width - 1)]
    usable = is_inside & (scores > options.detection_threshold)
    distances = (around - expected[:, None]).square().sum(dim=2)
    best = (usable * scores * torch.exp(distances / (-2.0 * _PRIOR_PX**2))).topk(_NUM_CANDIDATES, dim=1)
    return around.gather(1, best.indices[:, :, None].expand(-1, -1, 2)), best.values > 0


def _located(maps: FrameMaps, score_map: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """(Q, 2) float32 positions of (Q, 2) maxima as the detector gives them; what lies in the border may be anywhere."""
    height, width = score_map.shape
    radius = maps.options.nms_radius
    if not maps.network.refines_keypoints or radius == 0:
        return torch.stack([pixels[:, 0].clamp(0, width - 1), pixels[:, 1].clamp(0, height - 1)], dim=1).float()
    inner = torch.stack(
        [pixels[:, 0].clamp(radius, width - 1 - radius), pixels[:, 1].clamp(radius, height - 1 - radius)], dim=1
    )
    keypoints = refine_keypoints(score_map, inner, radius)
    if maps.allowed is not None:
        stays = lie_on_allowed(maps.allowed, keypoints[None])[0]
        keypoints = torch.where(stays[:, None], keypoints, inner.to(keypoints.dtype))
    return keypoints
