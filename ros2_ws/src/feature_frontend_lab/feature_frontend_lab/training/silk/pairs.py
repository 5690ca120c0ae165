"""Pairs of views of an image, with bijective, discretised pixel correspondences (3.4.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from feature_frontend.errors import SourceError
from feature_frontend_lab.evaluation.homography.pairs import HomographyRange
from feature_frontend_lab.training.images import Images
from feature_frontend_lab.training.views import ATTEMPTS, MINIMUM_OVERLAP, cut_views

__all__ = ["Correspondences", "PairDataset", "ViewPair", "ViewSettings", "find_correspondences"]

_EPSILON = 1e-8


@dataclass(frozen=True)
class Correspondences:
    """Corresponding pixels of two maps, as row-major indices; row i of both belongs together.

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
        """A copy with its tensors on `device`."""
        return Correspondences(self.indices0.to(device), self.indices1.to(device))


def find_correspondences(homography: torch.Tensor, side: int, border: int) -> Correspondences:
    """The correspondences of two square maps whose pixel (x, y) is pixel (x + border, y + border) of its image.

    Each pixel of either map is mapped to the nearest pixel of the other. A pair counts if both directions agree. The
    paper has pixel centres at +0.5 and takes the floor; with centres at integers, this is rounding half up.

    Args:
        homography: (3, 3) float64, maps (x, y, 1) px of image 0 to image 1, pixel centres at integers.
        side: Height and width of both maps in px.
        border: Number of image rows and columns before the first of the map.
    """
    forward = _nearest_indices(homography, side, border)
    backward = _nearest_indices(torch.linalg.inv(homography), side, border)
    start = torch.arange(side * side, device=homography.device)
    landed = forward >= 0
    returned = torch.where(landed, backward[forward.clamp(min=0)], -1)
    indices0 = start[returned == start]
    return Correspondences(indices0, forward[indices0])


def _nearest_indices(homography: torch.Tensor, side: int, border: int) -> torch.Tensor:
    """(side * side,) index in the other map that each pixel maps to; -1 if outside."""
    axis = torch.arange(side, dtype=homography.dtype, device=homography.device) + border
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack([x.flatten(), y.flatten(), torch.ones_like(x).flatten()])
    mapped = homography @ points
    scale = mapped[2]
    # Behind the plane at infinity, a homography mirrors the image, which no camera does.
    valid = scale > _EPSILON
    pixels = torch.floor(mapped[:2] / scale.clamp(min=_EPSILON) - border + 0.5)
    valid &= ((pixels >= 0) & (pixels < side)).all(dim=0)
    column, row = pixels.clamp(0, side - 1).long()
    return torch.where(valid, row * side + column, -1)


@dataclass(frozen=True)
class ViewSettings:
    """Settings for cutting views.

    Attributes:
        map_side: Height and width in px of the network's maps; 146 in the paper, other values in its Table 8.
        border: Number of rows and columns missing from the network's maps on each side.
        short_side_px: Range of the shorter side to which the whole image is resized before the view is cut.
        homography: Range of the homographies.
    """

    map_side: int
    border: int
    short_side_px: tuple[float, float] = (240.0, 800.0)
    homography: HomographyRange = field(default_factory=HomographyRange)

    @property
    def view_side(self) -> int:
        """Height and width of a view in px."""
        return self.map_side + 2 * self.border


@dataclass(frozen=True)
class ViewPair:
    """Two views with ground truth.

    Attributes:
        views: (2, 1, S, S) uint8 grey.
        homography: (3, 3) float64, maps px of view 0 to view 1.
        correspondences: Correspondences of the network's maps.
        number: The pair's number in the run, which also seeds its augmentation.
    """

    views: torch.Tensor
    homography: torch.Tensor
    correspondences: Correspondences
    number: int


class PairDataset(Dataset[ViewPair]):
    """Pair `number` depends only on the images, the settings, the seed and `number`, in any process.

    Args:
        images: Source images of the views.
        settings: How views are cut.
        seed: Random seed.
    """

    def __init__(self, images: Images, settings: ViewSettings, seed: int) -> None:
        self._images = images
        self._settings = settings
        self._seed = seed

    def __getitem__(self, number: int) -> ViewPair:
        """Pair `number`.

        Raises:
            SourceError: No image can be read, or none has enough texture.
        """
        rng = np.random.default_rng([self._seed, number])
        for _ in range(ATTEMPTS):
            image = self._images.load(int(rng.integers(len(self._images))))
            if image is None:
                continue
            pair = self._draw(image, rng, number)
            if pair is not None:
                return pair
        raise SourceError(
            f"no pair of views was found in {ATTEMPTS} attempts in {self._images.description}; expected readable "
            "images with something to see in them"
        )

    def _draw(self, image: npt.NDArray[np.uint8], rng: np.random.Generator, number: int) -> ViewPair | None:
        settings = self._settings
        views = cut_views(image, settings.view_side, settings.short_side_px, settings.homography, rng)
        if views is None:
            return None
        homography = torch.from_numpy(views.homography)
        correspondences = find_correspondences(homography, settings.map_side, settings.border)
        if len(correspondences) < MINIMUM_OVERLAP * settings.map_side**2:
            return None
        return ViewPair(
            torch.from_numpy(np.stack([views.view0, views.view1])[:, None]), homography, correspondences, number
        )
