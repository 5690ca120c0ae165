"""Covariances of positions: a small model for each way in which a position comes about; docs/messages.md defines them.

- Detected on a score map (`detected_covariances`): level^-exponent (detected_px2 I + detected_factor S), where level is
  the highest score around the point and S = M^2 / sqrt(det M). M are the second moments of the squared scores of 5x5
  px: along an edge scores hardly fall off, and the maximum moves along it. Squaring M stretches it as errors are.
- Detected with a size (`sized_covariances`), as by SIFT: the same, with S = size^2 I and the score as level.
- Aligned with a template (`aligned_covariances`): aligned_factor r^2 H^-1 G H^-1 + w^2 H^-1 D H^-1 + aligned_px2 I. The
  alignment minimises squared differences of the pixels, with the detection as a second measurement of weight w; G are
  the template's mean squared gradients, H = G + w I, r^2 is the mean squared difference that is left, and D the
  detection's covariance. Where pixels tell little, as along an edge, D prevails.
- In a track, all of these times 1 + zoom_factor log(zoom)^2: what is detected or aligned shifts with its size.

Each array (..., 3) holds xx, xy and yy. Shapes depend on shapes only, and nothing waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["POSITION_NOISE", "PositionNoise", "aligned_covariances", "detected_covariances", "sized_covariances"]

_RADIUS_PX = 2
# Keeps the covariance of a single bright pixel finite, px^2.
_LEAST_MOMENT_PX2 = 1e-3
_LEAST_SCORE = 1e-3
_SMALLEST = 1e-12


@dataclass(frozen=True)
class PositionNoise:
    """The constants of one kind of extractor.

    Attributes:
        detected_px2: Variance of a detection at level 1, px^2.
        detected_factor: Factor of its shape.
        exponent: How the variance falls with the level.
        zoom_factor: Of the squared logarithm of the image's zoom since the previous one, for chained matches.
        aligned_px2: Variance of an alignment without noise in the pixels, px^2.
        aligned_factor: Factor of the alignment's own covariance; 1 / 169 for independent noise of the window's pixels.
        first_factor: Factor of a detection from which the persistent tracker starts: later positions refer to it.
        alone_factor: Factor of a detection where it finds no template.
        aligned_zoom_factor: As `zoom_factor`, with the persistent tracker.
    """

    detected_px2: float
    detected_factor: float
    exponent: float
    zoom_factor: float = 0.0
    aligned_px2: float = 0.0
    aligned_factor: float = 0.0
    first_factor: float = 1.0
    alone_factor: float = 1.0
    aligned_zoom_factor: float = 0.0


# Fitted by `feature_frontend evaluate covariances street drive --seeds 0 1 --count 12 --fit aliked-t16 dotlet
# silk-vggnp-mu sift`; docs/evaluation.md has the check on other scenes.
POSITION_NOISE = {
    "aliked": PositionNoise(0.0020, 0.026, 1.60, 22.4, 0.000091, 0.0147, 0.173, 23.0, 64.0),
    "dotlet": PositionNoise(0.0040, 0.026, 1.14, 19.2, 0.00042, 0.0109, 0.0855, 7.15, 149.5),
    "silk": PositionNoise(0.0202, 0.0101, 0.03, 8.8, 0.00040, 0.0140, 0.110, 6.0, 57.3),
    "sift": PositionNoise(0.0074, 0.00060, 0.0, 76.0),
}


def detected_covariances(score_maps: torch.Tensor, keypoints: torch.Tensor, noise: PositionNoise) -> torch.Tensor:
    """Covariances of points from the scores around them.

    Args:
        score_maps: (B, 1, H, W) scores in [0, 1], both sides at least 5 px.
        keypoints: (B, K, 2) px of these maps.
        noise: Of the extractor.

    Returns:
        (B, K, 3) float32 px^2.
    """
    height, width = score_maps.shape[-2:]
    reach = torch.arange(-_RADIUS_PX, _RADIUS_PX + 1, device=keypoints.device)
    dy, dx = (side.flatten() for side in torch.meshgrid(reach, reach, indexing="ij"))
    x, y = keypoints.round().long().unbind(-1)
    x, y = x.clamp(_RADIUS_PX, width - 1 - _RADIUS_PX), y.clamp(_RADIUS_PX, height - 1 - _RADIUS_PX)
    places = (y * width + x)[..., None] + (dy * width + dx)
    scores = score_maps.flatten(1).gather(1, places.flatten(1)).reshape(places.shape).float()
    offsets = torch.stack([dx, dy, dx * dx, dx * dy, dy * dy, torch.ones_like(dx)], dim=1).to(scores.dtype)
    moments = (scores.square() + _SMALLEST) @ offsets
    mean_x, mean_y, xx, xy, yy = (moments[..., :5] / moments[..., 5:]).unbind(-1)
    xx, xy = xx - mean_x.square() + _LEAST_MOMENT_PX2, xy - mean_x * mean_y
    yy = yy - mean_y.square() + _LEAST_MOMENT_PX2
    root = (xx * yy - xy.square()).clamp(min=_LEAST_MOMENT_PX2**2).sqrt()
    # M^2 = trace(M) M - det(M) I, for matrices of two rows.
    stretch = (xx + yy) / root
    shape = torch.stack([stretch * xx - root, stretch * xy, stretch * yy - root], dim=-1)
    return _at_level(scores.amax(dim=-1), shape, noise)


def sized_covariances(sizes: torch.Tensor, scores: torch.Tensor, noise: PositionNoise) -> torch.Tensor:
    """(N, 3) covariances, px^2, of (N,) points with sizes in px and scores in [0, 1]."""
    return _at_level(scores, _isotropic(sizes.square()), noise)


def aligned_covariances(
    gradients: torch.Tensor,
    residuals: torch.Tensor,
    weights: torch.Tensor,
    detected: torch.Tensor,
    noise: PositionNoise,
) -> torch.Tensor:
    """Covariances of points whose templates are aligned with the image.

    Args:
        gradients: (C, 3) mean squared gradients of the templates.
        residuals: (C,) mean squared differences that are left.
        weights: (C,) of the detections, in the unit of the gradients.
        detected: (C, 3) covariances of the detections, px^2.
        noise: Of the extractor.
    """
    xx, xy, yy = gradients.unbind(-1)
    along_x, along_y = xx + weights, yy + weights
    determinant = (along_x * along_y - xy.square()).clamp(min=_SMALLEST)
    p, q, r = along_y / determinant, -xy / determinant, along_x / determinant
    pixels, detection = noise.aligned_factor * residuals[:, None], weights.square()[:, None]
    a, b, c = (pixels * gradients + detection * detected).unbind(-1)
    turned = [
        p * p * a + 2.0 * p * q * b + q * q * c,
        p * q * a + (p * r + q * q) * b + q * r * c,
        q * q * a + 2.0 * q * r * b + r * r * c,
    ]
    return torch.stack(turned, dim=-1) + _isotropic(torch.full_like(xx, noise.aligned_px2))


def _at_level(levels: torch.Tensor, shape: torch.Tensor, noise: PositionNoise) -> torch.Tensor:
    floor = _isotropic(torch.full_like(levels, noise.detected_px2))
    falling = levels.clamp(min=_LEAST_SCORE).pow(-noise.exponent)[..., None]
    return falling * (floor + noise.detected_factor * shape)


def _isotropic(variances: torch.Tensor) -> torch.Tensor:
    return torch.stack([variances, torch.zeros_like(variances), variances], dim=-1)
