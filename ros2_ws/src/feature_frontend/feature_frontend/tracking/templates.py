"""Each point's surroundings, compared with those in one image of the past: its anchor.

The image before would be nearer, but then each image's error is added to those of all images before. So a point keeps
its anchor as long as what is seen is still much like it, and is anchored anew where it lies when it no longer is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from feature_frontend.tracking.lucas_kanade import align_patches
from feature_frontend.tracking.state import KEPT_IMAGES, TrackState, Views

__all__ = ["DETECTION_SHARE", "Surroundings", "find_surroundings"]

# Of what a window's own gradients weigh, a detection weighs this share: what adds up from anchor to anchor is forgotten
# after a few of them.
DETECTION_SHARE = 0.15
_ANCHORED_CORRELATION = 0.8
# Bending is true to first order only: by more than this, px a px, the anchor is no longer what should be seen.
_ANCHORED_SLOPE = 0.05


@dataclass(frozen=True)
class Surroundings:
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


def find_surroundings(
    state: TrackState,
    views: Views,
    is_wanted: torch.Tensor,
    is_detected: torch.Tensor,
    points: torch.Tensor,
    slopes: torch.Tensor,
    *,
    is_padded: bool,
) -> Surroundings:
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
        return Surroundings(points, none, bent, none, torch.full_like(points[:, 0], torch.nan))
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
    return Surroundings(places, is_found, bent, keeps_anchor, torch.where(is_found, correlation, torch.nan))
