"""Validates a network on held-out images: the metrics of `feature_frontend_lab.evaluation` on fixed warped pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import torch
from torch import nn

from feature_frontend.api import load_matcher
from feature_frontend.errors import SourceError
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.matchers.base import MatcherProtocol
from feature_frontend.settings import ExtractionSettings
from feature_frontend_lab.evaluation.homography.metrics import (
    corner_error,
    estimate_homography,
    homography_accuracy,
    matching_accuracy,
    matching_score,
    repeatability,
)
from feature_frontend_lab.evaluation.homography.pairs import (
    HomographyPair,
    HomographyRange,
    make_pair,
    resize_short_side,
)
from feature_frontend_lab.training.images import Images

__all__ = ["ValidationScore", "validate", "validation_pairs"]

_THRESHOLDS_PX = (1.0, 3.0)


@dataclass(frozen=True)
class ValidationScore:
    """Means over all pairs, each in [0, 1], as defined in docs/evaluation.md. The number is the threshold in px."""

    repeatability_1: float
    repeatability_3: float
    mma_1: float
    mma_3: float
    homography_accuracy_1: float
    homography_accuracy_3: float
    homography_auc_1: float
    homography_auc_3: float
    matching_score_1: float = math.nan  # missing from older checkpoints
    matching_score_3: float = math.nan

    @property
    def overall(self) -> float:
        """Criterion for the best checkpoint: the mean of the matching accuracy and the area under the curve.

        It excludes repeatability, which is high even for random weights: keypoints lie side by side, so any point is
        near another. It also excludes the fraction of homographies within 1 px, which jumps by 1 / #pairs.
        """
        return (self.mma_1 + self.homography_auc_3) / 2

    def as_dict(self) -> dict[str, float]:
        """The metrics by name."""
        return asdict(self)

    @staticmethod
    def names() -> tuple[str, ...]:
        """The metrics' names."""
        return tuple(field.name for field in fields(ValidationScore))


def validation_pairs(
    images: Images, count: int, seed: int, short_side_px: int, limits: HomographyRange | None = None
) -> list[HomographyPair]:
    """Warps `count` pairs from `images` in turn; the same arguments give the same pairs.

    Args:
        images: Source images.
        count: Number of pairs.
        seed: Seed of homographies and photometric changes.
        short_side_px: Shorter side to which the images are resized.
        limits: Range of the view changes.

    Raises:
        SourceError: No image can be read.
    """
    # Evenly distributed if there are more images than pairs.
    chosen = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    readable = [image for index in chosen if (image := images.load(int(index))) is not None]
    if not readable:
        raise SourceError(f"none of {images.description} can be read; validation needs at least one image")
    pairs = []
    for number in range(count):
        image = resize_short_side(readable[number % len(readable)], short_side_px)
        rng = np.random.default_rng([seed, number])
        pairs.append(make_pair(image, limits or HomographyRange(), rng))
    return pairs


def validate(
    network: nn.Module, pairs: Sequence[HomographyPair], device: torch.device, max_num_keypoints: int
) -> ValidationScore:
    """Scores a network as the node uses it: best keypoints, mutual nearest neighbours; then RANSAC.

    Args:
        network: The network, which is set to evaluation mode without gradients.
        pairs: At least one.
        device: Device of the network.
        max_num_keypoints: Maximum number of keypoints per image.
    """
    settings = ExtractionSettings(max_num_keypoints=max_num_keypoints, detection_threshold=0.0, border=0)
    extractor = Extractor(network, "validation", settings, device)
    matcher = load_matcher()
    rows = [_score(extractor, matcher, pair) for pair in pairs]
    repeated, matched, errors, found = (np.array([row[i] for row in rows]) for i in range(4))
    estimated = homography_accuracy(errors, _THRESHOLDS_PX)
    return ValidationScore(
        *(float(value) for value in repeated.mean(axis=0)),
        *(float(value) for value in matched.mean(axis=0)),
        *estimated.accuracy,
        *estimated.area_under_curve,
        *(float(value) for value in found.mean(axis=0)),
    )


def _score(
    extractor: Extractor, matcher: MatcherProtocol, pair: HomographyPair
) -> tuple[list[float], list[float], float, list[float]]:
    features0, features1 = extractor.extract_batch([pair.image0, pair.image1])
    matches = matcher.match(features0, features1)
    points0, points1 = features0.keypoints.cpu().numpy(), features1.keypoints.cpu().numpy()
    rows = torch.stack([matches.indices0, matches.indices1], dim=1).cpu().numpy()
    matched0, matched1 = points0[rows[:, 0]], points1[rows[:, 1]]
    size = pair.image0.shape[0], pair.image0.shape[1]
    return (
        [repeatability(points0, points1, pair.homography, size, size, t) for t in _THRESHOLDS_PX],
        [matching_accuracy(matched0, matched1, pair.homography, t) for t in _THRESHOLDS_PX],
        corner_error(estimate_homography(matched0, matched1), pair.homography, size),
        [matching_score(points0, points1, rows, pair.homography, size, size, t) for t in _THRESHOLDS_PX],
    )
