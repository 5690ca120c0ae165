"""Where the surroundings of points went, to a fraction of a pixel: Lucas-Kanade at one scale, all points at once.

Gradients are those of the earlier image, as in Bouguet's form (2001) of Lucas and Kanade (1981), and brightness may
change by a constant. What the pixels do not tell, as along an edge, stays what the detector says.

Nothing here waits for the device, and shapes do not depend on values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Alignment", "align_patches"]

RADIUS_PX = 6
# What a detection or a prediction weighs at least: as much as squared gradients of this size, in the mean over the
# window (grey levels in [0, 1] a px).
_PRIOR_WEIGHT = 2e-5
_ITERATIONS = 4
_LARGEST_STEP_PX = 1.0
_LAST_STEP_PX = 0.3  # larger, and it has not settled
# Farther from its detection, a point has lost its surroundings or the detector its point.
_FARTHEST_PX = 2.5
_LEAST_CORRELATION = 0.6
_LARGEST_SLOPE = 0.3
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Alignment:
    """Where (C,) points lie in the current image.

    Attributes:
        points: (C, 2) float32 px.
        is_found: (C,) bool, whether the surroundings are found there; the other rows mean nothing.
        correlation: (C,) float32 in [-1, 1], how alike they are.
    """

    points: torch.Tensor
    is_found: torch.Tensor
    correlation: torch.Tensor


def align_patches(
    images0: torch.Tensor,
    image1: torch.Tensor,
    rows0: torch.Tensor,
    points0: torch.Tensor,
    points1: torch.Tensor,
    share: torch.Tensor,
    slopes: torch.Tensor,
) -> Alignment:
    """Positions in the current image from those in earlier ones and what the detector says of the current one.

    Args:
        images0: (N, H, W) float32 grey in [0, 1], earlier images.
        image1: (H, W) of the current image.
        rows0: (C,) int64, which of the earlier images each point is compared with.
        points0: (C, 2) px in that image.
        points1: (C, 2) px in image 1, where the points are detected there, or predicted.
        share: (C,), what `points1` weighs as a share of what the window's own gradients weigh.
        slopes: (C, 2, 2), how the shift of a point changes with its place, px a px: the shift of what lies at (C, 2)
            offsets o is that of the point plus o @ slopes.
    """
    template = _windows(images0, rows0, points0, RADIUS_PX + 1)
    along_x = ((template[:, 1:-1, 2:] - template[:, 1:-1, :-2]) / 2.0).flatten(1)
    along_y = ((template[:, 2:, 1:-1] - template[:, :-2, 1:-1]) / 2.0).flatten(1)
    # To first order, what lies at an offset o in image 1 came from o - o @ slopes.
    reach = torch.arange(-RADIUS_PX, RADIUS_PX + 1, device=points0.device, dtype=points0.dtype)
    x, y = (side.flatten() for side in torch.meshgrid(reach, reach, indexing="xy"))
    bent = slopes.clamp(-_LARGEST_SLOPE, _LARGEST_SLOPE)[..., None]
    template = template[:, 1:-1, 1:-1].flatten(1)
    template = template - along_x * (x * bent[:, 0, 0] + y * bent[:, 1, 0])
    template = _centred(template - along_y * (x * bent[:, 0, 1] + y * bent[:, 1, 1]))

    along_x, along_y = _centred(along_x), _centred(along_y)
    xx, xy, yy = (along_x.square().mean(dim=1), (along_x * along_y).mean(dim=1), along_y.square().mean(dim=1))
    weight = _PRIOR_WEIGHT + share * (xx + yy) / 2.0
    xx, yy = xx + weight, yy + weight
    determinant = (xx * yy - xy.square()).clamp(min=_SMALLEST)
    points, only = points1, torch.zeros_like(rows0)
    for _ in range(_ITERATIONS):
        window = _windows(image1[None], only, points, RADIUS_PX).flatten(1)
        difference = template - window
        back_x, back_y = (weight[:, None] * (points1 - points)).unbind(1)
        pull_x, pull_y = (along_x * difference).mean(dim=1) + back_x, (along_y * difference).mean(dim=1) + back_y
        step = torch.stack([yy * pull_x - xy * pull_y, xx * pull_y - xy * pull_x], dim=1) / determinant[:, None]
        length = step.norm(dim=1)
        points = points + step * (_LARGEST_STEP_PX / length.clamp(min=_LARGEST_STEP_PX))[:, None]
    # As it was before the last step, which is a fraction of a pixel where a point has settled.
    window = _centred(window)
    norms = template.square().sum(dim=1) * window.square().sum(dim=1)
    correlation = (template * window).sum(dim=1) / norms.sqrt().clamp(min=_SMALLEST)
    is_found = (correlation >= _LEAST_CORRELATION) & (length <= _LAST_STEP_PX)
    is_found &= (points - points1).norm(dim=1) <= _FARTHEST_PX
    is_found &= _has_window(points0, image1) & _has_window(points, image1)
    return Alignment(points, is_found, correlation)


def _windows(images: torch.Tensor, rows: torch.Tensor, centres: torch.Tensor, radius: int) -> torch.Tensor:
    """(C, S, S) values of the windows around (C, 2) points; of those that leave the image, of windows nearby.

    Args:
        images: (N, H, W).
        rows: (C,) int64, the image of each point.
        centres: (C, 2) px.
        radius: Px.
    """
    height, width = images.shape[1:]
    side = 2 * radius + 2
    corner = centres.floor()
    share = (centres - corner)[:, :, None, None]
    x, y = (corner.long() - radius).unbind(1)
    first = (rows * height + y.clamp(0, height - side)) * width + x.clamp(0, width - side)
    # All pixels of a window are equally far from the grid: whole rows of it are read, and mixed with two weights.
    starts = first[:, None] + width * torch.arange(side, device=images.device)
    pixels = images.flatten().unfold(0, side, 1).index_select(0, starts.flatten()).reshape(-1, side, side)
    mixed = torch.lerp(pixels[:, :, :-1], pixels[:, :, 1:], share[:, 0])
    return torch.lerp(mixed[:, :-1], mixed[:, 1:], share[:, 1])


def _centred(windows: torch.Tensor) -> torch.Tensor:
    return windows - windows.mean(dim=1, keepdim=True)


def _has_window(points: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    height, width = image.shape
    x, y = points.unbind(1)
    margin = RADIUS_PX + 1
    return (x >= margin) & (y >= margin) & (x <= width - 1 - margin) & (y <= height - 1 - margin)
