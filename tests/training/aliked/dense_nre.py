"""The dense neural reprojection error, which the paper's sparse one replaces: the comparison of Table VIII.

ALIKED has no dense descriptor map and is not trained with it; it is here for measurements only.
"""

from __future__ import annotations

import torch

from feature_frontend.extractors.networks.layers.sampling import corner_weights
from feature_frontend_lab.training.aliked.losses import PAPER_DESCRIPTOR_TEMPERATURE

__all__ = ["dense_nre_loss"]


def dense_nre_loss(
    descriptors: torch.Tensor,
    descriptor_map: torch.Tensor,
    warped: torch.Tensor,
    visible: torch.Tensor,
    temperature: float = PAPER_DESCRIPTOR_TEMPERATURE,
) -> torch.Tensor:
    """Dense neural reprojection error of the keypoints of one image (ALIKE, and Germain et al., CVPR 2021).

        q_m(d_A, x) = softmax over all pixels x of (<D_B(x), d_A> - 1) / t_des
        L(p_A, I_B) = -sum_x q_r(p_AB, x) ln q_m(d_A, x)

    with the bilinear weights of the four pixels around p_AB as q_r. Averaged over the visible keypoints; 0 for none.

    Args:
        descriptors: (N, D), of length 1: d_A.
        descriptor_map: (D, H, W), of length 1 along D: D_B.
        warped: (N, 2) px in image 1, p_AB.
        visible: (N,) bool, whether image 1 shows the point.
        temperature: t_des.
    """
    height, width = descriptor_map.shape[1:]
    # The paper's -1 cancels in the softmax.
    likelihoods = torch.log_softmax(descriptors[visible] @ descriptor_map.flatten(1) / temperature, dim=1)
    pixels, weights = corner_weights(warped[visible], height, width)
    at_corners = likelihoods.gather(1, pixels[..., 1] * width + pixels[..., 0])
    return -(at_corners * weights).sum() / max(int(visible.sum()), 1)
