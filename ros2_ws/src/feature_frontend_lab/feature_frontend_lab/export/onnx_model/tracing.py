"""Steps of the graphs that hold for every size and batch: torch's tracer would make numbers of Python constants.

Every operator is among those that inference engines have: no loops, no conditions, no shapes that depend on the image's
content. Sampling is GridSample, maxima are MaxPool, the best are TopK.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from feature_frontend.extractors.base import DetectionOptions
from feature_frontend.extractors.networks.layers.keypoint_detection import REFINEMENT_TEMPERATURE

__all__ = ["Margins", "Selection", "corner_weights", "grid_of", "refine", "sample", "select_pixels", "size_of"]

_EXTRA_ROUNDS = 2  # as in layers.keypoint_detection


@dataclass(frozen=True)
class Margins:
    """What makes an image's sides multiples of a stride: as `feature_frontend.image.resize.Padding`, but traced."""

    left: torch.Tensor
    right: torch.Tensor
    top: torch.Tensor
    bottom: torch.Tensor

    @classmethod
    def of(cls, image: torch.Tensor, multiple: int) -> Margins:
        """The margins of (B, C, H, W) images; an odd pixel is added right and below."""
        extra_height, extra_width = (_missing_to(multiple, _side(image, dim)) for dim in (2, 3))
        left, top = _divided(extra_width, 2), _divided(extra_height, 2)
        return cls(left, extra_width - left, top, extra_height - top)

    def pad(self, image: torch.Tensor) -> torch.Tensor:
        """Pads by repeating the outermost pixels."""
        margins: list[Any] = [self.left, self.right, self.top, self.bottom]
        return functional.pad(image, margins, mode="replicate")

    def crop(self, maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Removes the margins from padded maps; `like` has the size of the unpadded image."""
        bottom, right = self.top + like.shape[2], self.left + like.shape[3]
        return maps[:, :, self.top : bottom, self.left : right]

    def shift(self) -> torch.Tensor:
        """(2,) float32 (x, y), what is added to a point of the unpadded image."""
        return torch.stack([self.left, self.top]).float()

    def padded_size(self, image: torch.Tensor) -> torch.Tensor:
        """(2,) float32 (width, height) of the padded images."""
        return size_of(image) + torch.stack([self.left + self.right, self.top + self.bottom]).float()


def _side(maps: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.as_tensor(maps.shape[dim])


def size_of(maps: torch.Tensor) -> torch.Tensor:
    """(2,) float32 (width, height) of (B, C, H, W) maps."""
    return torch.stack([_side(maps, 3), _side(maps, 2)]).float()


def grid_of(points: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """GridSample's coordinates (without aligned corners) of points (x, y) px; valid for a side of one pixel, too."""
    return (points * 2.0 + 1.0) / size - 1.0


def sample(maps: torch.Tensor, grid: torch.Tensor, outside: str = "zeros") -> torch.Tensor:
    """(B, C, P, Q) bilinear values of (B, C, H, W) maps at (B, P, Q, 2) coordinates by `grid_of`."""
    return functional.grid_sample(maps, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def corner_weights(points: torch.Tensor, size: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The four pixels around each point and their bilinear weights; a corner outside the map has weight zero.

    Args:
        points: (B, P, 2) float32, (x, y) px.
        size: (2,) of the map, by `size_of`.

    Returns:
        (B, 4, P, 2) pixels (x, y), all inside the map, and (B, 4, P) weights.
    """
    steps = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).reshape(1, 4, 1, 2)
    corners = points.floor().unsqueeze(1) + steps
    near = 1.0 - (corners - points.unsqueeze(1)).abs()
    is_inside = ((corners >= 0.0) & (corners <= size - 1.0)).float()
    weights = near[..., 0] * near[..., 1] * is_inside[..., 0] * is_inside[..., 1]
    return torch.minimum(corners.clamp(min=0.0), size - 1.0), weights


@dataclass(frozen=True)
class Selection:
    """The best pixels of a batch of score maps, as many rows as the budget; the valid ones come first.

    Attributes:
        columns: (B, K) int64, px.
        rows: (B, K) int64, px.
        scores: (B, K) float32, of these pixels.
        is_valid: (B, K) bool.
    """

    columns: torch.Tensor
    rows: torch.Tensor
    scores: torch.Tensor
    is_valid: torch.Tensor


def select_pixels(score_maps: torch.Tensor, options: DetectionOptions, border: int, inset: int) -> Selection:
    """The best pixels of (B, 1, H, W) score maps, best first.

    Args:
        score_maps: Scores in [0, 1].
        options: Budget, threshold and radius.
        border: Rows and columns at each edge without keypoints.
        inset: Rows and columns at each edge where padding does not lie either.
    """
    budget = options.max_num_keypoints
    maxima = _suppress_non_maxima(score_maps, options.nms_radius) if options.nms_radius else score_maps
    if border:
        maxima = functional.pad(maxima[:, :, border:-border, border:-border], [border] * 4)
    batch = score_maps.shape[0]
    # TopK wants at least as many elements as it returns.
    candidates = functional.pad(maxima.reshape(batch, -1), [0, budget])
    scores, positions = candidates.topk(budget, dim=1)
    width, height = _side(score_maps, 3), _side(score_maps, 2)
    rows = _divided(positions, width)
    columns = _limited(positions - rows * width, inset, width - 1 - inset)
    rows = _limited(rows, inset, height - 1 - inset)
    return Selection(columns, rows, scores, scores > options.detection_threshold)


def refine(score_maps: torch.Tensor, selection: Selection, radius: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sub-pixel positions (B, K, 2) px by a soft-argmax around the pixels, and the scores (B, K) there."""
    batch, budget = selection.columns.shape
    reach = torch.arange(-radius, radius + 1)
    dy, dx = (offsets.reshape(-1) for offsets in torch.meshgrid(reach, reach, indexing="ij"))
    width = _side(score_maps, 3)
    positions = (selection.rows * width + selection.columns).unsqueeze(2) + (dy * width + dx)
    around = score_maps.reshape(batch, -1).gather(1, positions.reshape(batch, -1)).reshape(batch, budget, -1)
    weights = torch.softmax(around / REFINEMENT_TEMPERATURE, dim=2)
    pixels = torch.stack([selection.columns, selection.rows], dim=2).float()
    keypoints = pixels + weights @ torch.stack([dx, dy], dim=1).float()
    scores = sample(score_maps, grid_of(keypoints, size_of(score_maps)).unsqueeze(1))
    return keypoints, scores.reshape(batch, budget)


def _missing_to(multiple: int, side: torch.Tensor) -> torch.Tensor:
    return _divided(side + multiple - 1, multiple) * multiple - side


def _divided(numbers: torch.Tensor, divisor: torch.Tensor | int) -> torch.Tensor:
    """Integer quotient of numbers that are not negative: one operator; rounding down takes ten."""
    return torch.div(numbers, divisor, rounding_mode="trunc")


def _limited(numbers: torch.Tensor, least: int, most: torch.Tensor) -> torch.Tensor:
    """Clip is for floats in TensorRT, Max and Min are for integers as well."""
    return torch.minimum(torch.maximum(numbers, torch.tensor(least)), most)


def _maximum_filter(maps: torch.Tensor, radius: int) -> torch.Tensor:
    return functional.max_pool2d(maps, 2 * radius + 1, stride=1, padding=radius)


def _suppress_non_maxima(score_maps: torch.Tensor, radius: int) -> torch.Tensor:
    """As `layers.keypoint_detection.suppress_non_maxima`."""
    nothing = torch.zeros(())
    is_maximum = score_maps == _maximum_filter(score_maps, radius)
    for _ in range(_EXTRA_ROUNDS):
        is_suppressed = _maximum_filter(is_maximum.float(), radius) > 0.0
        remaining = torch.where(is_suppressed, nothing, score_maps)
        is_maximum = is_maximum | ((remaining == _maximum_filter(remaining, radius)) & ~is_suppressed)
    return torch.where(is_maximum, score_maps, nothing)
