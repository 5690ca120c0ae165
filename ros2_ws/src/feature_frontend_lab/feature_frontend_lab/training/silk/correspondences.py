"""Pixel correspondences between two views related by a homography: bijective and discretised (3.4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Correspondences", "find_correspondences"]

_EPSILON = 1e-8


@dataclass(frozen=True)
class Correspondences:
    """Which pixels of two maps show the same point; row-major indices, row i of both belongs together.

    Attributes:
        indices0: (N,) int64, c of Appendix A.1; no index occurs twice.
        indices1: (N,) int64, c' of Appendix A.1; no index occurs twice.
    """

    indices0: torch.Tensor
    indices1: torch.Tensor

    def __len__(self) -> int:
        """Number of correspondences N."""
        return int(self.indices0.shape[0])

    def to(self, device: torch.device | str) -> Correspondences:
        """The same correspondences with their tensors on `device`."""
        return Correspondences(self.indices0.to(device), self.indices1.to(device))


def find_correspondences(homography: torch.Tensor, side: int, border: int) -> Correspondences:
    """The correspondences of two square maps whose pixel (x, y) is pixel (x + border, y + border) of its image.

    Each pixel of either map goes to the nearest pixel of the other. A pair counts where both directions agree.
    The paper has pixel centres at +0.5 and takes the floor; with centres at integers that is rounding half up.

    Args:
        homography: (3, 3) float64, takes (x, y, 1) px of image 0 to image 1, pixel centres at integers.
        side: Height and width of both maps in px.
        border: Rows and columns of the image before the first of the map.
    """
    forward = _nearest_indices(homography, side, border)
    backward = _nearest_indices(torch.linalg.inv(homography), side, border)
    start = torch.arange(side * side, device=homography.device)
    landed = forward >= 0
    returned = torch.where(landed, backward[forward.clamp(min=0)], -1)
    indices0 = start[returned == start]
    return Correspondences(indices0, forward[indices0])


def _nearest_indices(homography: torch.Tensor, side: int, border: int) -> torch.Tensor:
    """(side * side,) index of the pixel of the other map that each pixel falls on, -1 where it falls outside."""
    axis = torch.arange(side, dtype=homography.dtype, device=homography.device) + border
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack([x.flatten(), y.flatten(), torch.ones_like(x).flatten()])
    mapped = homography @ points
    scale = mapped[2]
    # Behind the plane at infinity a homography turns the image over; no camera sees that.
    valid = scale > _EPSILON
    pixels = torch.floor(mapped[:2] / scale.clamp(min=_EPSILON) - border + 0.5)
    valid &= ((pixels >= 0) & (pixels < side)).all(dim=0)
    column, row = pixels.clamp(0, side - 1).long()
    return torch.where(valid, row * side + column, -1)
