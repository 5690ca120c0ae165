"""The photometric augmentations of Appendix C.1 for grey images, as tensor operations on any device.

C.1 gives the parameters for Albumentations, which runs on the CPU only and whose free edition is no longer developed.
Kornia runs on the GPU, but its noise has one strength, its box blur one size, and it draws from torch's global
generator instead of one per pair. The remaining code is one line per augmentation, except for the motion blur.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

__all__ = ["PAPER_PROBABILITY", "augment"]

PAPER_PROBABILITY = 0.95

Augmentation = Callable[[torch.Tensor, np.random.Generator], torch.Tensor]


def augment(images: torch.Tensor, rng: np.random.Generator, probability: float = PAPER_PROBABILITY) -> torch.Tensor:
    """Augments each image independently.

    Args:
        images: (B, 1, H, W) float in [0, 1].
        rng: Random generator.
        probability: Probability that an image is augmented.

    Returns:
        The same shape, in [0, 1].
    """
    return torch.stack([_augment_one(image[None], rng)[0] if rng.random() < probability else image for image in images])


def _augment_one(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    for probability, augmentation in _AUGMENTATIONS:
        if rng.random() < probability:
            image = augmentation(image, rng).clamp(0, 1)
    return image


def _gamma(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    return image ** float(rng.uniform(0.15, 0.65))


def _value(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    return image - float(rng.uniform(40, 100)) / 255


def _box_blur(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    size = _odd(rng, 3, 9)
    padded = functional.pad(image, [size // 2] * 4, mode="reflect")
    return functional.avg_pool2d(padded, size, stride=1)


def _motion_blur(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    size = _odd(rng, 3, 25)
    angle = float(rng.uniform(0, math.pi))
    kernel = _line(size, angle).to(image)
    padded = functional.pad(image, [size // 2] * 4, mode="reflect")
    return functional.conv2d(padded, kernel[None, None])


def _brightness_and_contrast(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    return image * (1 + float(rng.uniform(-0.5, 0.3))) + float(rng.uniform(-0.3, 0.0))


def _gaussian_noise(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    # Albumentations' default when the paper was written: a variance of 10 to 50 squared grey levels.
    deviation = math.sqrt(float(rng.uniform(10, 50))) / 255
    return image + deviation * _noise(image, rng)


def _speckle_noise(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    # Named in 3.4.2; C.1 gives no parameters.
    return image * (1 + float(rng.uniform(0, 0.1)) * _noise(image, rng))


# (probability, augmentation), in the order of Figure 8.
_AUGMENTATIONS: tuple[tuple[float, Augmentation], ...] = (
    (0.1, _gamma),
    (0.1, _value),
    (0.1, _box_blur),
    (0.2, _motion_blur),
    (0.5, _brightness_and_contrast),
    (0.5, _gaussian_noise),
    (0.1, _speckle_noise),
)


def _odd(rng: np.random.Generator, smallest: int, largest: int) -> int:
    return int(rng.integers(smallest // 2, largest // 2 + 1)) * 2 + 1


def _noise(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    generator = torch.Generator(image.device).manual_seed(int(rng.integers(2**62)))
    return torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)


def _line(size: int, angle: float) -> torch.Tensor:
    """(size, size) kernel that averages along a line through its centre."""
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    across = (x * math.sin(angle) - y * math.cos(angle)).abs()
    along = (x * math.cos(angle) + y * math.sin(angle)).abs()
    kernel = (1 - across).clamp(min=0) * (size / 2 - along + 0.5).clamp(0, 1)
    return (kernel / kernel.sum()).float()
