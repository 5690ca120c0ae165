"""Re-localisation: finds missed points on the score map near their predictions, even if not among the detections.

The candidates are maxima of the score map in a small window. Detections are used as they are; other maxima are refined
to sub-pixel positions and described as the detector would do it, so that a re-localised point lies where its detection
would lie, without drift.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from feature_frontend.extractors.base import FrameMaps
from feature_frontend.extractors.covariances import detected_covariances
from feature_frontend.extractors.networks.layers.keypoint_detection import refine_keypoints, suppress_non_maxima
from feature_frontend.extractors.networks.layers.sampling import sample_bilinear
from feature_frontend.extractors.networks.layers.selection import lie_on_allowed

__all__ = ["Candidates", "PixelIndex", "Places", "describe_places", "find_places", "smallest_distance"]

WINDOW_RADIUS_PX = 3
FARTHEST_PX = 2.5  # from the prediction, in the network's image
_PRIOR_PX = 0.8  # how far from the prediction a maximum loses 39 % of its weight
_SMALLEST_NMS_RADIUS = 2  # for networks without non-maximum suppression: every pixel of a point would be a candidate


class PixelIndex:
    """Index from pixels to points.

    Args:
        points: (K, 2) px.
        is_point: (K,) bool; the other rows are ignored.
        height: Of the image, px.
        width: Of the image, px.
    """

    def __init__(self, points: torch.Tensor, is_point: torch.Tensor, height: int, width: int) -> None:
        self._size = height, width
        self._rows = torch.full((height * width + 1,), -1, dtype=torch.int64, device=points.device)
        # Rows that are no points go to an extra element behind the last pixel, which is then cleared.
        places = torch.where(is_point, self.pixels_of(points), height * width)
        rows = torch.arange(len(points), device=points.device)
        self._rows.scatter_reduce_(0, places, rows, "amax")
        self._rows[-1:].fill_(-1)

    def pixels_of(self, points: torch.Tensor) -> torch.Tensor:
        """(...) int64, the index of the pixel on which each of (..., 2) points lies."""
        height, width = self._size
        x, y = points.round().long().unbind(-1)
        return y.clamp(0, height - 1) * width + x.clamp(0, width - 1)

    def rows_at(self, points: torch.Tensor) -> torch.Tensor:
        """(...) int64 row of the point on the same pixel as each of (..., 2) points; -1 for none."""
        pixels = self.pixels_of(points)
        # Faster than indexing on a CPU.
        return self._rows.index_select(0, pixels.flatten()).reshape(pixels.shape)

    def near(self, points: torch.Tensor, radius: int) -> torch.Tensor:
        """(R, (2 radius + 1)^2) int64 rows of the points on the pixels around (R, 2) points; -1 for none."""
        reach = torch.arange(-radius, radius + 1, device=points.device)
        window = torch.stack(torch.meshgrid(reach, reach, indexing="xy"), dim=-1).reshape(-1, 2)
        return self.rows_at(points[:, None] + window)

    def one_each(self, points: torch.Tensor, values: torch.Tensor, is_point: torch.Tensor) -> torch.Tensor:
        """(R,) bool: for each pixel, keeps the one of its (R, 2) points with the highest value, of equals the first."""
        pixels = self.pixels_of(points)
        rows = torch.arange(len(points), device=points.device)
        highest = torch.full(self._rows.shape, -torch.inf, device=points.device)
        highest.scatter_reduce_(0, pixels, torch.where(is_point, values, -torch.inf), "amax")
        is_highest = is_point & (values == highest[pixels])
        first = torch.full_like(self._rows, len(points))
        first.scatter_reduce_(0, pixels, torch.where(is_highest, rows, len(points)), "amin")
        return is_highest & (first[pixels] == rows)


@dataclass(frozen=True)
class Places:
    """The strongest maximum near the prediction of each of R points.

    Attributes:
        is_maximum: (R,) bool, whether there is one; ignore the other rows.
        keypoints: (R, 2) float32 px in the network's image.
        detections: (R,) int64, row of the detection at this maximum; -1 if it was not detected.
    """

    is_maximum: torch.Tensor
    keypoints: torch.Tensor
    detections: torch.Tensor

    def or_at(self, points: torch.Tensor, is_wanted: torch.Tensor) -> Places:
        """With (R, 2) `points` in place of missing maxima, where (R,) `is_wanted`."""
        is_other = is_wanted & ~self.is_maximum
        return Places(
            self.is_maximum | is_other,
            torch.where(is_other[:, None], points, self.keypoints),
            torch.where(is_other, -1, self.detections),
        )


@dataclass(frozen=True)
class Candidates:
    """The features at R places.

    Attributes:
        keypoints: (R, 2) float32 px in the network's image.
        scores: (R,) float32.
        descriptors: (R, D), L2-normalised.
        similarity: (R,) float32, cosine to the point's own descriptor.
        detections: (R,) int64, row of the detection at this place; -1 if it was not detected.
        covariances: (R, 3) float32 px^2 of the network's image, of the score map's maximum.
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    descriptors: torch.Tensor
    similarity: torch.Tensor
    detections: torch.Tensor
    covariances: torch.Tensor


def find_places(maps: FrameMaps, expected: torch.Tensor, detections: PixelIndex, is_taken: torch.Tensor) -> Places:
    """Finds a candidate place for each of R points.

    Args:
        maps: Of the current image.
        expected: (R, 2) px, predicted positions in the network's image.
        detections: Index of `maps.features`.
        is_taken: (K + 1,) bool, which detections belong to another point already; the last entry means no detection.
    """
    pixels, is_maximum = _strongest(maps, expected, detections, is_taken)
    keypoints = _located(maps, maps.network.score_maps(maps.dense)[0, 0], pixels)
    rows = detections.rows_at(keypoints)
    is_detection = (rows >= 0)[:, None]
    keypoints = torch.where(is_detection, maps.features.keypoints[0][rows], keypoints)
    return Places(is_maximum & ((keypoints - expected).norm(dim=1) <= FARTHEST_PX), keypoints, rows)


def describe_places(maps: FrameMaps, places: Places, is_wanted: torch.Tensor, recent: torch.Tensor) -> Candidates:
    """Describes the places: reuses the features of detections and computes those of the others.

    Args:
        maps: Of the current image.
        places: From `find_places`.
        is_wanted: (R,) bool; ignore the results of the others.
        recent: (R, D) float32, the points' own descriptors.
    """
    found = maps.features
    is_new = places.detections < 0
    picked = places.detections.clamp(min=0)
    descriptors = found.descriptors[0].index_select(0, picked)
    every = torch.arange(len(is_new), device=is_new.device)
    new = every if maps.is_padded else every[is_new & is_wanted]
    fresh = maps.network.describe(maps.dense, places.keypoints[new][None])[0]
    descriptors = descriptors.index_copy(0, new, torch.where(is_new[new, None], fresh, descriptors[new]))
    score_maps = maps.network.score_maps(maps.dense)
    read = sample_bilinear(score_maps, places.keypoints[None, None])[0, 0, 0]
    return Candidates(
        keypoints=places.keypoints,
        scores=torch.where(is_new, read, found.scores[0][picked]),
        descriptors=descriptors,
        similarity=(descriptors.float() * recent).sum(dim=1),
        detections=places.detections,
        covariances=detected_covariances(score_maps, places.keypoints[None], maps.network.position_noise)[0],
    )


def smallest_distance(maps: FrameMaps) -> int:
    """Minimum distance between tracked points, px in the network's image."""
    return max(maps.options.nms_radius, _SMALLEST_NMS_RADIUS)


def _strongest(
    maps: FrameMaps, expected: torch.Tensor, detections: PixelIndex, is_taken: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, 2) int64 pixel of the strongest maximum near each prediction, and (R,) bool whether there is one."""
    options = maps.options
    maxima = maps.maxima
    if maxima is None or options.nms_radius < smallest_distance(maps):
        maxima = suppress_non_maxima(maps.network.score_maps(maps.dense), smallest_distance(maps))
    height, width = maxima.shape[2:]
    reach = torch.arange(-WINDOW_RADIUS_PX, WINDOW_RADIUS_PX + 1, device=expected.device)
    window = torch.stack(torch.meshgrid(reach, reach, indexing="xy"), dim=-1).reshape(-1, 2)
    around = expected.round().long()[:, None] + window
    x, y = around.unbind(-1)
    border = max(options.nms_radius, options.border)
    is_usable = (x >= border) & (y >= border) & (x < width - border) & (y < height - border)
    pixels = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)

    def at(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return values.index_select(0, places.flatten()).reshape(places.shape)  # faster than indexing on a CPU

    scores = at(maxima.flatten(), pixels)
    # Row -1, of no detection, is the last entry.
    is_free = at((~is_taken).roll(1), detections.rows_at(around) + 1)
    is_usable &= (scores > options.detection_threshold) & is_free
    if maps.allowed is not None:
        is_usable &= at(maps.allowed.flatten(), pixels)
    distances = (around - expected[:, None]).square().sum(dim=2)
    best = (is_usable * scores * torch.exp(distances / (-2.0 * _PRIOR_PX**2))).max(dim=1)
    return around.gather(1, best.indices[:, None, None].expand(-1, 1, 2))[:, 0], best.values > 0


def _located(maps: FrameMaps, score_map: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """(Q, 2) float32 positions of (Q, 2) maxima, refined as by the detector; undefined inside the border."""
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
