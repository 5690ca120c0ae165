"""The losses of distillation as pure functions; the student's own keypoints have ALIKED's losses besides."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["contrast_losses", "score_loss"]

# Few pixels are keypoints; this is how much more a pixel that the teacher is sure of counts.
_KEYPOINT_WEIGHT = 8.0


def score_loss(logits: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Cross-entropy between the student's and the teacher's scores, the mean over pixels with weights 1 + 8 t.

    Args:
        logits: (..., S, S), the student's.
        scores: (..., S, S) in [0, 1], the teacher's: t.
    """
    weights = 1 + _KEYPOINT_WEIGHT * scores
    entropies = functional.binary_cross_entropy_with_logits(logits, scores, weight=weights, reduction="sum")
    return entropies / weights.sum()


def contrast_losses(
    descriptors: tuple[torch.Tensor, torch.Tensor],
    points: tuple[torch.Tensor, torch.Tensor],
    taught: tuple[torch.Tensor, torch.Tensor],
    temperature: float,
    radius_px: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Contrast between the same and different points, and imitation of the teacher's similarities.

    With the probabilities p_ij, a softmax over j of the similarities of point i in one view and point j in the other
    divided by the temperature, and those of the teacher q_ij:

        contrast  = -mean_i ln p_ii               (InfoNCE)
        imitation = -mean_i sum_j q_ij ln p_ij    over the teacher's points

    both averaged over the two directions. Points j that are near point i in either view are left out for i.

    Args:
        descriptors: (N, D) of view 0 and of view 1, L2-normalised, row by row the same points.
        points: (N, 2) px in each view.
        taught: (P, D') of each view, P <= N, the teacher's descriptors of the first P points.
        temperature: Of student and teacher.
        radius_px: Distance up to which points are near.

    Returns:
        Both losses; 0 without points.
    """
    count, num_taught = len(descriptors[0]), len(taught[0])
    if count == 0:
        nothing = descriptors[0].sum() * 0
        return nothing, nothing
    is_near = torch.cdist(points[0], points[0]) < radius_px
    is_near |= torch.cdist(points[1], points[1]) < radius_px
    is_near.fill_diagonal_(False)
    similarities = (descriptors[0] @ descriptors[1].t() / temperature).masked_fill(is_near, -torch.inf)
    contrast = (_on_diagonal(similarities) + _on_diagonal(similarities.t())) / 2
    if num_taught == 0:
        return contrast, contrast * 0
    own = similarities[:num_taught, :num_taught]
    is_near = is_near[:num_taught, :num_taught]
    theirs = (taught[0] @ taught[1].t() / temperature).masked_fill(is_near, -torch.inf)
    imitation = (_imitation(own, theirs) + _imitation(own.t(), theirs.t())) / 2
    return contrast, imitation


def _on_diagonal(similarities: torch.Tensor) -> torch.Tensor:
    return -torch.log_softmax(similarities, dim=1).diagonal().mean()


def _imitation(own: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    likelihoods = torch.log_softmax(own, dim=1)
    # What is left out has the probability 0 and the logarithm -inf: no product of the two.
    return -(torch.softmax(theirs, dim=1) * likelihoods.masked_fill(own.isneginf(), 0.0)).sum(dim=1).mean()
