"""Sub-pixel template alignment: Lucas-Kanade at one scale, all points at once.

Uses the gradients of the earlier image, as in Bouguet's form (2001) of Lucas and Kanade (1981), and allows a constant
change of brightness. Where pixels give no information, as along an edge, the detector's position prevails.

The template comes from one earlier image, the point's anchor. The previous image would be more similar, but errors
would accumulate from image to image. So a point keeps its anchor while the image still resembles it, and then gets a
new one at its current position.

With padded shapes, nothing here waits for the device, and no shape depends on values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from feature_frontend.extractors.covariances import PositionNoise, aligned_covariances
from feature_frontend.runtime.cuda_graphs import constants
from feature_frontend.tracking.predictions import Predictions
from feature_frontend.tracking.state import KEPT_IMAGES, TrackState, Views
from feature_frontend.tracking.windows import (
    LENGTH,
    NUM_PIXELS,
    centred_,
    has_window,
    offsets,
    read_differences,
    read_windows,
)

__all__ = ["DETECTION_FRACTION", "Alignment", "TemplateMatch", "align_patches", "approach", "match_templates"]

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
_OF_DIFFERENCE = 0.5  # gradient per px of a difference over two pixels


@dataclass(frozen=True)
class Alignment:
    """Positions of (C,) points in the current image.

    Attributes:
        points: (C, 2) float32 px.
        is_found: (C,) bool, whether the template was found; ignore the other rows.
        correlation: (C,) float32 in [-1, 1], of template and image.
        fit: (C, 4) float32, means over the window: squared gradients xx, xy, yy, and squared residual, per px^2.
    """

    points: torch.Tensor
    is_found: torch.Tensor
    correlation: torch.Tensor
    fit: torch.Tensor


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
    kernels = read_differences(images0, rows0, points0)
    along_x, along_y, template = kernels.unbind(1)
    # Offset o in the later image corresponds to o - o @ slopes in the earlier one; to first order.
    bent = slopes.clamp(-_LARGEST_SLOPE, _LARGEST_SLOPE).permute(2, 0, 1) @ (_OF_DIFFERENCE * offsets(points0))
    template.addcmul_(along_x, bent[0], value=-1.0).addcmul_(along_y, bent[1], value=-1.0)
    centred_(kernels)
    # Products with the kernels become means over the window, of gradients per px.
    scales = constants(kernels, _OF_DIFFERENCE / NUM_PIXELS, _OF_DIFFERENCE / NUM_PIXELS, 1.0 / NUM_PIXELS)
    moments = torch.bmm(kernels, kernels.transpose(1, 2)) * (scales * scales[:, None] * NUM_PIXELS)
    xx, xy, yy = moments[:, 0, 0], moments[:, 0, 1], moments[:, 1, 1]
    gradients = xx, xy, yy
    weight = _prior_weight(xx, yy, fraction)
    xx, yy = xx + weight, yy + weight
    determinant = (xx * yy - xy.square()).clamp(min=_SMALLEST)
    beside = -xy / determinant
    inverse = torch.stack([yy / determinant, beside, beside, xx / determinant], dim=1).reshape(-1, 2, 2)
    wanted, weight = moments[:, 2, :2], weight[:, None]
    moved, only = torch.zeros_like(points1), torch.zeros_like(rows0)
    by_kernel = kernels.transpose(1, 2)
    for _ in range(_ITERATIONS):
        window = read_windows(image1[None], only, points1 + moved)
        products = torch.bmm(window[:, None], by_kernel)[:, 0] * scales
        pull = wanted - products[:, :2] - weight * moved
        step = torch.bmm(inverse, pull[:, :, None])[:, :, 0]
        length = step.norm(dim=1)
        moved = moved + step * (_LARGEST_STEP_PX / length.clamp(min=_LARGEST_STEP_PX))[:, None]
    # The window from before the last step, which is a fraction of a pixel if the point has converged.
    contrast = centred_(window).square_().sum(dim=1) / NUM_PIXELS
    correlation = products[:, 2] / (moments[:, 2, 2] * contrast).sqrt().clamp(min=_SMALLEST)
    points = points1 + moved
    is_found = (correlation >= _LEAST_CORRELATION) & (length <= _LAST_STEP_PX)
    is_found &= moved.norm(dim=1) <= _FARTHEST_PX
    is_found &= has_window(points0, image1) & has_window(points, image1)
    residual = (moments[:, 2, 2] + contrast - 2.0 * products[:, 2]).clamp(min=0.0)
    return Alignment(points, is_found, correlation, torch.stack([*gradients, residual], dim=1))


def _prior_weight(xx: torch.Tensor, yy: torch.Tensor, fraction: torch.Tensor | float) -> torch.Tensor:
    """(C,) weight of a detection or a prediction beside mean squared gradients xx and yy."""
    return _PRIOR_WEIGHT + fraction * (xx + yy) / 2.0


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
        fit: (C, 4) float32, as in `Alignment`; ignore the rows of points that are not found.
    """

    points: torch.Tensor
    is_found: torch.Tensor
    slopes: torch.Tensor
    keeps_anchor: torch.Tensor
    correlation: torch.Tensor
    fit: torch.Tensor

    def covariances(self, detected: torch.Tensor, noise: PositionNoise) -> torch.Tensor:
        """(C, 3) of the points' positions, for those (C, 3) of their maxima on the score map."""
        xx, yy = self.fit[:, 0], self.fit[:, 2]
        weight = _prior_weight(xx, yy, DETECTION_FRACTION)
        aligned = aligned_covariances(self.fit[:, :3], self.fit[:, 3], weight, detected, noise)
        return torch.where(self.is_found[:, None], aligned, noise.alone_factor * detected)

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
        nothing = torch.full_like(points[:, 0], torch.nan)
        return TemplateMatch(points, none, bent, none, nothing, points.new_zeros((len(points), 4)))
    wanted = is_wanted & (state.missed == 0)
    fraction = torch.where(is_detected, DETECTION_FRACTION, 0.0)
    of_points = (views.rows_before(state.anchor_ages), state.anchors, points, fraction, bent)
    if is_padded:
        found = align_patches(views.latest.images, views.image, *of_points)
        is_found, correlation, fit = found.is_found & wanted, found.correlation, found.fit
        places = torch.where(is_found[:, None], found.points, points)
    else:
        rows = wanted.nonzero()[:, 0]
        found = align_patches(views.latest.images, views.image, *(values[rows] for values in of_points))
        is_found = none.index_copy(0, rows, found.is_found)
        correlation = torch.zeros_like(points[:, 0]).index_copy(0, rows, found.correlation)
        fit = points.new_zeros((len(points), 4)).index_copy(0, rows, found.fit)
        places = points.index_copy(0, rows, torch.where(found.is_found[:, None], found.points, points[rows]))
    keeps_anchor = is_found & (correlation >= _ANCHORED_CORRELATION) & (bent.abs().amax(dim=(1, 2)) <= _ANCHORED_SLOPE)
    # The next image overwrites the oldest.
    keeps_anchor &= state.anchor_ages + 2 < KEPT_IMAGES
    return TemplateMatch(places, is_found, bent, keeps_anchor, torch.where(is_found, correlation, torch.nan), fit)


def approach(
    state: TrackState,
    views: Views,
    rows: torch.Tensor,
    predictions: Predictions,
    is_rough: torch.Tensor | None,
    *,
    is_padded: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Chooses among predictions by the image, and comes nearer to the template, both at half the image's size.

    Args:
        state: After the previous image.
        views: The earlier images and the current one.
        rows: (R,) int64, of the points; they were seen in the previous image.
        predictions: Of these points.
        is_rough: (R,) bool, whether to come nearer after the choice: no depth tells where the point is. None for no
            point.
        is_padded: Whether shapes must not depend on what is known.

    Returns:
        (R, 2) px where to start at full size, and (R, 2, 2) slopes since the previous image. The first known
        prediction, unless another one is more similar.
    """
    if not is_padded:
        predictions = predictions.without_unknown()
    anchors = (state.anchors.index_select(0, rows) - 0.5) / 2.0
    of_anchors = views.rows_before(state.anchor_ages.index_select(0, rows))
    earlier = state.anchor_slopes.index_select(0, rows)[:, None]
    every = earlier + predictions.slopes + earlier @ predictions.slopes
    starts = (predictions.points - 0.5) / 2.0
    correlation = _correlations(views, of_anchors, anchors, starts, every)
    is_compared = predictions.is_known & has_window(starts, views.half) & has_window(anchors, views.half)[:, None]
    choice = torch.where(is_compared, correlation, -1.0).max(dim=1)
    chosen = torch.where(choice.values > -1.0, choice.indices, predictions.first())
    points, slopes = predictions.at(chosen)
    if is_rough is None:
        return points, slopes
    bent = earlier[:, 0] + slopes + earlier[:, 0] @ slopes
    none = torch.zeros_like(choice.values)
    aligned = align_patches(views.latest.halves, views.half, of_anchors, anchors, (points - 0.5) / 2.0, none, bent)
    is_nearer = is_rough & aligned.is_found
    return torch.where(is_nearer[:, None], 2.0 * aligned.points + 0.5, points), slopes


def _correlations(
    views: Views, of_anchors: torch.Tensor, anchors: torch.Tensor, places: torch.Tensor, slopes: torch.Tensor
) -> torch.Tensor:
    """(R, H) correlations of templates with H places each, at half the image's size.

    Args:
        views: The earlier images and the current one.
        of_anchors: (R,) int64, rows of the templates' images.
        anchors: (R, 2) px in these.
        places: (R, H, 2) px in the current image.
        slopes: (R, H, 2, 2), gradients of the displacement since the anchor if it leads there, px per px.
    """
    number, count = places.shape[:2]
    read = read_differences(views.latest.halves, of_anchors, anchors)
    # A template bent by slopes is a sum of these; so no template is bent, for all that is needed are products of them.
    parts = read.new_empty((number, 5, LENGTH))
    parts[:, 0].copy_(read[:, 2])
    torch.mul(read[:, :2, None], _OF_DIFFERENCE * offsets(anchors), out=parts[:, 1:].view(number, 2, 2, LENGTH))
    centred_(parts)
    bent = slopes.clamp(-_LARGEST_SLOPE, _LARGEST_SLOPE).transpose(2, 3).flatten(2)
    factors = torch.cat([torch.ones_like(bent[:, :, :1]), -bent], dim=2)
    only = torch.zeros_like(places[:, :, 0], dtype=torch.int64).flatten()
    windows = centred_(read_windows(views.half[None], only, places.flatten(0, 1))).reshape(number, count, LENGTH)
    by_part = parts.transpose(1, 2)
    products = (torch.bmm(windows, by_part) * factors).sum(dim=2)
    of_templates = (torch.bmm(factors, torch.bmm(parts, by_part)) * factors).sum(dim=2)
    norms = of_templates.clamp(min=0.0) * windows.square_().sum(dim=2)
    return products / norms.sqrt().clamp(min=_SMALLEST)
