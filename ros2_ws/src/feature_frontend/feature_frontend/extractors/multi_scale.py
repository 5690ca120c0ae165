"""Multi-scale extraction: runs the network at several image sizes and keeps the best keypoints (R2D2's strategy MS).

Revaud et al., "R2D2: Reliable and Repeatable Detector and Descriptor", NeurIPS 2019, which ALIKED (VI-C) follows. The
network processes the image at its usual size and then at smaller sizes, in steps of 2^(1/4), while the longer side has
at least 256 px. Each scale is detected with the whole budget, mask and grid; the best scores over all scales are kept.

Non-maxima are suppressed within a scale, never across scales: one location may be a keypoint at several scales, each
with the descriptor of a different neighbourhood. This is what matches a near view with a far one, without the network
having to estimate the scale of the location.
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
    """The sizes at which the network processes an image, the largest first, each from the image as published.

    Args:
        resize: To the largest size.
        minimum: Minimum side in px that the network accepts.
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
        extract: Returns the features of each image in the coordinates of the resized image.
        resize: To the largest scale; all features are in its coordinates.
        options: How keypoints are selected.
        minimum: Minimum side in px that the network accepts.
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
    """The same with padding. Shapes do not depend on the images' content, and nothing waits for the device."""
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
    covariances = torch.cat(
        [_between(level, resize).invert_covariances(one.covariances) for one, level in zip(found, levels, strict=True)],
        dim=1,
    )
    return PaddedFeatures(
        keypoints.take_along_dim(rows[:, :, None], dim=1),
        scores.gather(1, rows),
        descriptors.take_along_dim(rows[:, :, None], dim=1),
        counts,
        torch.cat([_scales_at(level, resize, one.scores) for one, level in zip(found, levels, strict=True)], 1).gather(
            1, rows
        ),
        covariances.take_along_dim(rows[:, :, None], dim=1),
    )


def _options_at(level: Resize, largest: Resize, options: DetectionOptions) -> DetectionOptions:
    """Options for a smaller image: on the largest image its border is as wide, or less than a pixel wider."""
    scale = max(level.height1 / largest.height1, level.width1 / largest.width1)
    return replace(options, border=math.ceil(scale * options.border))


def _enlarge(points: torch.Tensor, level: Resize, largest: Resize) -> torch.Tensor:
    """(..., 2) points (x, y) px of one level, in px of the largest."""
    return _between(level, largest).invert(points)


def _scales_at(level: Resize, largest: Resize, scores: torch.Tensor) -> torch.Tensor:
    """`NetworkFeatures.scales` of the points of one level; only the shape of `scores` matters."""
    return _between(level, largest).invert_lengths(torch.ones_like(scores))


def _between(level: Resize, largest: Resize) -> Resize:
    return Resize(largest.height1, largest.width1, level.height1, level.width1)


def _merged(found: Sequence[NetworkFeatures], levels: Sequence[Resize], options: DetectionOptions) -> NetworkFeatures:
    """Selects the budget's best features of one image over all levels."""
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
    covariances = [
        None if one.covariances is None else _between(level, largest).invert_covariances(one.covariances)
        for one, level in zip(found, levels, strict=True)
    ]
    return NetworkFeatures(
        keypoints[rows],
        scores[rows],
        torch.cat([one.descriptors for one in found])[rows],
        _rows_of(sizes, rows),
        _rows_of([one.angles for one in found], rows),
        torch.cat([_scales_at(level, largest, one.scores) for one, level in zip(found, levels, strict=True)])[rows],
        _rows_of(covariances, rows),
    )


def _rows_of(parts: Sequence[torch.Tensor | None], rows: torch.Tensor) -> torch.Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there)[rows] if there else None
