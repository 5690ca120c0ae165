"""SIFT and RootSIFT with OpenCV, on the CPU: extractors without a network and without weights.

A score is the contrast of a keypoint in [0, 1]: three times (the scales per octave) OpenCV's `response`, the difference
of Gaussians of an image in [0, 1]. So `detection_threshold` equals OpenCV's `contrastThreshold`, whose default there is
0.04. For SURF, the score is the square root of the determinant of the Hessian, divided by 255.
RootSIFT: Arandjelovic and Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from feature_frontend.errors import SettingsError
from feature_frontend.extractors.base import DetectionOptions, NetworkFeatures
from feature_frontend.extractors.covariances import POSITION_NOISE, PositionNoise, sized_covariances
from feature_frontend.extractors.networks.layers.keypoint_detection import suppress_non_maxima
from feature_frontend.extractors.networks.layers.selection import select_points

__all__ = [
    "CLASSICAL_CONFIGS",
    "DESCRIPTOR_DIM",
    "OPENCV",
    "Classical",
    "ClassicalConfig",
    "PointDetector",
    "grey_bytes",
]

OPENCV = f"opencv-{cv2.__version__}"
DESCRIPTOR_DIM = 128

Uint8Array = npt.NDArray[np.uint8]
_SCALES_PER_OCTAVE = 3
# Below this there is only noise; values, also for SURF, from the residual descriptors' paper (4.3).
_LOWEST_CONTRAST = 0.005
_LOWEST_HESSIAN = 30.0
# OpenCV doubles the image for SIFT's first octave without regard to pixel centres: its points lie this much too far
# right and below (its option enable_precise_upscale, which OpenCV 4.5 lacks, corrects the same).
_SIFT_OFFSET_PX = 0.25


@dataclass(frozen=True)
class ClassicalConfig:
    """The detector and its descriptors.

    Attributes:
        detector: "sift" or "surf".
        is_root: Whether to divide each descriptor by its sum and take the square root (RootSIFT).
        is_upright: Whether all keypoints have angle 0: not rotation-invariant, but more distinctive.
    """

    detector: str = "sift"
    is_root: bool = False
    is_upright: bool = False


CLASSICAL_CONFIGS = {
    "sift": ClassicalConfig(),
    "rootsift": ClassicalConfig(is_root=True),
    "sift-upright": ClassicalConfig(is_upright=True),
    "rootsift-upright": ClassicalConfig(is_root=True, is_upright=True),
}


@dataclass(frozen=True)
class _Detector:
    """The differences between OpenCV's detectors.

    Attributes:
        create: Creates a detector with a minimum score; its second argument is `is_upright`.
        to_scores: Converts responses to scores in [0, 1].
        offset_px: Offset of its points to the right and down, to be subtracted, px.
    """

    create: Callable[[float, bool], cv2.Feature2D]
    to_scores: Callable[[torch.Tensor], torch.Tensor]
    offset_px: float


def _create_sift(threshold: float, _is_upright: bool) -> cv2.Feature2D:
    # Not nfeatures, which would be applied before the mask and ignore the grid.
    return cv2.SIFT.create(nOctaveLayers=_SCALES_PER_OCTAVE, contrastThreshold=max(threshold, _LOWEST_CONTRAST))


def _create_surf(threshold: float, is_upright: bool) -> cv2.Feature2D:
    try:
        create = cv2.xfeatures2d.SURF.create  # type: ignore[attr-defined]
        hessian = max((255 * threshold) ** 2, _LOWEST_HESSIAN)
        surf: cv2.Feature2D = create(hessianThreshold=hessian, extended=True, upright=is_upright)
    except (AttributeError, cv2.error) as error:
        raise SettingsError(
            f"this OpenCV {cv2.__version__} has no SURF: only builds with the module xfeatures2d and "
            "OPENCV_ENABLE_NONFREE have it; use SIFT instead, or build OpenCV so"
        ) from error
    return surf


def _sift_scores(responses: torch.Tensor) -> torch.Tensor:
    return responses * _SCALES_PER_OCTAVE


def _surf_scores(responses: torch.Tensor) -> torch.Tensor:
    return responses.clamp(min=0).sqrt() / 255


# Named functions, so that an extractor can be pickled.
_DETECTORS = {
    "sift": _Detector(_create_sift, _sift_scores, _SIFT_OFFSET_PX),
    "surf": _Detector(_create_surf, _surf_scores, 0.0),
}


class PointDetector:
    """Detects and describes keypoints with OpenCV, by the same selection rules as a network.

    Args:
        config: The detector and its descriptors.

    Raises:
        SettingsError: This OpenCV has no such detector.
    """

    def __init__(self, config: ClassicalConfig) -> None:
        self._config = config
        self._detector = _DETECTORS[config.detector]
        self._detector.create(0.0, config.is_upright)

    def detect(
        self,
        image: Uint8Array,
        options: DetectionOptions,
        allowed: torch.Tensor | None = None,
        noise: PositionNoise = POSITION_NOISE["sift"],
    ) -> NetworkFeatures:
        """Keypoints of an (H, W) grey image, best score first, on the CPU.

        As in OpenCV, a point with two dominant orientations gives two keypoints; upright it gives one.

        Args:
            image: The image.
            options: How keypoints are selected.
            allowed: (H, W) bool, the pixels on which keypoints may lie; None for all.
            noise: What the covariances are made with.
        """
        opencv = self._detector.create(options.detection_threshold, self._config.is_upright)
        found = list(opencv.detect(image, None))
        if self._config.is_upright:
            found = _upright(found)
        # Describe only the selected keypoints; OpenCV may drop some more, at the edge.
        points, scores = self._points_and_scores(found)
        if options.nms_radius:
            scores = _suppressed(points, scores, image.shape, options.nms_radius)
        kept = select_points(points, scores, image.shape, options, allowed)
        described, descriptors = opencv.compute(image, [found[row] for row in kept.tolist()])
        points, scores = self._points_and_scores(described)
        order = scores.argsort(descending=True, stable=True)
        sizes = torch.tensor([keypoint.size for keypoint in described], dtype=torch.float32)[order]
        return NetworkFeatures(
            keypoints=points[order],
            scores=scores[order],
            descriptors=self._normalized(descriptors)[order],
            sizes=sizes,
            angles=torch.tensor([keypoint.angle for keypoint in described], dtype=torch.float32).deg2rad()[order],
            covariances=sized_covariances(sizes, scores[order], noise),
        )

    def _points_and_scores(self, found: Sequence[cv2.KeyPoint]) -> tuple[torch.Tensor, torch.Tensor]:
        positions = np.array([keypoint.pt for keypoint in found], np.float32).reshape(-1, 2)
        responses = torch.tensor([keypoint.response for keypoint in found], dtype=torch.float32)
        return torch.from_numpy(positions) - self._detector.offset_px, self._detector.to_scores(responses).clamp(0, 1)

    def _normalized(self, descriptors: npt.NDArray[Any] | None) -> torch.Tensor:
        """(N, 128) L2-normalised rows."""
        if descriptors is None:  # OpenCV's result without keypoints
            return torch.zeros((0, DESCRIPTOR_DIM))
        rows = torch.from_numpy(np.asarray(descriptors, np.float32))
        if self._config.is_root:
            rows = nn.functional.normalize(rows, p=1, dim=1).sqrt()
        return nn.functional.normalize(rows, dim=1)


class Classical(nn.Module):
    """OpenCV's keypoints and descriptors, with the interface `NetworkProtocol`.

    Args:
        config: The detector and its descriptors.

    Raises:
        SettingsError: This OpenCV has no such detector.
    """

    input_channels = 1
    minimum_size = 32  # px, of an image's side
    default_nms_radius = 0
    descriptor_dim = DESCRIPTOR_DIM
    position_noise = POSITION_NOISE["sift"]

    def __init__(self, config: ClassicalConfig) -> None:
        super().__init__()
        self._detect = PointDetector(config)

    def extract(
        self, images: torch.Tensor, options: DetectionOptions, allowed: torch.Tensor | None = None
    ) -> list[NetworkFeatures]:
        """Keypoints and descriptors of (B, 1, H, W) or (B, 3, H, W) images in [0, 1]; OpenCV works on the CPU."""
        masks = [None] * len(images) if allowed is None else list(allowed.cpu())
        found = [
            self._detect.detect(image, options, mask, self.position_noise)
            for image, mask in zip(grey_bytes(images), masks, strict=True)
        ]
        return [features.to(images.device) for features in found]


def grey_bytes(images: torch.Tensor) -> list[Uint8Array]:
    """(H, W) uint8 grey of each of (B, 1, H, W) or (B, 3, H, W) RGB images in [0, 1], converted as OpenCV does."""
    pixels = (images.float() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous().numpy()
    if pixels.shape[3] == 1:
        return [image[:, :, 0] for image in pixels]
    return [np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8) for image in pixels]


def _upright(found: Sequence[cv2.KeyPoint]) -> list[cv2.KeyPoint]:
    """The keypoints with angle 0, each position and scale only once."""
    once = {(*keypoint.pt, keypoint.size): keypoint for keypoint in found}
    for keypoint in once.values():
        keypoint.angle = 0.0
    return list(once.values())


def _suppressed(points: torch.Tensor, scores: torch.Tensor, size: Sequence[int], radius: int) -> torch.Tensor:
    """The scores, 0 if a better point lies within the window of half width `radius`."""
    height, width = size
    columns, rows = (points + 0.5).floor().long().unbind(1)
    positions = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    score_map = scores.new_zeros(height * width).scatter_reduce(0, positions, scores, "amax")
    maxima = suppress_non_maxima(score_map.reshape(1, 1, height, width), radius).flatten()
    return scores.masked_fill(maxima[positions] != scores, 0.0)
