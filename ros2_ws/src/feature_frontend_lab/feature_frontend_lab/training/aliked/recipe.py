"""ALIKED's training: keypoints and descriptors of both views of a pair, and the loss of equation 14."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from feature_frontend.extractors.base import DetectionOptions
from feature_frontend.extractors.networks.aliked import ALIKED_CONFIGS, Aliked
from feature_frontend.extractors.networks.layers.keypoint_detection import (
    REFINEMENT_TEMPERATURE,
    refine_keypoints,
    score_windows,
    select_pixels,
)
from feature_frontend.extractors.networks.layers.sampling import at_least_float32, sample_bilinear
from feature_frontend_lab.training.aliked.losses import (
    find_partners,
    matching_success,
    peak_loss,
    reliability_loss,
    reprojection_loss,
    sparse_nre_loss,
)
from feature_frontend_lab.training.aliked.pairs import AlikedPair, AlikedPairs
from feature_frontend_lab.training.aliked.settings import AlikedSettings
from feature_frontend_lab.training.aliked.warps import Warp
from feature_frontend_lab.training.recipe import PairLosses

__all__ = ["AlikedRecipe", "AlikedView", "TrainingKeypoints", "aliked_loss", "find_training_keypoints"]


@dataclass(frozen=True)
class TrainingKeypoints:
    """Keypoints of one score map, detected ones first; only these have windows.

    Attributes:
        keypoints: (N, 2), (x, y) px. Detected ones are differentiable in the scores.
        scores: (N,) in [0, 1], differentiable.
        window_scores: (D, W * W), the scores around the D detected keypoints.
        window_positions: (D, W * W, 2), (x, y) px, positions of these scores.
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    window_scores: torch.Tensor
    window_positions: torch.Tensor

    @property
    def num_detected(self) -> int:
        """Number of detected keypoints D."""
        return int(self.window_scores.shape[0])


def find_training_keypoints(
    score_map: torch.Tensor, random_points: torch.Tensor, num_detected: int, radius: int
) -> TrainingKeypoints:
    """Detects the best keypoints of a score map and adds random points outside their neighbourhoods.

    The paper applies non-maximum suppression to both kinds together without details. Here, detected keypoints are local
    maxima and stay; a random point is removed if a detected keypoint, or an earlier random point, is within the radius
    along both axes, as in the suppression on the map.

    Args:
        score_map: (H, W) in [0, 1].
        random_points: (R, 2), (x, y) px inside the map.
        num_detected: Maximum number of detected keypoints.
        radius: Radius of the suppression and the refinement, px.
    """
    options = DetectionOptions(num_detected, detection_threshold=0.0, nms_radius=radius, border=0)
    best, candidates = select_pixels(score_map[None, None], options)
    pixels = candidates[0, best[0] > 0]
    detected = refine_keypoints(score_map, pixels, radius)
    keypoints = torch.cat([detected, random_points.to(detected)])
    with torch.no_grad():
        near = (keypoints[:, None] - keypoints[None]).abs().amax(dim=2) <= radius
        is_second = near.tril(diagonal=-1).any(dim=1)
        is_second[: len(pixels)] = False
    keypoints = keypoints[~is_second]
    scores = sample_bilinear(score_map[None, None], keypoints[None, None])[0, 0, 0]
    window_scores, window = score_windows(score_map, pixels, radius)
    return TrainingKeypoints(keypoints, scores, window_scores, (pixels[:, None] + window).to(keypoints.dtype))


_RANDOM_POINTS_STREAM = 1


@dataclass(frozen=True)
class AlikedView:
    """The network's output for one view during training.

    Attributes:
        found: N keypoints.
        descriptors: (N, D), of length 1.
    """

    found: TrainingKeypoints
    descriptors: torch.Tensor


class _TrainingModule(nn.Module):
    """The network's detection and descriptor head as one call, so that DDP can synchronise the gradients."""

    def __init__(self, network: nn.Module, detected_keypoints: int) -> None:
        super().__init__()
        assert isinstance(network, Aliked)
        self.network = network
        self._detected_keypoints = detected_keypoints

    def forward(self, views: torch.Tensor, random_points: torch.Tensor) -> list[AlikedView]:
        """Features of (B, 3, S, S) views in [0, 1] with (B, R, 2) random points, px."""
        maps = self.network(views)
        radius = self.network.default_nms_radius
        result = []
        for score_map, feature_map, points in zip(maps.score_map[:, 0], maps.feature_map, random_points, strict=True):
            # In half precision, positions would be off by hundredths of a pixel.
            with torch.autocast(views.device.type, enabled=False):
                found = find_training_keypoints(score_map, points, self._detected_keypoints, radius)
            result.append(AlikedView(found, self.network.desc_head(feature_map, found.keypoints)))
        return result


class AlikedRecipe:
    """See `Recipe`.

    Args:
        settings: Settings of the training.
        pairs: Training pairs.
    """

    ARCHITECTURE: ClassVar[str] = "ALIKED (Zhao et al., IEEE TIM 2023), RGB input"
    CRITERION: ClassVar[str] = "overall"
    PARTS: ClassVar[tuple[str, ...]] = (
        "loss",
        "reprojection_loss",
        "peak_loss",
        "descriptor_loss",
        "reliability_loss",
        "success",
    )

    def __init__(self, settings: AlikedSettings, pairs: AlikedPairs) -> None:
        self._settings = settings
        self._pairs = pairs

    def network(self) -> Aliked:
        """Creates a network with random weights."""
        return Aliked(ALIKED_CONFIGS[self._settings.model])

    def module(self, network: nn.Module) -> nn.Module:
        """The network with its detection."""
        return _TrainingModule(network, self._settings.detected_keypoints)

    def pairs(self) -> AlikedPairs:
        """Pairs of views and the positions of one view's points in the other."""
        return self._pairs

    def pair_losses(
        self, module: nn.Module, pairs: Sequence[AlikedPair], device: torch.device, precision: torch.dtype
    ) -> list[PairLosses]:
        """The losses of Section V of each pair."""
        views = torch.cat([pair.views for pair in pairs]).to(device).float() / 255
        points = torch.cat([self._random_points(pair.number) for pair in pairs]).to(device)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            found: list[AlikedView] = module(views, points)
        return [
            aliked_loss(
                (found[2 * i], found[2 * i + 1]), (pair.warps[0].to(device), pair.warps[1].to(device)), self._settings
            )
            for i, pair in enumerate(pairs)
        ]

    def _random_points(self, number: int) -> torch.Tensor:
        """(2, R, 2) px, (x, y), in the two views of a pair."""
        settings = self._settings
        rng = np.random.default_rng([settings.seed, number, _RANDOM_POINTS_STREAM])
        places = rng.random((2, settings.random_keypoints, 2), dtype=np.float32)
        return torch.from_numpy(places) * (settings.map_side - 1)


def aliked_loss(
    views: tuple[AlikedView, AlikedView], warps: tuple[Warp, Warp], settings: AlikedSettings
) -> dict[str, torch.Tensor]:
    """The loss of one pair, by the names of `AlikedRecipe.PARTS`.

        L = w_rp L_rp + w_pk L_pk + w_ds L_ds + w_re L_re                                              (14)

    Only detected keypoints have a reprojection and a peak loss: random positions do not depend on the scores.

    Args:
        views: The network's output for view 0 and view 1.
        warps: From view 0 to view 1, and back.
        settings: Weights, temperatures and the radius within which keypoints count as the same.
    """
    found0, found1 = (view.found for view in views)
    descriptors = at_least_float32(views[0].descriptors), at_least_float32(views[1].descriptors)
    (warped0, visible0), (warped1, visible1) = warps[0].warp(found0.keypoints), warps[1].warp(found1.keypoints)
    radius = settings.truth_radius_px
    partners = (
        find_partners(warped0, visible0, found1.keypoints, visible1, radius),
        find_partners(warped1, visible1, found0.keypoints, visible0, radius),
    )
    detected0, detected1 = slice(found0.num_detected), slice(found1.num_detected)
    own0, own1 = found0.keypoints[detected0], found1.keypoints[detected1]
    there0, there1 = warped0[detected0], warped1[detected1]
    shown0, shown1 = visible0[detected0], visible1[detected1]
    partners_of_detected = (
        find_partners(there0, shown0, own1, shown1, radius),
        find_partners(there1, shown1, own0, shown0, radius),
    )
    reprojection = reprojection_loss(own0, own1, there0, there1, *partners_of_detected)
    peak = peak_loss(
        torch.cat([found0.window_scores, found1.window_scores]),
        torch.cat([found0.window_positions, found1.window_positions]),
        torch.cat([own0, own1]),
        REFINEMENT_TEMPERATURE,
    )
    descriptor = sparse_nre_loss(*descriptors, *partners, settings.descriptor_temperature)
    reliability = reliability_loss(
        (found0.scores, found1.scores), descriptors, partners, (visible0, visible1), settings.reliability_temperature
    )
    total = (
        settings.reprojection_weight * reprojection
        + settings.peak_weight * peak
        + settings.descriptor_weight * descriptor
        + settings.reliability_weight * reliability
    )
    success = matching_success(*descriptors, *partners)
    values = (total, reprojection, peak, descriptor, reliability, success)
    return dict(zip(AlikedRecipe.PARTS, values, strict=True))
