"""The bars that tests measure against, in one place."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = [
    "PARITY",
    "REDUCED_PRECISION",
    "SILK_PARITY",
    "UNDISTORTION",
    "Parity",
    "ReducedPrecision",
    "SilkParity",
]


@dataclass(frozen=True)
class Parity:
    """How close to the reference outputs a network must come.

    Attributes:
        position_px: Largest distance at which a keypoint counts as the reference's.
        share: Least share of the reference keypoints that are found again.
        score: Largest difference of a score.
        cosine: Least cosine similarity of a descriptor.
        set_difference: Most keypoints in one set and not in the other, in threshold mode.
    """

    position_px: float = 0.01
    share: float = 0.998
    score: float = 1e-4
    cosine: float = 0.9999
    set_difference: int = 2


PARITY = Parity()


@dataclass(frozen=True)
class SilkParity:
    """How close to its reference outputs SiLK must come; every keypoint and pair must be there.

    Attributes:
        logit: Largest difference of a logit.
        position_px: Largest distance at which a keypoint counts as the reference's.
        tie: Rivals closer than this in similarity or probability may be ordered either way, as the README of the
            reference outputs says.
    """

    logit: float = 1e-4
    position_px: float = 1e-3
    tie: float = 1e-6


SILK_PARITY = SilkParity()


@dataclass(frozen=True)
class ReducedPrecision:
    """How close to float32 a network in half precision must come.

    Attributes:
        position_px: Largest distance at which a keypoint counts as the same.
        share: Least share of the float32 keypoints that are found again.
        cosine: Least median cosine similarity of the descriptors of those.
    """

    position_px: float
    share: float
    cosine: float


REDUCED_PRECISION = {
    torch.float16: ReducedPrecision(position_px=0.5, share=0.98, cosine=0.99),
    torch.bfloat16: ReducedPrecision(position_px=0.5, share=0.95, cosine=0.99),
}

# Largest difference of an undistorted coordinate, in normalised units (x/z, y/z).
UNDISTORTION = 1e-4

# Largest median relative error of the depth of a rendered stereo pair.
STEREO_MEDIAN_DEPTH_ERROR = 0.01
