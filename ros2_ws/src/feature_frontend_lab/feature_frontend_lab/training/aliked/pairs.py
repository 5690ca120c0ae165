"""Pairs of views for ALIKED: a mix of warped images and photographs with depth and pose (VI-A)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from feature_frontend.errors import SourceError
from feature_frontend_lab.evaluation.homography.pairs import HomographyRange, photometric_change
from feature_frontend_lab.training.aliked.posed import PosedPhotographs, cut_posed_views
from feature_frontend_lab.training.aliked.settings import AlikedSettings
from feature_frontend_lab.training.aliked.warps import HomographyWarp, Warp, overlap
from feature_frontend_lab.training.images import Images
from feature_frontend_lab.training.views import ATTEMPTS, MINIMUM_OVERLAP, MINIMUM_TEXTURE, cut_views, texture

__all__ = ["AlikedPair", "AlikedPairs"]

# For smaller views, images are resized to at most this shorter side, so that the field of view varies.
_LARGEST_SHORT_SIDE_PX = 800.0
_LARGEST_MAGNIFICATION = 1.25

Uint8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class AlikedPair:
    """Two views with their ground truth.

    Attributes:
        views: (2, 3, S, S) uint8 RGB, augmented.
        warps: From view 0 to view 1, and back.
        number: The pair's number in the run, which also seeds its random keypoints.
    """

    views: torch.Tensor
    warps: tuple[Warp, Warp]
    number: int


class AlikedPairs(Dataset[AlikedPair]):
    """Pair `number` depends only on the data, the settings and `number`, in any process.

    Args:
        images: Images for homographic pairs, in colour; None for none.
        photographs: Photographs for perspective pairs; each place is drawn in proportion to its number of photographs.
        settings: How the pairs are made and mixed.

    Raises:
        SourceError: There are neither images nor photographs.
    """

    def __init__(
        self, images: Images | None, photographs: Sequence[PosedPhotographs], settings: AlikedSettings
    ) -> None:
        parts = ([images.description] if images else []) + [place.description for place in photographs]
        if not parts:
            raise SourceError("there is nothing to cut pairs from; expected images, or photographs with depth and pose")
        self.description = "; ".join(parts)
        self._images = images
        self._photographs = photographs
        self._settings = settings
        counts = np.array([len(place) for place in photographs], np.float64)
        self._place_probabilities = counts / counts.sum() if photographs else counts
        largest = max(_LARGEST_SHORT_SIDE_PX, _LARGEST_MAGNIFICATION * settings.map_side)
        self._short_side_px = (float(settings.map_side), largest)
        self._limits = HomographyRange(rotation_deg=settings.rotation_deg)

    def __getitem__(self, number: int) -> AlikedPair:
        """Pair `number`.

        Raises:
            SourceError: No file can be read, or no two views overlap.
        """
        rng = np.random.default_rng([self._settings.seed, number])
        images, warps = self._draw(rng)
        changed = [
            photometric_change(image, rng) if rng.random() < self._settings.augmentation else image for image in images
        ]
        views = torch.from_numpy(np.stack(changed).transpose(0, 3, 1, 2).copy())
        return AlikedPair(views, warps, number)

    def draw(self, number: int) -> tuple[tuple[Uint8Array, Uint8Array], tuple[Warp, Warp]]:
        """The views of pair `number` before photometric changes, (S, S, 3) uint8 RGB, and its warps.

        Raises:
            SourceError: As for the pair.
        """
        return self._draw(np.random.default_rng([self._settings.seed, number]))

    def _draw(self, rng: np.random.Generator) -> tuple[tuple[Uint8Array, Uint8Array], tuple[Warp, Warp]]:
        settings = self._settings
        is_perspective = self._images is None or (
            len(self._photographs) > 0 and rng.random() < settings.perspective_share
        )
        for _ in range(ATTEMPTS):
            drawn = self._perspective(rng) if is_perspective else self._homographic(rng)
            if drawn is None:
                continue
            images, warps = drawn
            if min(overlap(warp, settings.map_side) for warp in warps) < MINIMUM_OVERLAP:
                continue
            return images, warps
        raise SourceError(
            f"no pair of views was found in {ATTEMPTS} attempts in {self.description}; expected readable images with "
            "something to see in them, some of which show the same"
        )

    def _homographic(self, rng: np.random.Generator) -> tuple[tuple[Uint8Array, Uint8Array], tuple[Warp, Warp]] | None:
        assert self._images is not None
        side = self._settings.map_side
        image = self._images.load(int(rng.integers(len(self._images))))
        views = None if image is None else cut_views(image, side, self._short_side_px, self._limits, rng)
        if views is None:
            return None
        homography = torch.from_numpy(views.homography)
        warps = HomographyWarp(homography, side), HomographyWarp(torch.linalg.inv(homography), side)
        return (views.view0, views.view1), warps

    def _perspective(self, rng: np.random.Generator) -> tuple[tuple[Uint8Array, Uint8Array], tuple[Warp, Warp]] | None:
        settings = self._settings
        place = self._photographs[int(rng.choice(len(self._photographs), p=self._place_probabilities))]
        photograph0, photograph1 = (place.load(index) for index in place.draw(rng))
        if photograph0 is None or photograph1 is None:
            return None
        views = cut_posed_views(photograph0, photograph1, settings.map_side, settings.occlusion_tolerance, rng)
        if views is None or texture(views.images[0]) < MINIMUM_TEXTURE:
            return None
        return views.images, views.warps(settings.occlusion_tolerance)
