"""Square windows of images around points, read at fractions of a pixel, for all points at once.

A window of 13x13 px is one row of 205 numbers: its lines are 16 numbers apart, and the 3 between them mean nothing. So
a pass over all windows is one long loop for each, not one for each line, and neighbouring pixels are a slice of it.

Nothing here waits for the device, and no shape depends on values.
"""

from __future__ import annotations

import torch

__all__ = ["LENGTH", "NUM_PIXELS", "centred_", "has_window", "offsets", "read_differences", "read_windows"]

RADIUS_PX = 6
_SIDE = 2 * RADIUS_PX + 1
_PITCH = 16  # 64 bytes: a line of the cache
LENGTH = _PITCH * (_SIDE - 1) + _SIDE
NUM_PIXELS = _SIDE * _SIDE
_MARGIN_PX = RADIUS_PX + 1  # gradients need a pixel more


def read_windows(images: torch.Tensor, rows: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """(C, `LENGTH`) windows around points; those of points without `has_window` are shifted.

    Args:
        images: (N, H, W), contiguous, at least 16x16 px.
        rows: (C,) int64, the image of each point.
        centres: (C, 2) px.
    """
    pixels, fraction_x, fraction_y = _pixels(images, rows, centres, RADIUS_PX)
    mixed = torch.lerp(pixels[:, 1:-1], pixels[:, 2:], fraction_x)
    return torch.lerp(mixed[:, :LENGTH], mixed[:, _PITCH : LENGTH + _PITCH], fraction_y)


def read_differences(images: torch.Tensor, rows: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """(C, 3, `LENGTH`): differences along x and along y over two pixels, and windows as of `read_windows`."""
    pixels, fraction_x, fraction_y = _pixels(images, rows, centres, _MARGIN_PX)
    mixed = torch.lerp(pixels[:, :-1], pixels[:, 1:], fraction_x)
    wide = torch.lerp(mixed[:, :-_PITCH], mixed[:, _PITCH:], fraction_y)

    def at(line: int, column: int) -> torch.Tensor:
        first = line * _PITCH + column
        return wide[:, first : first + LENGTH]

    read = wide.new_empty((len(wide), 3, LENGTH))
    torch.sub(at(1, 2), at(1, 0), out=read[:, 0])
    torch.sub(at(2, 1), at(0, 1), out=read[:, 1])
    read[:, 2].copy_(at(1, 1))
    return read


def offsets(like: torch.Tensor) -> torch.Tensor:
    """(2, `LENGTH`) px, x and y of each pixel from the centre of its window."""
    places = torch.arange(LENGTH, device=like.device)
    lines = torch.div(places, _PITCH, rounding_mode="floor")
    return torch.stack([places - _PITCH * lines, lines]).to(like.dtype) - RADIUS_PX


def centred_(windows: torch.Tensor) -> torch.Tensor:
    """Subtracts the means of (..., `LENGTH`) windows in place, and sets what lies between their lines to 0."""
    is_pixel = (torch.arange(LENGTH, device=windows.device) % _PITCH < _SIDE).to(windows.dtype)
    means = windows @ (is_pixel / NUM_PIXELS)
    return windows.sub_(means[..., None]).mul_(is_pixel)


def has_window(points: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """(...) bool, whether the windows around (..., 2) points, and their gradients, lie in an (H, W) image."""
    height, width = image.shape
    x, y = points.unbind(-1)
    return (x >= _MARGIN_PX) & (y >= _MARGIN_PX) & (x < width - 1 - _MARGIN_PX) & (y < height - 1 - _MARGIN_PX)


def _pixels(
    images: torch.Tensor, rows: torch.Tensor, centres: torch.Tensor, above: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Whole pixels around points.

    Returns:
        (C, lines * 16): lines from `above` px above the centre to `above` + 1 px below, of 16 px from 7 px to the left;
        and (C, 1) each: the fractions of a pixel by which the centre lies to the right and below.
    """
    height, width = images.shape[1:]
    lines = 2 * above + 2
    corners = centres.floor()
    fractions = centres - corners
    x, y = corners.unbind(1)
    x, y = x.clamp(_MARGIN_PX, width - _PITCH + _MARGIN_PX), y.clamp(above, height - lines + above)
    centre = torch.add(torch.add(x.long(), y.long(), alpha=width), rows, alpha=height * width)
    first = -above * width - _MARGIN_PX
    starts = centre[:, None] + torch.arange(first, first + lines * width, width, device=images.device)
    pixels = images.flatten().unfold(0, _PITCH, 1).index_select(0, starts.flatten())
    return pixels.reshape(-1, lines * _PITCH), fractions[:, :1], fractions[:, 1:]
