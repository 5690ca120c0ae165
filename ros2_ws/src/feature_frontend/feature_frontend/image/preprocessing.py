"""Converts a uint8 NumPy image to the network's float tensor."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.errors import ImageError, MaskError
from feature_frontend.image.resize import Resize

__all__ = [
    "allowed_pixels",
    "check_image",
    "check_mask",
    "grey_range",
    "images_to_batch",
    "masks_to_tensors",
    "resize_tensor",
    "tensors_to_batch",
]

Uint8Array = npt.NDArray[np.uint8]
_RGB_CHANNELS = 3


def check_image(image: object, minimum: int) -> Uint8Array:
    """Returns `image` if it is a valid input for an extractor.

    Args:
        image: The caller's argument.
        minimum: Minimum side in px.

    Raises:
        ImageError: It is not a uint8 array of shape (H, W), (H, W, 1) or (H, W, 3), or a side is below `minimum`.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = f"an array of {image.dtype}" if isinstance(image, np.ndarray) else f"a {type(image).__name__}"
        raise ImageError(f"image is {kind}; expected a uint8 NumPy array of shape (H, W) or (H, W, 3)")
    if image.ndim == _RGB_CHANNELS and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim != 2 and not (image.ndim == 3 and image.shape[2] == _RGB_CHANNELS):
        raise ImageError(f"image has shape {image.shape}; expected (H, W) grey or (H, W, 3) RGB")
    height, width = image.shape[:2]
    if min(height, width) < minimum:
        raise ImageError(f"image is {width}x{height} px; the extractor needs at least {minimum}x{minimum}")
    return image


def check_mask(mask: object, height: int, width: int, name: str = "mask") -> Uint8Array:
    """Returns `mask` as uint8 if it is a valid mask for an image of `height` x `width` px.

    Args:
        mask: The caller's argument: (H, W) uint8 or bool, 0 = do not use.
        height: Height of the image, px.
        width: Width of the image, px.
        name: Name of the mask in errors.

    Raises:
        MaskError: The mask has the wrong type, shape or size.
    """
    if not isinstance(mask, np.ndarray) or mask.dtype not in (np.uint8, np.bool_):
        kind = f"an array of {mask.dtype}" if isinstance(mask, np.ndarray) else f"a {type(mask).__name__}"
        raise MaskError(f"{name} is {kind}; expected a uint8 or bool NumPy array of shape (H, W), 0 = do not use")
    if mask.ndim == 3 and mask.shape[2] == 1:
        mask = mask[:, :, 0]
    if mask.ndim != 2:
        raise MaskError(f"{name} has shape {mask.shape}; expected (H, W), one number a pixel")
    if mask.shape != (height, width):
        size = f"{mask.shape[1]}x{mask.shape[0]} px"
        raise MaskError(
            f"{name} is {size}, but the image is {width}x{height} px; a mask must have the size of its image"
        )
    return mask.view(np.uint8) if mask.dtype == np.bool_ else mask


def grey_range(image: Uint8Array) -> int:
    """Brightest minus darkest grey level of an (H, W) or (H, W, 3) image, 0 to 255, averaged over 3x3 px.

    The average removes most of the sensor noise, whose extremes over a whole image would look like texture.
    """
    contiguous = np.ascontiguousarray(image)
    grey = cv2.cvtColor(contiguous, cv2.COLOR_RGB2GRAY) if image.ndim == _RGB_CHANNELS else contiguous
    smooth = cv2.blur(grey, (3, 3))
    return int(smooth.max()) - int(smooth.min())


def images_to_batch(images: Sequence[Uint8Array], device: torch.device, channels: int = _RGB_CHANNELS) -> torch.Tensor:
    """(H, W[, 3]) uint8 images of one size to (B, C, H, W) float32 in [0, 1] on `device`.

    Grey is repeated if `channels` is 3; RGB stays RGB if it is 1, for the network to convert.

    The bytes are converted to floats on the device, which takes a quarter of the transfer. The batch is always
    channels-last, as the networks read it, whatever the images' layout: so compiled code does not have to be compiled
    again for another image.
    """
    # torch cannot wrap read-only memory, negative strides or overlapping rows; copy only such images.
    wrapped = [torch.from_numpy(np.require(image, requirements=["C", "W"])) for image in images]
    return tensors_to_batch([pixels.to(device, non_blocking=True) for pixels in wrapped], channels)


def tensors_to_batch(images: Sequence[torch.Tensor], channels: int = _RGB_CHANNELS) -> torch.Tensor:
    """The same for (H, W[, 3]) uint8 tensors, on their device."""
    height, width = images[0].shape[:2]
    channels = max([channels, *(image.shape[2] for image in images if image.ndim == _RGB_CHANNELS)])
    layout = torch.channels_last if channels > 1 else torch.contiguous_format
    batch = torch.empty((len(images), channels, height, width), device=images[0].device, memory_format=layout)
    for row, image in zip(batch, images, strict=True):
        row.copy_(image if image.ndim == 2 else image.permute(2, 0, 1))
    return batch.div_(255.0)


def masks_to_tensors(masks: Sequence[Uint8Array], device: torch.device) -> list[torch.Tensor]:
    """(H, W) uint8 masks, unchanged, on `device`."""
    wrapped = [torch.from_numpy(np.require(mask, requirements=["C", "W"])) for mask in masks]
    return [mask.to(device, non_blocking=True) for mask in wrapped]


def allowed_pixels(masks: Sequence[torch.Tensor], resize: Resize) -> torch.Tensor:
    """The allowed pixels of the resized images: those that overlap only allowed pixels, even partly.

    So a point on an allowed pixel of the resized image is on an allowed pixel of the image as published.

    Args:
        masks: (height0, width0) uint8 each, 0 = do not use.
        resize: How the images are resized.

    Returns:
        (B, height1, width1) bool.
    """
    blocked = torch.stack([mask == 0 for mask in masks])
    if not resize.is_identity:
        blocked = _any_covered(_any_covered(blocked, resize.height1, dim=1), resize.width1, dim=2)
    return ~blocked


def _any_covered(pixels: torch.Tensor, size: int, dim: int) -> torch.Tensor:
    """For each of `size` equal parts of one dimension, whether any pixel that overlaps it is true."""
    length = pixels.shape[dim]
    part = torch.arange(size, device=pixels.device)
    first = torch.div(part * length, size, rounding_mode="floor")
    last = torch.div((part + 1) * length - 1, size, rounding_mode="floor")
    covered = pixels.index_select(dim, first)
    for step in range(1, -(-length // size) + 1):
        covered = covered | pixels.index_select(dim, torch.minimum(first + step, last))
    return covered


def resize_tensor(images: torch.Tensor, resize: Resize) -> torch.Tensor:
    """(B, C, height0, width0) to (B, C, height1, width1), bilinear, low-pass filtered when downscaling."""
    if resize.is_identity:
        return images
    size = [resize.height1, resize.width1]
    return torch.nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
