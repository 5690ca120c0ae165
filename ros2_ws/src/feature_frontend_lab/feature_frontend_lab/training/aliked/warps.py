"""Maps points from one view to another, differentiable in the points: the ground truth of ALIKED's training.

Points are (x, y) px, pixel centres at integers; a view covers [-0.5, side - 0.5) along both axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

__all__ = ["HomographyWarp", "PerspectiveWarp", "PosedView", "Warp", "depth_at", "grid_points", "overlap"]

# A relative depth difference of neighbouring pixels above this is an edge between surfaces.
_SURFACE_TOLERANCE = 0.02
_GRID_SIZE = 24


class Warp(Protocol):
    """Maps points from one view to another."""

    def warp(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps points.

        Args:
            points: (N, 2) px.

        Returns:
            (N, 2) px in the other view, always finite, and (N,) bool, whether the point is visible there.
        """

    def to(self, device: torch.device) -> Warp:
        """A copy with its tensors on `device`."""


@dataclass(frozen=True)
class HomographyWarp:
    """Maps points of a plane.

    Attributes:
        homography: (3, 3) float64.
        side: Height and width of the other view in px.
    """

    homography: torch.Tensor
    side: int

    def warp(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Warp`."""
        moved = _homogeneous(points) @ self.homography.to(points.dtype).t()
        in_front = moved[:, 2] > torch.finfo(points.dtype).eps
        projected = moved[:, :2] / torch.where(in_front, moved[:, 2], 1.0)[:, None]
        return projected, in_front & _inside(projected, self.side)

    def to(self, device: torch.device) -> HomographyWarp:
        """See `Warp`."""
        return HomographyWarp(self.homography.to(device), self.side)


@dataclass(frozen=True)
class PosedView:
    """A square crop of a resized photograph with known depth and pose. The depth is not resized and so stays exact.

    Attributes:
        depth: (H, W) float32 of the whole photograph along the optical axis, in the poses' unit; 0 if unknown.
        camera_matrix: (3, 3) float64 of the whole photograph, px.
        pose: (4, 4) float64, camera to world.
        scale: px of the view per px of the photograph.
        offset: (2,) float64, (x, y) px of the view's corner in the resized photograph.
        side: Height and width of the view in px.
    """

    depth: torch.Tensor
    camera_matrix: torch.Tensor
    pose: torch.Tensor
    scale: float
    offset: torch.Tensor
    side: int

    def to_photograph(self, points: torch.Tensor) -> torch.Tensor:
        """Converts (N, 2) px of the view to px of the photograph."""
        return (points + self.offset.to(points.dtype) + 0.5) / self.scale - 0.5

    def from_photograph(self, points: torch.Tensor) -> torch.Tensor:
        """Converts (N, 2) px of the photograph to px of the view."""
        return (points + 0.5) * self.scale - 0.5 - self.offset.to(points.dtype)

    def to(self, device: torch.device) -> PosedView:
        """A copy with its tensors on `device`."""
        tensors = (tensor.to(device) for tensor in (self.depth, self.camera_matrix, self.pose, self.offset))
        depth, camera_matrix, pose, offset = tensors
        return PosedView(depth, camera_matrix, pose, self.scale, offset, self.side)


@dataclass(frozen=True)
class PerspectiveWarp:
    """Maps points of a rigid scene (equation 6): p_AB = pi(d_A R_AB pi^-1(p_A) + t_AB).

    A point is hidden if its depth and the other view's differ by more than the tolerance. No point is visible where
    either depth is unknown.

    Attributes:
        source: View that contains the points.
        target: The other view.
        tolerance: Relative depth difference above which a point counts as hidden.
    """

    source: PosedView
    target: PosedView
    tolerance: float

    def warp(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Warp`."""
        source, target = self.source, self.target
        motion = (torch.linalg.inv(target.pose) @ source.pose).to(points.dtype)
        in_source = source.to_photograph(points)
        depth = depth_at(source.depth, in_source)
        rays = _homogeneous(in_source) @ torch.linalg.inv(source.camera_matrix).to(points.dtype).t()
        moved = (rays * depth[:, None]) @ motion[:3, :3].t() + motion[:3, 3]
        in_front = (depth > 0) & (moved[:, 2] > torch.finfo(points.dtype).eps)
        homogeneous = moved @ target.camera_matrix.to(points.dtype).t()
        in_target = homogeneous[:, :2] / torch.where(in_front, homogeneous[:, 2], 1.0)[:, None]
        projected = target.from_photograph(in_target)
        visible = in_front & _inside(projected, target.side)
        with torch.no_grad():
            seen = depth_at(target.depth, in_target)
            visible &= (seen > 0) & ((seen - moved[:, 2]).abs() < self.tolerance * seen)
        return projected, visible

    def to(self, device: torch.device) -> PerspectiveWarp:
        """See `Warp`."""
        return PerspectiveWarp(self.source.to(device), self.target.to(device), self.tolerance)


def depth_at(depth: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Interpolated depth; 0 outside the map and where the nearest pixel's depth is unknown.

    Within a surface, the inverse depth is interpolated, which is exact on a plane and differentiable; at an edge, the
    nearest pixel's depth is used.

    Args:
        depth: (H, W) float32, 0 if unknown.
        points: (N, 2) px.

    Returns:
        (N,) in the dtype of `points`.
    """
    height, width = depth.shape
    highest = torch.tensor([width - 1, height - 1], device=points.device)
    inside = ((points >= -0.5) & (points < highest + 0.5)).all(dim=1)
    points = torch.where(inside[:, None], points, 0.0)
    nearest = points.detach().round().long().clamp(min=torch.zeros_like(highest), max=highest)
    corner = points.detach().floor().long().clamp(min=torch.zeros_like(highest), max=(highest - 1).clamp(min=0))
    columns = torch.stack([corner[:, 0], (corner[:, 0] + 1).clamp(max=width - 1)], dim=1)
    rows = torch.stack([corner[:, 1], (corner[:, 1] + 1).clamp(max=height - 1)], dim=1)
    around = depth[rows[:, :, None], columns[:, None, :]].to(points.dtype).flatten(1)
    across, down = (points - corner).unbind(dim=1)
    weights = torch.stack([(1 - across) * (1 - down), across * (1 - down), (1 - across) * down, across * down], dim=1)
    lowest, largest = around.amin(dim=1), around.amax(dim=1)
    is_surface = (lowest > 0) & (largest - lowest <= _SURFACE_TOLERANCE * largest)
    inverse = (weights / torch.where(is_surface[:, None], around, 1.0)).sum(dim=1)
    of_nearest = depth[nearest[:, 1], nearest[:, 0]].to(points.dtype)
    interpolated = torch.where(is_surface, 1 / torch.where(is_surface, inverse, 1.0), of_nearest)
    return torch.where(inside, interpolated, 0.0)


def grid_points(side: int) -> torch.Tensor:
    """24x24 points on a regular grid over a view of `side` px: (576, 2) float32 px."""
    axis = (torch.arange(_GRID_SIZE, dtype=torch.float32) + 0.5) * side / _GRID_SIZE - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def overlap(warp: Warp, side: int) -> float:
    """Fraction in [0, 1] of a view of `side` px that the other view shows."""
    return float(warp.warp(grid_points(side))[1].float().mean())


def _homogeneous(points: torch.Tensor) -> torch.Tensor:
    return torch.cat([points, torch.ones_like(points[:, :1])], dim=1)


def _inside(points: torch.Tensor, side: int) -> torch.Tensor:
    return ((points >= -0.5) & (points < side - 0.5)).all(dim=1)
