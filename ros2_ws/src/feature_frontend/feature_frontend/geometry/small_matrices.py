"""Small matrix decompositions in plain tensor operations.

PyTorch's own (`torch.linalg.eigh`, `svd`, `solve`), or the libraries behind them, wait for a GPU to check for success:
they cannot be part of a CUDA graph. On a CPU they are faster than these.
"""

from __future__ import annotations

import torch

__all__ = ["smallest_eigenvector", "solve_symmetric"]

# Relative to the trace: smaller eigenvalues are rounding errors. Shifting all eigenvalues changes no eigenvector.
_SHIFT = 1e-15
_SMALLEST = 1e-300
# The inverse to the power of 2^8: the remainder of the second vector is the ratio of the two eigenvalues to that power.
# Unscaled, the trace of a 9x9 matrix stays above 9^-256, which float64 resolves.
_SQUARINGS = 8


def smallest_eigenvector(matrix: torch.Tensor) -> torch.Tensor:
    """(N,) unit eigenvector of the smallest eigenvalue of an (N, N) float64 symmetric, positive semidefinite matrix.

    Power method on the inverse, computed with the sweep operator (Beaton 1964; no pivoting is needed for such a
    matrix). If the two smallest eigenvalues are within a percent of each other, the result may mix both vectors.

    Args:
        matrix: N at most 9.
    """
    size = len(matrix)
    identity = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
    swept = matrix / matrix.diagonal().sum().clamp(min=_SMALLEST) + _SHIFT * identity
    for row in range(size):
        # c c' / d in other rows and columns, c / d in its own: the pivot d is replaced by d - 1 in c.
        column = swept[row] - identity[row]
        swept = torch.addr(swept, column / swept[row, row : row + 1], column, alpha=-1)
    inverse = 2.0 * identity - swept
    power = inverse / inverse.diagonal().sum()
    for _ in range(_SQUARINGS):
        power = power @ power
    # All columns are multiples of the vector; the longest one is the most accurate.
    longest = power.index_select(0, power.diagonal().argmax()[None])[0]
    longest = longest / longest.abs().amax()  # whose square float64 might not resolve
    unit: torch.Tensor = longest / longest.norm()
    return unit


def solve_symmetric(matrices: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """(C, 3, K) solutions X of A X = B with (C, 3, 3) symmetric, positive definite A and (C, 3, K) B, by A = L D L'."""
    (a00, _, _), (a10, a11, _), (a20, a21, a22) = (row.unbind(1) for row in matrices[..., None].unbind(1))
    below10, below20 = a10 / a00, a20 / a00
    pivot1 = a11 - below10 * a10
    rest = a21 - below20 * a10
    below21 = rest / pivot1
    pivot2 = a22 - below20 * a20 - below21 * rest
    b0, b1, b2 = values.unbind(1)
    b1 = b1 - below10 * b0
    b2 = b2 - below20 * b0 - below21 * b1
    x2 = b2 / pivot2
    x1 = b1 / pivot1 - below21 * x2
    return torch.stack([b0 / a00 - below10 * x1 - below20 * x2, x1, x2], dim=1)
