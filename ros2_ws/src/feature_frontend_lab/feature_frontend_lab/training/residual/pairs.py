"""Pairs of views with hand-crafted keypoints and their correspondences (4.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from feature_frontend.errors import SourceError
from feature_frontend.extractors.base import DetectionOptions, NetworkFeatures
from feature_frontend.extractors.networks.opencv_sift import PointDetector
from feature_frontend.extractors.networks.residual_sift import RESIDUAL_CONFIGS
from feature_frontend_lab.evaluation.homography.pairs import HomographyRange, photometric_change, transform_points
from feature_frontend_lab.training.images import Images
from feature_frontend_lab.training.residual.settings import ResidualSettings
from feature_frontend_lab.training.views import ATTEMPTS, cut_views

__all__ = ["ResidualPair", "ResidualPairs", "find_positives", "warp_keypoints"]

_FEWEST_POSITIVES = 8
_SMALLEST_SHORT_SIDE_PX, _LARGEST_SHORT_SIDE_PX = 240.0, 800.0
# Maximum angle between corresponding keypoints; both angles are estimates.
_LARGEST_TURN_RAD = math.pi / 6
_LARGEST_SCALE_RATIO = 1.5

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ResidualPair:
    """Two views with keypoints and ground truth.

    Attributes:
        views: (2, 3, S, S) uint8 RGB, augmented.
        points: (N0, 2) and (N1, 2) float32, (x, y) px.
        described: (N0, 128) and (N1, 128), the hand-crafted descriptors, L2-normalised.
        positives: (M, 2) int64, rows of corresponding keypoints of both views; no row occurs twice.
        is_negative: (N0, N1) bool, which rows are different points.
    """

    views: torch.Tensor
    points: tuple[torch.Tensor, torch.Tensor]
    described: tuple[torch.Tensor, torch.Tensor]
    positives: torch.Tensor
    is_negative: torch.Tensor


class ResidualPairs(Dataset[ResidualPair]):
    """Pair `number` depends only on the images, the settings and `number`, in any process.

    Args:
        images: Source images of the views, in colour.
        settings: How views are cut, and which keypoints they get.

    Raises:
        SettingsError: This version of OpenCV lacks the detector.
    """

    def __init__(self, images: Images, settings: ResidualSettings) -> None:
        self.description = images.description
        self._images = images
        self._settings = settings
        self._detect = PointDetector(RESIDUAL_CONFIGS[settings.model].points)
        smallest = max(_SMALLEST_SHORT_SIDE_PX, float(settings.map_side))
        self._short_side_px = (smallest, max(_LARGEST_SHORT_SIDE_PX, smallest))

    def __getitem__(self, number: int) -> ResidualPair:
        """Pair `number`.

        Raises:
            SourceError: No image can be read, or none has points that are found in both views.
        """
        rng = np.random.default_rng([self._settings.seed, number])
        for _ in range(ATTEMPTS):
            image = self._images.load(int(rng.integers(len(self._images))))
            pair = None if image is None else self._draw(image, rng)
            if pair is not None:
                return pair
        raise SourceError(
            f"no pair of views was found in {ATTEMPTS} attempts in {self.description}; expected readable images with "
            f"at least {_FEWEST_POSITIVES} keypoints that are found again in a warped view"
        )

    def _draw(self, image: npt.NDArray[np.uint8], rng: np.random.Generator) -> ResidualPair | None:
        settings = self._settings
        views = cut_views(image, settings.map_side, self._short_side_px, HomographyRange(), rng)
        if views is None:
            return None
        changed = [
            photometric_change(view, rng) if rng.random() < settings.augmentation else view
            for view in (views.view0, views.view1)
        ]
        options = DetectionOptions(settings.keypoints, 0.0, 0, 0)
        found0, found1 = (
            self._detect.detect(np.asarray(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), np.uint8), options)
            for view in changed
        )
        if min(len(found0.scores), len(found1.scores)) < _FEWEST_POSITIVES:
            return None
        warped = warp_keypoints(found0, views.homography)
        positives = find_positives(warped, found1, settings.positive_radius_px)
        if len(positives) < _FEWEST_POSITIVES:
            return None
        apart = torch.cdist(warped.keypoints.double(), found1.keypoints.double())
        return ResidualPair(
            torch.from_numpy(np.stack(changed).transpose(0, 3, 1, 2).copy()),
            (found0.keypoints, found1.keypoints),
            (found0.descriptors, found1.descriptors),
            positives,
            apart > settings.negative_radius_px,
        )


def warp_keypoints(found: NetworkFeatures, homography: FloatArray) -> NetworkFeatures:
    """Maps keypoints through a homography: positions, sizes and angles in the other view.

    Args:
        found: Keypoints with sizes and angles.
        homography: (3, 3), maps px of this view to px of the other.
    """
    assert found.sizes is not None
    assert found.angles is not None
    points = found.keypoints.numpy().astype(np.float64)
    angles = found.angles.numpy().astype(np.float64)
    # Near a point, the homography is linearised by two small steps: along the keypoint's direction and across it.
    along = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    warped = transform_points(points, homography)
    step, side_step = (transform_points(points + one, homography) - warped for one in (along, across))
    area = np.abs(step[:, 0] * side_step[:, 1] - step[:, 1] * side_step[:, 0])
    return NetworkFeatures(
        torch.from_numpy(warped),
        found.scores,
        found.descriptors,
        found.sizes * torch.from_numpy(np.sqrt(area)).float(),
        torch.from_numpy(np.arctan2(step[:, 1], step[:, 0])).float(),
    )


def find_positives(warped: NetworkFeatures, found: NetworkFeatures, radius_px: float) -> torch.Tensor:
    """Matches keypoints of view 0, warped to view 1, with keypoints of view 1.

    Positions must agree within the radius, sizes within a factor of 1.5 and, unless all angles of view 1 are 0
    (upright), angles within 30 degrees. Among these, mutual nearest neighbours in position match.

    Returns:
        (M, 2) int64 rows, in the order of view 0.
    """
    assert warped.sizes is not None
    assert warped.angles is not None
    assert found.sizes is not None
    assert found.angles is not None
    apart = torch.cdist(warped.keypoints.double(), found.keypoints.double())
    ratio = (warped.sizes[:, None] / found.sizes).log().abs()
    turn = warped.angles[:, None] - found.angles
    turn = torch.remainder(turn + math.pi, 2 * math.pi) - math.pi
    fits = (apart <= radius_px) & (ratio <= math.log(_LARGEST_SCALE_RATIO))
    if found.angles.any():
        fits &= turn.abs() <= _LARGEST_TURN_RAD
    # Keypoints of different sizes may have the same position: the size decides between them.
    cost = (apart + ratio).masked_fill(~fits, torch.inf)
    best0, best1 = cost.argmin(dim=1), cost.argmin(dim=0)
    rows = torch.arange(len(best0))
    keep = (best1[best0] == rows) & fits[rows, best0]
    return torch.stack([rows[keep], best0[keep]], dim=1)
