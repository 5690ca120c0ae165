"""Photographs with depth and pose, and the views cut from them for perspective pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch

from feature_frontend_lab.training.aliked.warps import PerspectiveWarp, PosedView, grid_points

__all__ = ["PosedPhotograph", "PosedPhotographs", "PosedViews", "cut_posed_views", "posed_view"]


@dataclass(frozen=True)
class PosedPhotograph:
    """An undistorted photograph with known depth and pose.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) float32 along the optical axis, in the unit of the pose; 0 if unknown.
        camera_matrix: (3, 3) float64, px.
        pose: (4, 4) float64, camera to world.
    """

    image: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    camera_matrix: npt.NDArray[np.float64]
    pose: npt.NDArray[np.float64]


class PosedPhotographs(Protocol):
    """Photographs of one place.

    Attributes:
        description: Description for messages and the model card.
    """

    description: str

    def __len__(self) -> int:
        """Number of photographs."""

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Numbers of two photographs that may overlap; their depth determines whether they do."""

    def load(self, index: int) -> PosedPhotograph | None:
        """Photograph `index`; None if its files cannot be read."""


@dataclass(frozen=True)
class PosedViews:
    """Two views of one place.

    Attributes:
        images: (S, S, 3) uint8 RGB of each.
        views: Geometry of each.
    """

    images: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
    views: tuple[PosedView, PosedView]

    def warps(self, tolerance: float) -> tuple[PerspectiveWarp, PerspectiveWarp]:
        """Warps from view 0 to view 1, and back."""
        view0, view1 = self.views
        return PerspectiveWarp(view0, view1, tolerance), PerspectiveWarp(view1, view0, tolerance)


def posed_view(photograph: PosedPhotograph, side: int, offset: tuple[float, float]) -> PosedView:
    """A crop at `offset`, (x, y) px, of a photograph resized to a shorter side of `side`."""
    tensors = (torch.from_numpy(values) for values in (photograph.depth, photograph.camera_matrix, photograph.pose))
    depth, camera_matrix, pose = tensors
    scale = side / min(photograph.depth.shape)
    return PosedView(depth, camera_matrix, pose, scale, torch.tensor(offset, dtype=torch.float64), side)


def cut_posed_views(
    photograph0: PosedPhotograph, photograph1: PosedPhotograph, side: int, tolerance: float, rng: np.random.Generator
) -> PosedViews | None:
    """Cuts a random crop of one photograph and an overlapping crop of another; None if they do not overlap.

    Both photographs are resized to a shorter side of `side`. The second crop is centred on what it shows of the first,
    as far as the photograph extends.

    Args:
        photograph0: Source of the first crop.
        photograph1: Source of the second crop.
        side: Height and width of the crops in px.
        tolerance: Relative depth difference above which a point counts as hidden.
        rng: Random generator.
    """
    room0, room1 = (_room(photograph, side) for photograph in (photograph0, photograph1))
    view0 = posed_view(photograph0, side, (int(rng.integers(room0[0] + 1)), int(rng.integers(room0[1] + 1))))
    # All of photograph 1 as a square view of its longer side.
    whole = posed_view(photograph1, side, (0, 0))
    everywhere = replace(whole, side=side + max(room1))
    shown, visible = PerspectiveWarp(view0, everywhere, tolerance).warp(grid_points(side))
    if not visible.any():
        return None
    middle = shown[visible].median(dim=0).values - side / 2
    offset = [int(min(max(round(float(begin)), 0), room)) for begin, room in zip(middle, room1, strict=True)]
    view1 = posed_view(photograph1, side, (offset[0], offset[1]))
    return PosedViews((_cut(photograph0.image, view0), _cut(photograph1.image, view1)), (view0, view1))


def _room(photograph: PosedPhotograph, side: int) -> tuple[int, int]:
    """Largest offset of a view in the resized photograph, right and down, px."""
    height, width = _resized_size(photograph.image, side)
    return width - side, height - side


def _resized_size(image: npt.NDArray[np.uint8], side: int) -> tuple[int, int]:
    scale = side / min(image.shape[:2])
    return max(side, int(image.shape[0] * scale)), max(side, int(image.shape[1] * scale))


def _cut(image: npt.NDArray[np.uint8], view: PosedView) -> npt.NDArray[np.uint8]:
    """The view's pixels at the positions of `PosedView.to_photograph`."""
    scale, side = view.scale, view.side
    if scale < 1:
        # Area averaging does not support subpixel offsets: blur first, then sample exactly.
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.5 * math.sqrt(1 / scale**2 - 1)), np.uint8)
    x, y = view.offset.tolist()
    to_photograph = np.array(
        [[1 / scale, 0, (x + 0.5) / scale - 0.5], [0, 1 / scale, (y + 0.5) / scale - 0.5]], np.float64
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    piece = cv2.warpAffine(image, to_photograph, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(piece, np.uint8)
