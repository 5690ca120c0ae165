"""Sub-pixel template alignment: Lucas-Kanade at one scale, all points at once.

Uses the gradients of the earlier image, as in Bouguet's form (2001) of Lucas and Kanade (1981), and allows a constant
change of brightness. Where pixels give no information, as along an edge, the detector's position prevails.

The template comes from one earlier image, the point's anchor. The previous image would be more similar, but errors
would accumulate from image to image. So a point keeps its anchor while the image still resembles it, and then gets a
new one at its current position.

Nothing here waits for the device, and no shape depends on values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from feature_frontend.tracking.predictions import Predictions
from feature_frontend.tracking.state import KEPT_IMAGES, TrackState, Views

__all__ = ["DETECTION_FRACTION", "Alignment", "TemplateMatch", "align_patches", "approach", "match_templates"]

RADIUS_PX = 6
# Minimum weight of a detection or a prediction: equals a mean squared gradient of this size over the window (grey
# levels in [0, 1] per px).
_PRIOR_WEIGHT = 2e-5
_ITERATIONS = 4
_LARGEST_STEP_PX = 1.0
_LAST_STEP_PX = 0.3  # a larger last step has not converged
# Farther from its detection, either the template or the detection is wrong.
_FARTHEST_PX = 2.5
_LEAST_CORRELATION = 0.7
_LARGEST_SLOPE = 0.3
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Alignment:
    """Positions of (C,) points in the current image.

    Attributes:
        points: (C, 2) float32 px.
        is_found: (C,) bool, whether the template was found; ignore the other rows.
        correlation: (C,) float32 in [-1, 1], of template and image.
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
    fraction: torch.Tensor,
    slopes: torch.Tensor,
) -> Alignment:
    """Aligns templates of earlier images with the current one, starting from detections or predictions.

    Args:
        images0: (N, H, W) float32 grey in [0, 1], earlier images.
        image1: (H, W) of the current image.
        rows0: (C,) int64, the earlier image of each point.
        points0: (C, 2) px in that image.
        points1: (C, 2) px in image 1, detected or predicted.
        fraction: (C,), weight of `points1` as a fraction of the weight of the window's own gradients.
        slopes: (C, 2, 2), gradient of the displacement, px per px: at (C, 2) offsets o from the point, the
            displacement is that of the point plus o @ slopes.
    """
    template, along_x, along_y = _bent_templates(images0, rows0, points0, slopes[:, None])
    template = template[:, 0]
    along_x, along_y = _centred(along_x), _centred(along_y)
    xx, xy, yy = (along_x.square().mean(dim=1), (along_x * along_y).mean(dim=1), along_y.square().mean(dim=1))
    weight = _PRIOR_WEIGHT + fraction * (xx + yy) / 2.0
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
    # The window from before the last step, which is a fraction of a pixel if the point has converged.
    window = _centred(window)
    norms = template.square().sum(dim=1) * window.square().sum(dim=1)
    correlation = (template * window).sum(dim=1) / norms.sqrt().clamp(min=_SMALLEST)
    is_found = (correlation >= _LEAST_CORRELATION) & (length <= _LAST_STEP_PX)
    is_found &= (points - points1).norm(dim=1) <= _FARTHEST_PX
    is_found &= _has_window(points0, image1) & _has_window(points, image1)
    return Alignment(points, is_found, correlation)


def _bent_templates(
    images: torch.Tensor, rows: torch.Tensor, points: torch.Tensor, slopes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Templates as later images show them, to first order.

    Args:
        images: (N, H, W).
        rows: (C,) int64, the image of each point.
        points: (C, 2) px.
        slopes: (C, H, 2, 2), H different gradients of the displacement since then, px per px.

    Returns:
        (C, H, S * S) centred templates, and (C, S * S) their gradients along x and along y before.
    """
    template = _windows(images, rows, points, RADIUS_PX + 1)
    along_x = ((template[:, 1:-1, 2:] - template[:, 1:-1, :-2]) / 2.0).flatten(1)
    along_y = ((template[:, 2:, 1:-1] - template[:, :-2, 1:-1]) / 2.0).flatten(1)
    # Offset o in the later image corresponds to o - o @ slopes in the earlier one.
    reach = torch.arange(-RADIUS_PX, RADIUS_PX + 1, device=points.device, dtype=points.dtype)
    x, y = (side.flatten() for side in torch.meshgrid(reach, reach, indexing="xy"))
    # Of one moment of the template and its gradients each: a product of small matrices for all H.
    by_slope = torch.stack([x * along_x, y * along_x, x * along_y, y * along_y], dim=1)
    bent = slopes.clamp(-_LARGEST_SLOPE, _LARGEST_SLOPE).transpose(2, 3).flatten(2)
    template = template[:, 1:-1, 1:-1].flatten(1)[:, None] - bent @ by_slope
    return _centred(template), along_x, along_y


def _windows(images: torch.Tensor, rows: torch.Tensor, centres: torch.Tensor, radius: int) -> torch.Tensor:
    """(C, S, S) windows around (C, 2) points; windows that leave the image are moved inside.

    Args:
        images: (N, H, W).
        rows: (C,) int64, the image of each point.
        centres: (C, 2) px.
        radius: Px.
    """
    height, width = images.shape[1:]
    side = 2 * radius + 2
    corner = centres.floor()
    fraction = (centres - corner)[:, :, None, None]
    x, y = (corner.long() - radius).unbind(1)
    first = (rows * height + y.clamp(0, height - side)) * width + x.clamp(0, width - side)
    # All pixels of a window have the same sub-pixel offset: read whole rows and interpolate with two weights.
    starts = first[:, None] + width * torch.arange(side, device=images.device)
    pixels = images.flatten().unfold(0, side, 1).index_select(0, starts.flatten()).reshape(-1, side, side)
    mixed = torch.lerp(pixels[:, :, :-1], pixels[:, :, 1:], fraction[:, 0])
    return torch.lerp(mixed[:, :-1], mixed[:, 1:], fraction[:, 1])


def _centred(windows: torch.Tensor) -> torch.Tensor:
    return windows - windows.mean(dim=-1, keepdim=True)


def _has_window(points: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    height, width = image.shape
    x, y = points.unbind(-1)
    margin = RADIUS_PX + 1
    return (x >= margin) & (y >= margin) & (x <= width - 1 - margin) & (y <= height - 1 - margin)


# Weight of a detection as a fraction of the weight of the window's own gradients: it stops drift that accumulates from
# anchor to anchor.
DETECTION_FRACTION = 0.15
_ANCHORED_CORRELATION = 0.8
# The first-order warp holds only for small slopes: beyond this, px per px, the anchor no longer fits.
_ANCHORED_SLOPE = 0.05


@dataclass(frozen=True)
class TemplateMatch:
    """The result of matching the templates of (C,) points.

    Attributes:
        points: (C, 2) float32 px in the current image.
        is_found: (C,) bool; the others keep their detected or predicted position.
        slopes: (C, 2, 2), gradient of the displacement since the anchor, px per px.
        keeps_anchor: (C,) bool, whether the next image can use the same anchor.
        correlation: (C,) float32 in [-1, 1], of template and image; NaN if not found.
    """

    points: torch.Tensor
    is_found: torch.Tensor
    slopes: torch.Tensor
    keeps_anchor: torch.Tensor
    correlation: torch.Tensor

    def anchored(self, state: TrackState, points: torch.Tensor) -> dict[str, torch.Tensor]:
        """The anchors of the next state: those of `state`, or the current (C, 2) points."""
        return {
            "anchors": torch.where(self.keeps_anchor[:, None], state.anchors, points),
            "anchor_ages": torch.where(self.keeps_anchor, state.anchor_ages + 1, 0),
            "anchor_slopes": torch.where(self.keeps_anchor[:, None, None], self.slopes, 0.0),
        }


def match_templates(
    state: TrackState,
    views: Views,
    is_wanted: torch.Tensor,
    is_detected: torch.Tensor,
    points: torch.Tensor,
    slopes: torch.Tensor,
    *,
    is_padded: bool,
) -> TemplateMatch:
    """Matches the templates of the points that were seen in the previous image.

    Args:
        state: After the previous image.
        views: The earlier images, if any, and the current one.
        is_wanted: (C,) bool, the points to match.
        is_detected: (C,) bool, whether `points` are detections, which also count as measurements; a prediction is only
            the start value.
        points: (C, 2) px in the current image, detected or predicted.
        slopes: (C, 2, 2), gradient of the displacement since the previous image, px per px.
        is_padded: Whether shapes must not depend on the number of wanted points.
    """
    none = torch.zeros_like(is_wanted)
    # Offset o from the anchor was at o + o @ A in the previous image: compose both warps.
    bent = state.anchor_slopes + slopes + state.anchor_slopes @ slopes
    if not views.compare:
        return TemplateMatch(points, none, bent, none, torch.full_like(points[:, 0], torch.nan))
    wanted = is_wanted & (state.missed == 0)
    fraction = torch.where(is_detected, DETECTION_FRACTION, 0.0)
    of_points = (views.rows_before(state.anchor_ages), state.anchors, points, fraction, bent)
    if is_padded:
        found = align_patches(views.latest.images, views.image, *of_points)
        is_found, correlation = found.is_found & wanted, found.correlation
        places = torch.where(is_found[:, None], found.points, points)
    else:
        rows = wanted.nonzero()[:, 0]
        found = align_patches(views.latest.images, views.image, *(values[rows] for values in of_points))
        is_found = none.index_copy(0, rows, found.is_found)
        correlation = torch.zeros_like(points[:, 0]).index_copy(0, rows, found.correlation)
        places = points.index_copy(0, rows, torch.where(found.is_found[:, None], found.points, points[rows]))
    keeps_anchor = is_found & (correlation >= _ANCHORED_CORRELATION) & (bent.abs().amax(dim=(1, 2)) <= _ANCHORED_SLOPE)
    # The next image overwrites the oldest.
    keeps_anchor &= state.anchor_ages + 2 < KEPT_IMAGES
    return TemplateMatch(places, is_found, bent, keeps_anchor, torch.where(is_found, correlation, torch.nan))


def approach(
    state: TrackState, views: Views, rows: torch.Tensor, predictions: Predictions, is_rough: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Chooses among predictions by the image, and comes nearer to the template, both at half the image's size.

    Args:
        state: After the previous image.
        views: The earlier images and the current one.
        rows: (R,) int64, of the points; they were seen in the previous image.
        predictions: Of these points.
        is_rough: (R,) bool, whether to come nearer after the choice: no depth tells where the point is. None for no
            point.

    Returns:
        (R, 2) px where to start at full size, and (R, 2, 2) slopes since the previous image. The first known
        prediction, unless another one is more similar.
    """
    number, count = predictions.is_known.shape
    anchors = (state.anchors.index_select(0, rows) - 0.5) / 2.0
    of_anchors = views.rows_before(state.anchor_ages.index_select(0, rows))
    earlier = state.anchor_slopes.index_select(0, rows)[:, None]
    every = earlier + predictions.slopes + earlier @ predictions.slopes
    templates, _, _ = _bent_templates(views.latest.halves, of_anchors, anchors, every)
    starts = (predictions.points - 0.5) / 2.0
    places = starts.flatten(0, 1)
    windows = _centred(_windows(views.half[None], torch.zeros_like(places[:, 0]).long(), places, RADIUS_PX).flatten(1))
    windows = windows.reshape(number, count, windows.shape[1])
    norms = templates.square().sum(dim=2) * windows.square().sum(dim=2)
    correlation = (templates * windows).sum(dim=2) / norms.sqrt().clamp(min=_SMALLEST)
    is_compared = predictions.is_known & _has_window(starts, views.half) & _has_window(anchors, views.half)[:, None]
    choice = torch.where(is_compared, correlation, -1.0).max(dim=1)
    chosen = torch.where(choice.values > -1.0, choice.indices, predictions.first())
    points, slopes = predictions.at(chosen)
    if is_rough is None:
        return points, slopes
    bent = earlier[:, 0] + slopes + earlier[:, 0] @ slopes
    none = torch.zeros_like(points[:, 0])
    aligned = align_patches(views.latest.halves, views.half, of_anchors, anchors, (points - 0.5) / 2.0, none, bent)
    is_nearer = is_rough & aligned.is_found
    return torch.where(is_nearer[:, None], 2.0 * aligned.points + 0.5, points), slopes
