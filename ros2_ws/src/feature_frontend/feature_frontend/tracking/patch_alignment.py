"""Where the surroundings of points went, to a fraction of a pixel: Lucas-Kanade at one scale, all points at once.

Gradients are those of the earlier image, as in Bouguet's form (2001) of Lucas and Kanade (1981), and brightness may
change by a constant. What the pixels do not tell, as along an edge, stays what the detector says.

Nothing here waits for the device, and shapes do not depend on values.
"""

from __future__ import annotations

import torch

from feature_frontend.extractors.layers.sampling import sample_bilinear

__all__ = ["align_patches"]

RADIUS_PX = 7
# A detection weighs as much as squared gradients of this size (grey levels in [0, 1] a px, a mean over the window) ...
_DETECTION_WEIGHT = 2e-5
# ... and as this share of the window's own: so what adds up from image to image is forgotten after a few of them.
_DETECTION_SHARE = 0.2
_ITERATIONS = 4
_LARGEST_STEP_PX = 1.0
_LAST_STEP_PX = 0.2  # larger, and it has not settled
# Farther from its detection, a point has lost its surroundings or the detector its point.
_FARTHEST_PX = 2.5
_LEAST_CORRELATION = 0.7
_LARGEST_SLOPE = 0.3
_SMALLEST = 1e-12


def align_patches(
    image0: torch.Tensor, image1: torch.Tensor, points0: torch.Tensor, points1: torch.Tensor, slopes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions in the current image from those in the earlier one and what the detector says of the current one.

    Args:
        image0: (H, W) float32 grey in [0, 1], the earlier image.
        image1: (H, W) of the current image.
        points0: (C, 2) px in image 0.
        points1: (C, 2) px in image 1, where the points are detected there.
        slopes: (C, 2, 2), how the shift of a point changes with its place, px a px: the shift of what lies at (C, 2)
            offsets o is that of the point plus o @ slopes.

    Returns:
        (C, 2) float32 px in image 1, and (C,) bool, whether the surroundings are found there; the other rows mean
        nothing.
    """
    count = len(points0)
    reach = torch.arange(-RADIUS_PX - 1, RADIUS_PX + 2, device=points0.device, dtype=points0.dtype)
    offsets = torch.stack(torch.meshgrid(reach, reach, indexing="xy"), dim=-1).reshape(1, -1, 2)
    # To first order, what lies at o in image 1 came from o - o @ slopes.
    origins = offsets - offsets @ slopes.clamp(-_LARGEST_SLOPE, _LARGEST_SLOPE)
    template = sample_bilinear(image0[None, None], (points0[:, None] + origins)[None])[0, 0]
    template = template.reshape(count, len(reach), len(reach))
    along_x = (template[:, 1:-1, 2:] - template[:, 1:-1, :-2]).flatten(1)
    along_y = (template[:, 2:, 1:-1] - template[:, :-2, 1:-1]).flatten(1)
    gradients = torch.stack([along_x, along_y], dim=1) / 2.0
    gradients = gradients - gradients.mean(dim=2, keepdim=True)
    centred = _centred(template[:, 1:-1, 1:-1].flatten(1))
    number = centred.shape[1]
    normal = gradients @ gradients.transpose(1, 2) / number
    own = normal.diagonal(dim1=1, dim2=2).mean(dim=1)
    weight = (_DETECTION_WEIGHT + _DETECTION_SHARE * own)[:, None]
    inverse = _inverse(normal + torch.diag_embed(weight.expand(-1, 2)))
    gradients = gradients / number

    points = points1
    for _ in range(_ITERATIONS):
        difference = centred - _windows(image1, points)
        pull = (gradients * difference[:, None]).sum(dim=2) + weight * (points1 - points)
        step = (inverse * pull[:, None]).sum(dim=2)
        length = step.norm(dim=1)
        points = points + step * (_LARGEST_STEP_PX / length.clamp(min=_LARGEST_STEP_PX))[:, None]
    found = _centred(_windows(image1, points))
    norms = centred.square().sum(dim=1) * found.square().sum(dim=1)
    correlation = (centred * found).sum(dim=1) / norms.sqrt().clamp(min=_SMALLEST)
    is_found = (correlation >= _LEAST_CORRELATION) & (length <= _LAST_STEP_PX)
    is_found &= (points - points1).norm(dim=1) <= _FARTHEST_PX
    return points, is_found & _has_window(points0, image0) & _has_window(points, image1)


def _windows(image: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """(C, S * S) values of the windows around (C, 2) points; of those that leave the image, of windows nearby."""
    height, width = image.shape
    side = 2 * RADIUS_PX + 2
    corner = centres.floor()
    share = (centres - corner)[:, :, None, None]
    x, y = (corner.long() - RADIUS_PX).unbind(1)
    first = y.clamp(0, height - side) * width + x.clamp(0, width - side)
    # All pixels of a window are equally far from the grid: whole rows of it are read, and mixed with two weights.
    rows = first[:, None] + width * torch.arange(side, device=image.device)
    pixels = image.flatten().unfold(0, side, 1).index_select(0, rows.flatten()).reshape(-1, side, side)
    mixed = torch.lerp(pixels[:, :, :-1], pixels[:, :, 1:], share[:, 0])
    return torch.lerp(mixed[:, :-1], mixed[:, 1:], share[:, 1]).flatten(1)


def _centred(windows: torch.Tensor) -> torch.Tensor:
    return windows - windows.mean(dim=1, keepdim=True)


def _inverse(matrices: torch.Tensor) -> torch.Tensor:
    """Of (C, 2, 2) symmetric matrices."""
    (a, b), (_, d) = ((row[:, 0], row[:, 1]) for row in matrices.unbind(1))
    adjugate = torch.stack([d, -b, -b, a], dim=1).reshape(-1, 2, 2)
    return adjugate / (a * d - b * b).clamp(min=_SMALLEST)[:, None, None]


def _has_window(points: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    height, width = image.shape
    x, y = points.unbind(1)
    margin = RADIUS_PX + 1
    return (x >= margin) & (y >= margin) & (x <= width - 1 - margin) & (y <= height - 1 - margin)
