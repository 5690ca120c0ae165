"""Where the surroundings of points went, to a fraction of a pixel: Lucas-Kanade at one scale, all points at once.

Gradients are those of the earlier image, as in Bouguet's form (2001) of Lucas and Kanade (1981), and brightness may
change by a constant. What the pixels do not tell, as along an edge, stays what the detector says.

Compared is with one image of the past, a point's anchor. The image before would be nearer, but then each image's error
is added to those of all images before. So a point keeps its anchor as long as what is seen is still much like it, and
is anchored anew where it lies when it no longer is.

Nothing here waits for the device, and no shape depends on values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from feature_frontend.tracking.state import KEPT_IMAGES, TrackState, Views

__all__ = ["DETECTION_SHARE", "Alignment", "TemplateMatch", "align_patches", "match_templates"]

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


# Of what a window's own gradients weigh, a detection weighs this share: what adds up from anchor to anchor is forgotten
# after a few of them.
DETECTION_SHARE = 0.15
_ANCHORED_CORRELATION = 0.8
# Bending is true to first order only: by more than this, px a px, the anchor is no longer what should be seen.
_ANCHORED_SLOPE = 0.05


@dataclass(frozen=True)
class TemplateMatch:
    """What became of the surroundings of (C,) points.

    Attributes:
        points: (C, 2) float32 px in the current image.
        is_found: (C,) bool; the points of the others are where they were thought to be.
        slopes: (C, 2, 2), how the shift since the anchor changes with the place, px a px.
        keeps_anchor: (C,) bool, whether the next image can be compared with the same anchor.
        correlation: (C,) float32 in [-1, 1], how alike they are; NaN where they are not found.
    """

    points: torch.Tensor
    is_found: torch.Tensor
    slopes: torch.Tensor
    keeps_anchor: torch.Tensor
    correlation: torch.Tensor

    def anchored(self, state: TrackState, points: torch.Tensor) -> dict[str, torch.Tensor]:
        """The anchors of the next state: those of `state`, or where the (C, 2) points are now."""
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
    """Looks for the surroundings of the points that were seen in the image before.

    Args:
        state: Of the image before.
        views: What that image showed, where there was one, and the current one.
        is_wanted: (C,) bool, the points to look for.
        is_detected: (C,) bool, whether `points` are detections, which are a second opinion; a prediction only says
            where to begin.
        points: (C, 2) px, where the points are detected in the current image, or predicted.
        slopes: (C, 2, 2), how the shift since the image before changes with the place, px a px.
        is_padded: Whether no shape may depend on how many are wanted.
    """
    none = torch.zeros_like(is_wanted)
    # What lies at an offset o from the anchor lay at o + o @ A in the image before, and is moved from there.
    bent = state.anchor_slopes + slopes + state.anchor_slopes @ slopes
    if not views.compare:
        return TemplateMatch(points, none, bent, none, torch.full_like(points[:, 0], torch.nan))
    wanted = is_wanted & (state.missed == 0)
    share = torch.where(is_detected, DETECTION_SHARE, 0.0)
    of_points = (views.rows_before(state.anchor_ages), state.anchors, points, share, bent)
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
    # The image after this one takes the place of the oldest.
    keeps_anchor &= state.anchor_ages + 2 < KEPT_IMAGES
    return TemplateMatch(places, is_found, bent, keeps_anchor, torch.where(is_found, correlation, torch.nan))
