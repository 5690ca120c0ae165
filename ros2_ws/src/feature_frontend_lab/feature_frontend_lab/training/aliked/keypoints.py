"""The keypoints that ALIKED is trained on: detected ones, and random ones that compete with them (VI-A)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from feature_frontend.extractors.base import DetectionOptions
from feature_frontend.extractors.networks.layers.keypoint_detection import (
    refine_keypoints,
    score_windows,
    select_pixels,
)
from feature_frontend.extractors.networks.layers.sampling import sample_bilinear

__all__ = ["TrainingKeypoints", "find_training_keypoints"]


@dataclass(frozen=True)
class TrainingKeypoints:
    """Keypoints of one score map; those detected come first, and only they have windows.

    Attributes:
        keypoints: (N, 2), (x, y) px. Those detected are differentiable in the scores.
        scores: (N,) in [0, 1], differentiable.
        window_scores: (D, W * W), the scores around the D detected ones.
        window_positions: (D, W * W, 2), (x, y) px: where these scores are.
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    window_scores: torch.Tensor
    window_positions: torch.Tensor

    @property
    def num_detected(self) -> int:
        """D."""
        return int(self.window_scores.shape[0])


def find_training_keypoints(
    score_map: torch.Tensor, random_points: torch.Tensor, num_detected: int, radius: int
) -> TrainingKeypoints:
    """The best keypoints of a score map, and those random points that lie beyond their reach.

    The paper applies non-maximum suppression to both kinds together and does not say how. Detected keypoints are maxima
    of their surroundings, so they stay; a random point goes where one of them, or a random point before it, is within
    the radius along both axes, as in the suppression on the map.

    Args:
        score_map: (H, W) in [0, 1].
        random_points: (R, 2), (x, y) px inside the map.
        num_detected: How many to detect at most.
        radius: Of the suppression and the refinement, px.
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
