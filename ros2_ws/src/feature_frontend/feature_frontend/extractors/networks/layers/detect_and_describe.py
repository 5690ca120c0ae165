"""The sparse part of networks that refine their keypoints: detect on the score map, then describe what was found."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from feature_frontend.extractors.base import DetectionOptions, NetworkFeatures, PaddedFeatures
from feature_frontend.extractors.covariances import PositionNoise, detected_covariances
from feature_frontend.extractors.networks.layers.keypoint_detection import detect_padded

__all__ = ["DetectAndDescribe"]


class DetectAndDescribe(nn.Module, ABC):
    """Base of networks whose first map is the score map; `dense` and `describe` are the network's own."""

    position_noise: PositionNoise

    @abstractmethod
    def dense(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `FastNetwork`; the first map is the score map (B, 1, H, W)."""

    @abstractmethod
    def describe(self, dense: tuple[torch.Tensor, ...], keypoints: torch.Tensor) -> torch.Tensor:
        """See `FastNetwork`."""

    def extract(
        self, images: torch.Tensor, options: DetectionOptions, allowed: torch.Tensor | None = None
    ) -> list[NetworkFeatures]:
        """Keypoints and descriptors of (B, C, H, W) images in [0, 1], best score first; see `NetworkProtocol`."""
        return self.sparse(self.dense(images), options, allowed, trim=True).unpadded()

    def sparse(
        self,
        dense: tuple[torch.Tensor, ...],
        options: DetectionOptions,
        allowed: torch.Tensor | None = None,
        *,
        trim: bool = False,
        maxima: torch.Tensor | None = None,
    ) -> PaddedFeatures:
        """Keypoints and descriptors from the maps of `dense`; see `FastNetwork`."""
        detections = detect_padded(self.score_maps(dense), options, allowed, maxima)
        keypoints, scores = detections.keypoints, detections.scores
        if trim:
            most = int(detections.counts.max())
            keypoints, scores = keypoints[:, :most], scores[:, :most]
        covariances = detected_covariances(self.score_maps(dense), keypoints, self.position_noise)
        descriptors = self.describe(dense, keypoints)
        return PaddedFeatures(keypoints, scores, descriptors, detections.counts, torch.ones_like(scores), covariances)

    def score_maps(self, dense: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """See `FastNetwork`."""
        return dense[0]
