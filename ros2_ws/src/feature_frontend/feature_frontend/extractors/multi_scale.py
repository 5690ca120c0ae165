"""One image at several scales, the best keypoints of all of them kept: the strategy that R2D2 calls MS.

Revaud et al., "R2D2: Reliable and Repeatable Detector and Descriptor", NeurIPS 2019, whom ALIKED (VI-C) follows. The
network sees the image at its usual size and then ever smaller, each time by 2^(1/4), as long as the longer side has
256 px. Each scale gives its own keypoints, with the whole budget, mask and grid; of all of them the best scores stay.

Non-maxima are suppressed within a scale, never across: one place may be a keypoint at several scales, each with the
descriptor of another neighbourhood. That is what matches a view from nearer with one from farther away, where the
network itself would have to say which scale is the place's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from feature_frontend.extractors.base import DetectionOptions, NetworkFeatures, PaddedFeatures
from feature_frontend.extractors.networks.layers.selection import select_padded_points
from feature_frontend.image.resize import Resize

__all__ = ["SMALLEST_SIDE", "extract_at_scales", "pyramid", "sparse_at_scales"]

SMALLEST_SIDE = 256  # px, of an image's longer side
_SCALES_PER_OCTAVE = 4


def pyramid(resize: Resize, minimum: int) -> tuple[Resize, ...]:
    """The sizes at which the network sees an image, the largest first, each from the image as published.

    Args:
        resize: To the largest.
        minimum: Smallest side in px that the network takes.
    """
    levels = [resize]
    while True:
        scale = 2.0 ** (-len(levels) / _SCALES_PER_OCTAVE)
        height, width = round(scale * resize.height1), round(scale * resize.width1)
        if max(height, width) < SMALLEST_SIDE or min(height, width) < minimum:
            return tuple(levels)
        levels.append(replace(resize, height1=height, width1=width))


def extract_at_scales(
    extract: Callable[[Resize, DetectionOptions], list[NetworkFeatures]],
    resize: Resize,
    options: DetectionOptions,
    minimum: int,
) -> list[NetworkFeatures]:
    """Features of a batch, best score first: at several scales with `multi_scale`, otherwise at the one of `resize`.

    Args:
        extract: Gives the features of each image in the coordinates of the resized one.
        resize: To the largest scale, in whose coordinates all features are.
        options: How keypoints are picked.
        minimum: Smallest side in px that the network takes.
    """
    if not options.multi_scale:
        return extract(resize, options)
    levels = pyramid(resize, minimum)
    found = [extract(level, _options_at(level, resize, options)) for level in levels]
    return [_merged(of_image, levels, options) for of_image in zip(*found, strict=True)]


def sparse_at_scales(
    sparse: Callable[[Resize, DetectionOptions], PaddedFeatures],
    resize: Resize,
    options: DetectionOptions,
    minimum: int,
) -> PaddedFeatures:
    """The same with padding. Shapes do not depend on what is in the images, and nothing here waits for the device."""
    if not options.multi_scale:
        return sparse(resize, options)
    levels = pyramid(resize, minimum)
    found = [sparse(level, _options_at(level, resize, options)) for level in levels]
    keypoints = torch.cat([_enlarge(one.keypoints, level, resize) for one, level in zip(found, levels, strict=True)], 1)
    scores = torch.cat([one.scores for one in found], dim=1)
    is_found = torch.cat(
        [torch.arange(one.scores.shape[1], device=scores.device) < one.counts[:, None] for one in found], dim=1
    )
    size = (resize.height1, resize.width1)
    rows, counts = select_padded_points(keypoints, scores, is_found, size, options)
    descriptors = torch.cat([one.descriptors for one in found], dim=1)
    return PaddedFeatures(
        keypoints.take_along_dim(rows[:, :, None], dim=1),
        scores.gather(1, rows),
        descriptors.take_along_dim(rows[:, :, None], dim=1),
        counts,
        torch.cat([_scales_at(level, resize, one.scores) for one, level in zip(found, levels, strict=True)], 1).gather(
            1, rows
        ),
    )


def _options_at(level: Resize, largest: Resize, options: DetectionOptions) -> DetectionOptions:
    """The same options for a smaller image: its border is as wide on the largest one, or less than a pixel wider."""
    scale = max(level.height1 / largest.height1, level.width1 / largest.width1)
    return replace(options, border=math.ceil(scale * options.border))


def _enlarge(points: torch.Tensor, level: Resize, largest: Resize) -> torch.Tensor:
    """(..., 2) points (x, y) px of one level, on the largest."""
    return _between(level, largest).invert(points)


def _scales_at(level: Resize, largest: Resize, scores: torch.Tensor) -> torch.Tensor:
    """`NetworkFeatures.scales` of points with these scores, of one level."""
    return _between(level, largest).invert_lengths(torch.ones_like(scores))


def _between(level: Resize, largest: Resize) -> Resize:
    return Resize(largest.height1, largest.width1, level.height1, level.width1)


def _merged(found: Sequence[NetworkFeatures], levels: Sequence[Resize], options: DetectionOptions) -> NetworkFeatures:
    """Of the features of one image at all levels, those that get the places of the budget."""
    largest = levels[0]
    keypoints = torch.cat([_enlarge(one.keypoints, level, largest) for one, level in zip(found, levels, strict=True)])
    scores = torch.cat([one.scores for one in found])
    is_found = torch.ones_like(scores, dtype=torch.bool)
    size = (largest.height1, largest.width1)
    rows = select_padded_points(keypoints[None], scores[None], is_found[None], size, options)[0][0]
    sizes = [
        None if one.sizes is None else _between(level, largest).invert_lengths(one.sizes)
        for one, level in zip(found, levels, strict=True)
    ]
    return NetworkFeatures(
        keypoints[rows],
        scores[rows],
        torch.cat([one.descriptors for one in found])[rows],
        _rows_of(sizes, rows),
        _rows_of([one.angles for one in found], rows),
        torch.cat([_scales_at(level, largest, one.scores) for one, level in zip(found, levels, strict=True)])[rows],
    )


def _rows_of(parts: Sequence[torch.Tensor | None], rows: torch.Tensor) -> torch.Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there)[rows] if there else None
