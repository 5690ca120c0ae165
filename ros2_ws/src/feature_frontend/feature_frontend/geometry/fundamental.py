"""The epipolar geometry of pairs that are mostly correct, on any device.

Unlike with RANSAC, shapes do not depend on values. Most of the pairs must be correct, which the check against their
neighbours ensures.
"""

from __future__ import annotations

import torch

from feature_frontend.geometry.small_matrices import smallest_eigenvector

__all__ = ["epipolar_residuals", "fundamental_by_reweighting"]

_ROUNDS = 4
_SPREAD = 1.5  # multiple of the median distance at which a pair has half weight
_NOISE_PX = 0.3
_SMALLEST = 1e-12


def fundamental_by_reweighting(
    points0: torch.Tensor, points1: torch.Tensor, is_used: torch.Tensor, *, is_padded: bool = False
) -> torch.Tensor:
    """(3, 3) float64 matrix F with p1' F p0 = 0, by the normalised eight-point algorithm with Cauchy weights.

    Args:
        points0: (C, 2) px in image 0.
        points1: (C, 2) px in image 1.
        is_used: (C,) bool; the other pairs are ignored. With fewer than 8 used pairs, the result is meaningless.
        is_padded: Whether nothing may wait for a GPU.
    """
    used = is_used.double()
    homogeneous0, homogeneous1 = _homogeneous(points0), _homogeneous(points1)
    transform0, transform1 = _normalizing(homogeneous0, used), _normalizing(homogeneous1, used)
    normal0, normal1 = homogeneous0 @ transform0.T, homogeneous1 @ transform1.T
    products = (normal1[:, :, None] * normal0[:, None]).flatten(1)
    weights = used
    matrix = torch.eye(3, dtype=torch.float64, device=points0.device)
    for _ in range(_ROUNDS):
        moments = (products * weights[:, None]).T @ products
        rank_two = _least_squares_without_waiting(moments) if is_padded else _least_squares(moments)
        matrix = transform1.T @ rank_two @ transform0
        distances, gradient = _distances(homogeneous0, homogeneous1, matrix)
        if is_padded:
            median = _median(distances, is_used)
        else:
            median = torch.where(is_used, distances, torch.nan).nanmedian().nan_to_num(0.0)
        scale = (_SPREAD * median).clamp(min=_NOISE_PX)
        # Dividing by the gradient turns the algebraic error into a distance in px (Sampson).
        weights = used / (1.0 + (distances / scale).square()) / gradient
        weights = weights / weights.sum().clamp(min=_SMALLEST)
    return matrix


def _least_squares(moments: torch.Tensor) -> torch.Tensor:
    """(3, 3) matrix of rank two from the (9, 9) moments of the products of the pairs' coordinates."""
    vectors = torch.linalg.eigh(moments).eigenvectors
    left, values, right = torch.linalg.svd(vectors[:, 0].reshape(3, 3))
    rank_two = left * torch.stack([values[0], values[1], torch.zeros_like(values[0])])
    product: torch.Tensor = rank_two @ right
    return product


def _least_squares_without_waiting(moments: torch.Tensor) -> torch.Tensor:
    """As `_least_squares`, up to the sign."""
    matrix = smallest_eigenvector(moments).reshape(3, 3)
    # F = sum s u v' without the term of the smallest s, whose v is an eigenvector of F' F.
    null = smallest_eigenvector(matrix.T @ matrix)[:, None]
    return matrix - matrix @ null @ null.T


def _median(values: torch.Tensor, is_used: torch.Tensor) -> torch.Tensor:
    """() the median of the used values, without waiting for a GPU as `nanmedian` does; 0 if none is used."""
    ordered = torch.where(is_used, values, torch.inf).sort().values
    count = is_used.sum()
    middle = ordered.index_select(0, ((count - 1) // 2).clamp(min=0)[None])[0]
    return torch.where(count > 0, middle, 0.0)


def epipolar_residuals(points0: torch.Tensor, points1: torch.Tensor, fundamental: torch.Tensor) -> torch.Tensor:
    """(C,) px: the larger of the distances from the epipolar lines in the two images, as in `relative_pose.py`."""
    return _distances(_homogeneous(points0), _homogeneous(points1), fundamental)[0].float()


def _distances(
    homogeneous0: torch.Tensor, homogeneous1: torch.Tensor, matrix: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(C,) distances, and (C,) squared gradients of the algebraic error, of (C, 3) points."""
    # Columns, because PyTorch sums along a dimension of two or three slowly.
    x1, y1, z1 = (homogeneous0 @ matrix.T).unbind(1)
    x0, y0, _ = (homogeneous1 @ matrix).unbind(1)
    slopes0, slopes1 = x0 * x0 + y0 * y0, x1 * x1 + y1 * y1
    u, v, w = homogeneous1.unbind(1)
    residual = (u * x1 + v * y1 + w * z1).abs()
    smaller = torch.minimum(slopes0, slopes1).sqrt().clamp(min=_SMALLEST)
    return residual / smaller, (slopes0 + slopes1).clamp(min=_SMALLEST)


def _normalizing(homogeneous: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    """(3, 3) transform that centres the (C, 3) points used, at a mean distance of sqrt(2)."""
    points = homogeneous[:, :2]
    count = used.sum().clamp(min=1.0)
    centre = (points.T @ used) / count
    distance = ((points - centre).norm(dim=1) @ used) / count
    scale = 2.0**0.5 / distance.clamp(min=_SMALLEST)
    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    rows = [scale, zero, -scale * centre[0], zero, scale, -scale * centre[1], zero, zero, one]
    return torch.stack(rows).reshape(3, 3)


def _homogeneous(points: torch.Tensor) -> torch.Tensor:
    return torch.cat([points.double(), torch.ones_like(points[:, :1], dtype=torch.float64)], dim=1)
