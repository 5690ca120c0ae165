"""Differentiable keypoint detection, DKD (ALIKED paper, III-C; Zhao et al., ALIKE, IEEE TMM 2022).

Non-maximum suppression finds whole-pixel maxima of the score map; a soft-argmax over the window around each of them
gives the sub-pixel position; the score is then read from the map at that position.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from feature_frontend.extractors.base import DetectionOptions
from feature_frontend.extractors.layers.sampling import sample_bilinear

__all__ = ["REFINEMENT_TEMPERATURE", "detect_keypoints", "refine_keypoints", "suppress_non_maxima", "zero_border"]

REFINEMENT_TEMPERATURE = 0.1  # t_det of the ALIKE paper; scores of a window differ by about as much
_EXTRA_ROUNDS = 2


def suppress_non_maxima(score_maps: torch.Tensor, radius: int) -> torch.Tensor:
    """The scores of local maxima, zero elsewhere.

    A plain maximum filter also loses a point whose only better neighbour is itself suppressed by a third one. Two
    further rounds look for maxima among the scores that no maximum found so far suppresses.

    Args:
        score_maps: (B, 1, H, W) scores in [0, 1].
        radius: Half width of the window in px.

    Returns:
        (B, 1, H, W).
    """

    def highest_nearby(maps: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(maps, kernel_size=2 * radius + 1, stride=1, padding=radius)

    is_maximum = score_maps == highest_nearby(score_maps)
    for _ in range(_EXTRA_ROUNDS):
        is_suppressed = highest_nearby(is_maximum.to(score_maps.dtype)) > 0
        remaining = score_maps.masked_fill(is_suppressed, 0.0)
        is_maximum |= (remaining == highest_nearby(remaining)) & ~is_suppressed
    return score_maps.masked_fill(~is_maximum, 0.0)


def zero_border(maps: torch.Tensor, border: int) -> torch.Tensor:
    """(B, H, W) maps with zeros within `border` px of their edges."""
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
    reach = torch.arange(-radius, radius + 1, device=score_map.device)
    dy, dx = torch.meshgrid(reach, reach, indexing="ij")
    window = torch.stack([dx, dy], dim=-1).reshape(-1, 2)
    around = pixels.unsqueeze(1) + window
    scores = score_map[around[..., 1], around[..., 0]]
    weights = torch.softmax(scores / REFINEMENT_TEMPERATURE, dim=1)
    return pixels.to(weights.dtype) + weights @ window.to(weights.dtype)


def detect_keypoints(score_maps: torch.Tensor, options: DetectionOptions) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keypoints of each score map, best first.

    Args:
        score_maps: (B, 1, H, W) float32 scores in [0, 1].
        options: Budget, threshold and radius.

    Returns:
        For each map (N, 2) float32 points (x, y) px and (N,) float32 scores, N at most `max_num_keypoints`. Sorted by
        the score at the whole pixel; the score returned is that at the refined position.
    """
    radius = options.nms_radius
    height, width = score_maps.shape[-2:]
    maxima = suppress_non_maxima(score_maps.detach(), radius)[:, 0]
    # The window of the refinement must lie inside the map.
    inner = zero_border(maxima, max(radius, options.border))
    budget = min(options.max_num_keypoints, height * width)
    best, flat_indices = inner.flatten(1).topk(budget, dim=1)
    found = []
    for index, (best_scores, indices) in enumerate(zip(best, flat_indices, strict=True)):
        kept = indices[best_scores > options.detection_threshold]
        pixels = torch.stack([kept % width, torch.div(kept, width, rounding_mode="floor")], dim=1)
        keypoints = refine_keypoints(score_maps[index, 0], pixels, radius)
        scores = sample_bilinear(score_maps[index : index + 1], keypoints[None, None])[0, 0, 0]
        found.append((keypoints, scores))
    return found
