"""The losses of ALIKED (paper, Section V) as pure functions; equation numbers are the paper's.

A and B are image 0 and image 1 here. Keypoints, scores, descriptors and partners of an image correspond row by row. A
partner is the row of the other image's keypoint that shows the same point; -1 for none (`find_partners`).
"""

from __future__ import annotations

import torch

__all__ = [
    "PAPER_DESCRIPTOR_TEMPERATURE",
    "PAPER_RELIABILITY_TEMPERATURE",
    "PAPER_TRUTH_RADIUS_PX",
    "find_partners",
    "matching_success",
    "peak_loss",
    "reliability_loss",
    "reprojection_loss",
    "sparse_nre_loss",
]

PAPER_DESCRIPTOR_TEMPERATURE = 0.1  # t_des
PAPER_RELIABILITY_TEMPERATURE = 1.0  # t_rel
PAPER_TRUTH_RADIUS_PX = 5.0  # th_gt


@torch.no_grad()
def find_partners(
    warped: torch.Tensor, visible: torch.Tensor, others: torch.Tensor, others_visible: torch.Tensor, radius_px: float
) -> torch.Tensor:
    """Finds the true partner of each keypoint of one image among the keypoints of the other (V-A).

    This is the nearest p_B to p_AB, if |p_B - p_AB| < th_gt. A p_B that the first image cannot show has no p_BA, which
    equation 7 requires, and is never a partner.

    Args:
        warped: (N, 2) px, position of each keypoint in the other image.
        visible: (N,) bool, whether it is inside the other image.
        others: (M, 2) px, the other image's keypoints.
        others_visible: (M,) bool, whether they are inside the first image.
        radius_px: th_gt.

    Returns:
        (N,) int64 rows of `others`, -1 for none.
    """
    if min(len(warped), len(others)) == 0:
        return torch.full((len(warped),), -1, dtype=torch.int64, device=warped.device)
    distances = (warped[:, None] - others[None]).norm(dim=2)
    distances = distances.masked_fill(~others_visible[None], torch.inf)
    nearest, rows = distances.min(dim=1)
    return torch.where(visible & (nearest < radius_px), rows, -1)


def reprojection_loss(
    keypoints0: torch.Tensor,
    keypoints1: torch.Tensor,
    warped0: torch.Tensor,
    warped1: torch.Tensor,
    partners0: torch.Tensor,
    partners1: torch.Tensor,
) -> torch.Tensor:
    """Mean reprojection distance between partners, px.

        L_rp(p_A, p_B) = (|p_A - p_BA| + |p_B - p_AB|) / 2                                              (7)

    averaged over the keypoints of both images that have a partner; 0 if none has.

    Args:
        keypoints0: (N0, 2) px, p_A.
        keypoints1: (N1, 2) px, p_B.
        warped0: (N0, 2) px in image 1, p_AB of equation 6.
        warped1: (N1, 2) px in image 0, p_BA.
        partners0: (N0,) int64.
        partners1: (N1,) int64.
    """
    rows0, rows1 = _pairs_of_both_searches(partners0, partners1)
    back = (keypoints0[rows0] - warped1[rows1]).norm(dim=1)
    forth = (keypoints1[rows1] - warped0[rows0]).norm(dim=1)
    total: torch.Tensor = (back + forth).sum()
    return total / (2 * max(len(rows0), 1))


def peak_loss(
    window_scores: torch.Tensor, window_positions: torch.Tensor, keypoints: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Spread of the scores around keypoints, px.

        L_pk(p) = softmax(s_p / t_det) . |p - c|                                                        (8)

    averaged over the keypoints; 0 if there are none. The paper writes the softmax without a temperature, but VI-A
    specifies t_det = 0.1; without it, scores in [0, 1] would have nearly equal weights. The paper also writes
    "mean(...)" around what it calls a dot product, which is already a scalar: the expected distance.

    Args:
        window_scores: (N, W * W) scores in [0, 1] of the window around each keypoint.
        window_positions: (N, W * W, 2) px, their positions: c.
        keypoints: (N, 2) px.
        temperature: t_det.
    """
    distances = (keypoints[:, None] - window_positions).norm(dim=2)
    spread: torch.Tensor = (torch.softmax(window_scores / temperature, dim=1) * distances).sum(dim=1)
    return spread.sum() / max(len(keypoints), 1)


def sparse_nre_loss(
    descriptors0: torch.Tensor,
    descriptors1: torch.Tensor,
    partners0: torch.Tensor,
    partners1: torch.Tensor,
    temperature: float = PAPER_DESCRIPTOR_TEMPERATURE,
) -> torch.Tensor:
    """Sparse neural reprojection error: negative log-likelihood of the true partners as matches.

        sim(d_A, D_B) = D_B d_A                                                                         (9)
        q_m(d_A, D_B) = softmax((sim(d_A, D_B) - 1) / t_des)                                           (10)
        L_ds(p_A, I_B) = -ln q_m(d_A, d_B)                                                             (11)

    averaged over the descriptors of both images whose keypoints have a partner; 0 if none has.

    Args:
        descriptors0: (N0, D), of length 1.
        descriptors1: (N1, D), of length 1.
        partners0: (N0,) int64.
        partners1: (N1,) int64.
        temperature: t_des.
    """
    # The paper's -1 cancels in the softmax.
    similarities = descriptors0 @ descriptors1.t() / temperature
    likelihoods0 = _of_partners(torch.log_softmax(similarities, dim=1), partners0)
    likelihoods1 = _of_partners(torch.log_softmax(similarities.t(), dim=1), partners1)
    count = int((partners0 >= 0).sum() + (partners1 >= 0).sum())
    return -(likelihoods0.sum() + likelihoods1.sum()) / max(count, 1)


def reliability_loss(
    scores: tuple[torch.Tensor, torch.Tensor],
    descriptors: tuple[torch.Tensor, torch.Tensor],
    partners: tuple[torch.Tensor, torch.Tensor],
    visible: tuple[torch.Tensor, torch.Tensor],
    temperature: float = PAPER_RELIABILITY_TEMPERATURE,
) -> torch.Tensor:
    """Mean score of keypoints that cannot be matched reliably.

        r(p_A, I_B) = softmax(sim(d_A, D_B) / t_rel)                                                   (12)
        L_re(S_A, I_B) = sum_A (1 - r(p_A, I_B)) s_A / sum_A s_A                                       (13)

    averaged over the two images. Equation 12 is a vector, but equation 13 needs a number: the entry of the partner. A
    keypoint without a partner has reliability 0 if its point is inside the other image; otherwise, both sums exclude
    it.

    Args:
        scores: (N0,) and (N1,) in [0, 1], s at the keypoints.
        descriptors: (N0, D) and (N1, D), of length 1.
        partners: (N0,) and (N1,) int64.
        visible: (N0,) and (N1,) bool, whether the keypoint's point is inside the other image.
        temperature: t_rel.
    """
    similarities = descriptors[0] @ descriptors[1].t() / temperature
    losses = []
    for own, side in enumerate((similarities, similarities.t())):
        reliability = _of_partners(torch.softmax(side, dim=1), partners[own])
        chosen = scores[own] * visible[own]
        tiny = torch.finfo(chosen.dtype).tiny
        losses.append(((1 - reliability) * chosen).sum() / chosen.sum().clamp(min=tiny))
    return (losses[0] + losses[1]) / 2


@torch.no_grad()
def matching_success(
    descriptors0: torch.Tensor, descriptors1: torch.Tensor, partners0: torch.Tensor, partners1: torch.Tensor
) -> torch.Tensor:
    """Fraction in [0, 1] of the mutual partners whose descriptors are mutual nearest neighbours; 0 if there are none.

    Args:
        descriptors0: (N0, D), of length 1.
        descriptors1: (N1, D), of length 1.
        partners0: (N0,) int64.
        partners1: (N1,) int64.
    """
    rows0 = (partners0 >= 0).nonzero()[:, 0]
    rows0 = rows0[partners1[partners0[rows0]] == rows0]
    if len(rows0) == 0:
        return descriptors0.new_zeros(())
    rows1 = partners0[rows0]
    similarities = descriptors0 @ descriptors1.t()
    matched = (similarities.argmax(dim=1)[rows0] == rows1) & (similarities.argmax(dim=0)[rows1] == rows0)
    return matched.to(descriptors0.dtype).mean()


def _pairs_of_both_searches(partners0: torch.Tensor, partners1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in image 0 and image 1 of all (keypoint, partner) pairs; mutual partners occur twice."""
    from0, from1 = (partners0 >= 0).nonzero()[:, 0], (partners1 >= 0).nonzero()[:, 0]
    return torch.cat([from0, partners1[from1]]), torch.cat([partners0[from0], from1])


def _of_partners(values: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
    """(N,) the entry of each row's partner in (N, M) `values`; 0 if it has none."""
    entries = values.gather(1, partners.clamp(min=0)[:, None])[:, 0]
    return torch.where(partners >= 0, entries, 0.0)
