"""Differentiable keypoint detection, DKD (ALIKED paper, III-C; Zhao et al., ALIKE, IEEE TMM 2022).

Non-maximum suppression finds whole-pixel maxima of the score map; a soft-argmax over the window around each of them
gives the sub-pixel position; the score is then read from the map at that position.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from feature_frontend.extractors.base import DetectionOptions
from feature_frontend.extractors.networks.layers.sampling import sample_bilinear
from feature_frontend.extractors.networks.layers.selection import lie_on_allowed, select_candidates

__all__ = [
    "REFINEMENT_TEMPERATURE",
    "Detections",
    "detect_keypoints",
    "detect_padded",
    "maximum_filter",
    "refine_keypoints",
    "score_windows",
    "select_pixels",
    "suppress_non_maxima",
    "zero_border",
]

REFINEMENT_TEMPERATURE = 0.1  # t_det of the ALIKE paper; scores within a window differ by about this much
_EXTRA_ROUNDS = 2


@dataclass(frozen=True)
class Detections:
    """Keypoints of a batch of maps, with as many rows per map as the budget; rows from `counts` on are padding.

    Attributes:
        keypoints: (B, K, 2) float32, (x, y) px, best first.
        scores: (B, K) float32 in [0, 1].
        counts: (B,) int64, number of valid rows, which come first.
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    counts: torch.Tensor


def suppress_non_maxima(score_maps: torch.Tensor, radius: int) -> torch.Tensor:
    """The scores of local maxima, zero elsewhere.

    A single maximum filter also loses a point whose only better neighbour is itself suppressed by a third one. Two
    further rounds find maxima among the scores that no maximum so far suppresses.

    Args:
        score_maps: (B, 1, H, W) scores in [0, 1].
        radius: Half width of the window in px.

    Returns:
        (B, 1, H, W).
    """
    is_maximum = score_maps == maximum_filter(score_maps, radius)
    for _ in range(_EXTRA_ROUNDS):
        is_suppressed = maximum_filter(is_maximum.to(torch.uint8), radius) > 0
        remaining = score_maps.masked_fill(is_suppressed, 0.0)
        is_maximum |= (remaining == maximum_filter(remaining, radius)) & ~is_suppressed
    return score_maps.masked_fill(~is_maximum, 0.0)


def maximum_filter(maps: torch.Tensor, radius: int) -> torch.Tensor:
    """The highest value in the square window around each pixel; outside the map counts as zero.

    Args:
        maps: (B, 1, H, W), not negative.
        radius: Half width of the window in px.

    Returns:
        (B, 1, H, W).
    """
    if maps.is_cuda and maps.is_floating_point():
        return functional.max_pool2d(maps, kernel_size=2 * radius + 1, stride=1, padding=radius)
    return _maximum_along(_maximum_along(maps, radius, dim=3), radius, dim=2)


def _maximum_along(maps: torch.Tensor, radius: int, dim: int) -> torch.Tensor:
    """Running maximum over 2 radius + 1 px of one dimension, built from those of 1, 2, 4 ... px, in whole rows."""
    margins = [radius, radius, 0, 0] if dim == 3 else [0, 0, radius, radius]
    highest = functional.pad(maps, margins)
    window, reach = 2 * radius + 1, 1
    while reach < window:
        step = min(reach, window - reach)
        length = highest.shape[dim] - step
        highest = torch.maximum(highest.narrow(dim, 0, length), highest.narrow(dim, step, length))
        reach += step
    return highest


def zero_border(maps: torch.Tensor, border: int) -> torch.Tensor:
    """(B, H, W) maps, set to zero within `border` px of their edges."""
    if border == 0:
        return maps
    height, width = maps.shape[-2:]
    inner = torch.zeros_like(maps)
    inside = (slice(None), slice(border, max(height - border, border)), slice(border, max(width - border, border)))
    inner[inside] = maps[inside]
    return inner


def refine_keypoints(score_map: torch.Tensor, pixels: torch.Tensor, radius: int) -> torch.Tensor:
    """Sub-pixel positions by soft-argmax over the window of half width `radius` around each pixel.

    Args:
        score_map: (H, W).
        pixels: (N, 2) int64, (x, y), at least `radius` px from the border.
        radius: Half width of the window in px.

    Returns:
        (N, 2) float32, (x, y) px. Differentiable in the scores.
    """
    scores, window = score_windows(score_map, pixels, radius)
    weights = torch.softmax(scores / REFINEMENT_TEMPERATURE, dim=1)
    return pixels.to(weights.dtype) + weights @ window.to(weights.dtype)


def score_windows(score_map: torch.Tensor, pixels: torch.Tensor, radius: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The W * W scores around each pixel, W = 2 radius + 1.

    Args:
        score_map: (H, W).
        pixels: (N, 2) int64, (x, y), at least `radius` px from the border.
        radius: Half width of the window in px.

    Returns:
        (N, W * W) scores, differentiable, and (W * W, 2) int64: their offsets from the pixel, (x, y) px.
    """
    reach = torch.arange(-radius, radius + 1, device=score_map.device)
    dy, dx = torch.meshgrid(reach, reach, indexing="ij")
    window = torch.stack([dx, dy], dim=-1).reshape(-1, 2)
    around = pixels.unsqueeze(1) + window
    return score_map[around[..., 1], around[..., 0]], window


def detect_keypoints(
    score_maps: torch.Tensor, options: DetectionOptions, allowed: torch.Tensor | None = None
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keypoints of each score map, best first.

    Args:
        score_maps: (B, 1, H, W) float32 scores in [0, 1].
        options: Budget, threshold, radius and grid.
        allowed: (B, H, W) bool, pixels on which keypoints may lie; None for all. A keypoint whose refined position
            would lie on a forbidden pixel stays at the centre of its own pixel.

    Returns:
        For each map (N, 2) float32 points (x, y) px and (N,) float32 scores, N at most `max_num_keypoints`. Sorted by
        the score at the whole pixel; the score returned is that at the refined position.
    """
    detections = detect_padded(score_maps, options, allowed)
    return [
        (keypoints[:count], scores[:count])
        for keypoints, scores, count in zip(
            detections.keypoints, detections.scores, detections.counts.tolist(), strict=True
        )
    ]


def detect_padded(
    score_maps: torch.Tensor,
    options: DetectionOptions,
    allowed: torch.Tensor | None = None,
    maxima: torch.Tensor | None = None,
) -> Detections:
    """The same as `detect_keypoints`, with shapes that do not depend on the scores.

    `maxima` is the result of `suppress_non_maxima` on the scores, if already known.
    Nothing here waits for the device, so it can be part of a CUDA graph.
    """
    radius = options.nms_radius
    best, pixels = select_pixels(score_maps, options, allowed, maxima)
    keypoints = torch.stack(
        [refine_keypoints(plane, points, radius) for plane, points in zip(score_maps[:, 0], pixels, strict=True)]
    )
    if allowed is not None:
        stays = lie_on_allowed(allowed, keypoints)
        keypoints = torch.where(stays[:, :, None], keypoints, pixels.to(keypoints.dtype))
    scores = sample_bilinear(score_maps, keypoints[:, None])[:, 0, 0]
    return Detections(keypoints, scores, (best > options.detection_threshold).sum(dim=1))


def select_pixels(
    score_maps: torch.Tensor,
    options: DetectionOptions,
    allowed: torch.Tensor | None = None,
    maxima: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole-pixel maxima that become keypoints, best first, as many rows as the budget.

    Returns:
        (B, K) scores without gradient; rows with a score up to `detection_threshold` are padding. (B, K, 2) int64
        pixels (x, y), at least `nms_radius` px from the border.
    """
    radius = options.nms_radius
    height, width = score_maps.shape[-2:]
    if maxima is None:
        maxima = suppress_non_maxima(score_maps.detach(), radius)
    # The window of the refinement must lie inside the map.
    inner = zero_border(maxima[:, 0], max(radius, options.border))
    best, indices = select_candidates(inner, options, allowed)
    columns, rows = indices % width, torch.div(indices, width, rounding_mode="floor")
    # Padding rows may be anywhere; their windows must also lie inside the map.
    pixels = torch.stack([columns.clamp(radius, width - 1 - radius), rows.clamp(radius, height - 1 - radius)], dim=2)
    return best, pixels
