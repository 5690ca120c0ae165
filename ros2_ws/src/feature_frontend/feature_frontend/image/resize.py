"""Maps coordinates between the image as published, the resized image and the padded network input, and back.

Pixel centres are at integers, so a resize by s maps x to (x + 0.5) s - 0.5: the images' outer edges, at -0.5, coincide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from feature_frontend.runtime.cuda_graphs import constants

__all__ = ["Padding", "Resize", "network_size", "padding_to_multiple"]


@dataclass(frozen=True)
class Resize:
    """Resizes an image of (height0, width0) px to (height1, width1) px; the edges coincide."""

    height0: int
    width0: int
    height1: int
    width1: int

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return (self.height0, self.width0) == (self.height1, self.width1)

    def apply(self, points: torch.Tensor) -> torch.Tensor:
        """Maps (..., 2) points (x, y) px from the first image to the second."""
        return (points + 0.5) * self._scale(points) - 0.5

    def invert(self, points: torch.Tensor) -> torch.Tensor:
        """Maps (..., 2) points (x, y) px from the second image to the first."""
        return (points + 0.5) / self._scale(points) - 0.5

    def invert_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Maps lengths in px from the second image to the first, by the mean of both scales if they differ."""
        area0, area1 = self.height0 * self.width0, self.height1 * self.width1
        return lengths * math.sqrt(area0 / area1)

    def invert_covariances(self, covariances: torch.Tensor) -> torch.Tensor:
        """Maps (..., 3) covariances xx, xy, yy in px^2 from the second image to the first."""
        if self.is_identity:
            return covariances
        x, y = self.width0 / self.width1, self.height0 / self.height1
        return covariances * constants(covariances, x * x, x * y, y * y)

    def _scale(self, points: torch.Tensor) -> torch.Tensor:
        return constants(points, self.width1 / self.width0, self.height1 / self.height0)


@dataclass(frozen=True)
class Padding:
    """Rows and columns added around an image, px."""

    left: int
    right: int
    top: int
    bottom: int

    def apply(self, points: torch.Tensor) -> torch.Tensor:
        """Maps (..., 2) points (x, y) px from the unpadded image to the padded one."""
        return points + constants(points, self.left, self.top)

    def invert(self, points: torch.Tensor) -> torch.Tensor:
        """Maps (..., 2) points (x, y) px from the padded image to the unpadded one."""
        return points - constants(points, self.left, self.top)

    def pad(self, images: torch.Tensor) -> torch.Tensor:
        """Pads (B, C, H, W) images by repeating their outermost pixels."""
        if not any((self.left, self.right, self.top, self.bottom)):
            return images
        margins = [self.left, self.right, self.top, self.bottom]
        return torch.nn.functional.pad(images, margins, mode="replicate")

    def crop(self, maps: torch.Tensor) -> torch.Tensor:
        """Removes the padding from (B, C, H + padding, W + padding) maps."""
        height, width = maps.shape[-2:]
        return maps[..., self.top : height - self.bottom, self.left : width - self.right]


def padding_to_multiple(height: int, width: int, multiple: int) -> Padding:
    """Centred padding that makes both sides multiples of `multiple` px; an odd pixel is added right and below."""
    extra_height, extra_width = -height % multiple, -width % multiple
    left, top = extra_width // 2, extra_height // 2
    return Padding(left, extra_width - left, top, extra_height - top)


def network_size(height: int, width: int, *, resize_height: int, max_pixels: int, minimum: int) -> Resize:
    """The size at which the network processes an image of `height` x `width` px.

    Args:
        height: Image height in px.
        width: Image width in px.
        resize_height: Target height in px; 0 keeps the image's.
        max_pixels: Maximum number of pixels; a larger image is downscaled with the same aspect ratio.
        minimum: Minimum side in px that the network accepts; takes precedence over `max_pixels`, which a very long
            image may therefore exceed.
    """
    scale = resize_height / height if resize_height else 1.0
    if (height * scale) * (width * scale) > max_pixels:
        scale = math.sqrt(max_pixels / (height * width))
        new_height, new_width = math.floor(height * scale), math.floor(width * scale)
    else:
        new_height, new_width = round(height * scale), round(width * scale)
    return Resize(height, width, max(new_height, minimum), max(new_width, minimum))
