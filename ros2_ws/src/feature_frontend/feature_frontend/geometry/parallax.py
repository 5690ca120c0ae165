"""The camera's motion between two images without calibration, and what it says about single points.

A point at inverse depth g, in units of the distance that the camera moved, is seen in direction R x + g t: R is the
rotation, t the unit translation, and x the direction (x, y, 1) in the earlier image. R and t are found as if the focal
length were 0.7 times the larger side of the image. With another one, distances along epipolar lines are as before, and
inverse depths are off by what all points have in common.

With padded shapes, nothing here waits for the device; no shape depends on values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from feature_frontend.geometry.small_matrices import smallest_eigenvector, solve_symmetric

__all__ = ["ViewMotion", "view_motion"]

# Of the larger side of the image: between those of wide (0.5) and normal (0.9) lenses.
_FOCAL_FRACTION = 0.7
_ROUNDS = 2
_RIDGE = 1e-6
_SMALLEST = 1e-12
# A point must not come nearer to the camera than this fraction of its depth in one step.
_NEAREST = 0.2


@dataclass(frozen=True)
class ViewMotion:
    """The motion from one image to the next.

    Attributes:
        rotation: (3, 3) float64.
        translation: (3,) float64 unit vector; its sign is that with which most points lie before the camera.
        focal_px: The assumed focal length.
        centre: (2,) float64 px, the assumed principal point.
    """

    rotation: torch.Tensor
    translation: torch.Tensor
    focal_px: float
    centre: torch.Tensor

    def inverse_depths(self, points0: torch.Tensor, points1: torch.Tensor) -> torch.Tensor:
        """(C,) float64, inverse depths in the earlier image of pairs of (C, 2) px; negative behind the camera."""
        return _inverse_depths(self._turned(points0), self._rays(points1), self.translation)

    def move(self, points0: torch.Tensor, inverse_depths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where points of these inverse depths are seen.

        Args:
            points0: (C, 2) px in the earlier image.
            inverse_depths: (C,) float64, in the earlier image.

        Returns:
            (C, 2) float32 px; and (C,) float32, by how much their surroundings are enlarged.
        """
        rays = self._turned(points0) + inverse_depths[:, None] * self.translation
        depths = rays[:, 2:].clamp(min=_NEAREST)
        points1 = rays[:, :2] / depths * self.focal_px + self.centre
        return points1.float(), (1.0 / depths[:, 0]).float()

    def next_inverse_depths(self, points0: torch.Tensor, inverse_depths: torch.Tensor) -> torch.Tensor:
        """(C,) float64, the inverse depths in the later image of (C, 2) px with those in the earlier one."""
        depths = self._turned(points0)[:, 2] + inverse_depths * self.translation[2]
        return inverse_depths / depths.clamp(min=_NEAREST)

    def _rays(self, points: torch.Tensor) -> torch.Tensor:
        plane = (points.double() - self.centre) / self.focal_px
        return torch.cat([plane, torch.ones_like(plane[:, :1])], dim=1)

    def _turned(self, points0: torch.Tensor) -> torch.Tensor:
        return self._rays(points0) @ self.rotation.T


def view_motion(
    points0: torch.Tensor,
    points1: torch.Tensor,
    is_used: torch.Tensor,
    fundamental: torch.Tensor,
    height: int,
    width: int,
    *,
    is_padded: bool = False,
) -> ViewMotion:
    """Finds the motion from an epipolar geometry and the pairs behind it.

    The translation is the epipole; the rotation is the one that brings the pairs onto their epipolar lines, by least
    squares. If the camera does not move, or only turns, the translation is arbitrary, and so are inverse depths.

    Args:
        points0: (C, 2) px in the earlier image.
        points1: (C, 2) px in the later image.
        is_used: (C,) bool; the other pairs are ignored.
        fundamental: (3, 3) float64, from `fundamental_by_reweighting`.
        height: Of the images, px.
        width: Of the images, px.
        is_padded: Whether nothing may wait for a GPU.
    """
    focal_px = _FOCAL_FRACTION * max(height, width)
    identity = torch.eye(3, dtype=torch.float64, device=points0.device)
    centre = torch.full_like(identity[0, :2], (width - 1) / 2.0)
    centre[1:].fill_((height - 1) / 2.0)
    camera = focal_px * identity
    camera[:2, 2].copy_(centre)
    camera[2:, 2].fill_(1.0)
    essential = camera.T @ fundamental @ camera
    square = essential @ essential.T
    translation = smallest_eigenvector(square) if is_padded else torch.linalg.eigh(square).eigenvectors[:, 0]
    motion = ViewMotion(identity, translation, focal_px, centre)
    rays0, rays1 = motion._rays(points0), motion._rays(points1)
    used = is_used.double()
    rotation = identity
    for _ in range(_ROUNDS):
        turned = rays0 @ rotation.T
        normals = torch.linalg.cross(translation.expand_as(turned), turned)
        lengths = normals[:, :2].square().sum(dim=1).clamp(min=_SMALLEST)
        residuals = (normals * rays1).sum(dim=1)
        # Of rays1 . (t x (turned + w x turned)), by w.
        slopes = (turned @ translation)[:, None] * rays1 - (turned * rays1).sum(dim=1, keepdim=True) * translation
        distances = (residuals.square() / lengths).sqrt() * focal_px
        weights = (used / (1.0 + distances.square()) / lengths)[:, None]
        moments = (slopes * weights).T @ slopes
        moments = moments + (_RIDGE * moments.diagonal().sum() + _SMALLEST) * identity
        values = -((slopes * weights).T @ residuals)
        if is_padded:
            turn = solve_symmetric(moments[None], values[None, :, None])[0, :, 0]
        else:
            turn = torch.linalg.solve_ex(moments, values).result
        rotation = _rotation_by(turn) @ rotation
    motion = ViewMotion(rotation, translation, focal_px, centre)
    depths = _inverse_depths(rays0 @ rotation.T, rays1, translation)
    is_behind = ((depths.sign() * used).sum() < 0).double()
    return ViewMotion(rotation, translation * (1.0 - 2.0 * is_behind), focal_px, centre)


def _inverse_depths(turned: torch.Tensor, rays1: torch.Tensor, translation: torch.Tensor) -> torch.Tensor:
    across = torch.linalg.cross(rays1, translation.expand_as(rays1))
    along = torch.linalg.cross(rays1, turned)
    depths: torch.Tensor = -(along * across).sum(dim=1) / across.square().sum(dim=1).clamp(min=_SMALLEST)
    return depths


def _rotation_by(turn: torch.Tensor) -> torch.Tensor:
    """(3, 3) rotation by the vector (3,), twice the half angles' tangents: Cayley's, exact to third order."""
    x, y, z = (turn / 2.0).unbind(0)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    identity = torch.eye(3, dtype=turn.dtype, device=turn.device)
    square = (turn / 2.0).square().sum()
    return identity + 2.0 / (1.0 + square) * (skew + skew @ skew)
