"""All tolerances used by tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = [
    "DEVICE",
    "ONNX_PARITY",
    "PARITY",
    "REDUCED_PRECISION",
    "SEQUENCE_TRACKING",
    "SILK_PARITY",
    "TRACKING",
    "UNDISTORTION",
    "DeviceAgreement",
    "OnnxParity",
    "Parity",
    "ReducedPrecision",
    "SequenceTracking",
    "SilkParity",
    "Tracking",
]


@dataclass(frozen=True)
class Parity:
    """Required agreement of a network with its reference outputs.

    Attributes:
        position_px: Maximum distance at which a keypoint counts as the reference's.
        fraction: Minimum fraction of the reference keypoints that are found.
        score: Maximum difference of a score.
        cosine: Minimum cosine similarity of a descriptor.
        set_difference: Maximum number of keypoints in one set but not in the other, in threshold mode.
    """

    position_px: float = 0.01
    fraction: float = 0.998
    score: float = 1e-4
    cosine: float = 0.9999
    set_difference: int = 2


PARITY = Parity()


@dataclass(frozen=True)
class OnnxParity:
    """Required agreement of an exported file with the extractor of which it was made.

    Attributes:
        missing: Maximum fraction of keypoints further than 0.5 px from any of the other's: ties at the budget's end.
        position_px: Maximum distance of the others.
        score: Maximum difference of a score.
        cosine: Minimum cosine similarity of a descriptor.
    """

    missing: float = 0.005
    position_px: float = 0.02
    score: float = 1e-4
    cosine: float = 0.9999


ONNX_PARITY = OnnxParity()


@dataclass(frozen=True)
class SilkParity:
    """Required agreement of SiLK with its reference outputs; every keypoint and pair must be present.

    Attributes:
        logit: Maximum difference of a logit.
        position_px: Maximum distance at which a keypoint counts as the reference's.
        tie: Candidates closer than this in similarity or probability may be ordered either way, as the README of the
            reference outputs states.
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
        fraction: Least fraction of the float32 keypoints that are found again.
        cosine: Least median cosine similarity of the descriptors of those.
    """

    position_px: float
    fraction: float
    cosine: float


REDUCED_PRECISION = {
    torch.float16: ReducedPrecision(position_px=0.5, fraction=0.98, cosine=0.99),
    torch.bfloat16: ReducedPrecision(position_px=0.5, fraction=0.95, cosine=0.99),
}


@dataclass(frozen=True)
class DeviceAgreement:
    """Required agreement of two devices or execution modes with the same weights in float32, without TF32.

    Rounding differs between them. Continuous values then differ by about 1e-5 relative. A near tie for the last place
    in the budget, in non-maximum suppression or for the nearest descriptor may be resolved either way, and a keypoint
    on a pixel's edge may take the next pixel's descriptor; so the limits are fractions below 1. Measured on a CPU by
    perturbing each weight by a random relative error, aliked-n16 on TUM and KITTI at 320x240: up to 1e-6, all keypoints
    are the same; at 1e-5, at least 97 %; at 1e-4, a third. TF32 rounds to 5e-4.

    Attributes:
        position_px: Maximum distance at which a keypoint counts as the same.
        cosine: Minimum cosine similarity of its descriptor.
        score: Maximum difference of its score.
        fraction: Minimum fraction of each side's keypoints that the other side has, by all three.
        similarity: Maximum difference of a match's similarity, both matchers with the same features.
        pair_fraction: Minimum fraction of either matcher's pairs that both find.
        linked_fraction: Minimum fraction of a sequence's matches, from whole frames, that the other side has, by
            position.
        followed_px: Maximum distance at which a tracked point counts as the same; its errors accumulate.
        followed_fraction: Minimum fraction of each image's tracked points, and of the matches, that the other side has,
            with the same shapes. Over 8 images: 100 % with weights perturbed by 1e-5, 81 to 96 % with 1e-3.
        age: Maximum relative difference of an image's mean track age.
        logit: Maximum difference of a logit of SiLK with random weights.
    """

    position_px: float = 0.01
    cosine: float = 0.999
    score: float = 1e-4
    fraction: float = 0.99
    similarity: float = 1e-4
    pair_fraction: float = 0.99
    linked_fraction: float = 0.98
    followed_px: float = 0.1
    followed_fraction: float = 0.98
    age: float = 0.05
    logit: float = 1e-4


DEVICE = DeviceAgreement()

# Maximum difference of an undistorted coordinate, in normalised units (x/z, y/z).
UNDISTORTION = 1e-4

# Maximum median relative error of the depth of a rendered stereo pair.
STEREO_MEDIAN_DEPTH_ERROR = 0.01


@dataclass(frozen=True)
class Tracking:
    """Requirements for the persistent tracker.

    Attributes:
        fraction_alive_in_noise: Minimum fraction of points still tracked after 5 frames of a window that moves over a
            photograph, under noise, with the shipped network and a small budget.
        fraction_true_in_noise: Minimum fraction of such observations within 1 px of their true position.
        fraction_relinked: Minimum fraction of points seen again after an image that does not show them.
        fraction_invented: Maximum fraction of tracks reported as seen in an unrelated image.
        drift_px: Maximum median distance from a detection of the same point.
        velocity_px_s: Maximum error of the median velocity for known motion, at 10 Hz.
        same_point_px: Maximum distance between two computations of one point.
        fraction_same_when_padded: Minimum fraction of points also found with the padded shapes of a GPU.
    """

    fraction_alive_in_noise: float = 0.5
    fraction_true_in_noise: float = 0.96
    fraction_relinked: float = 0.5
    fraction_invented: float = 0.02
    drift_px: float = 0.5
    velocity_px_s: float = 0.5
    same_point_px: float = 0.05
    fraction_same_when_padded: float = 0.9


TRACKING = Tracking()


@dataclass(frozen=True)
class SequenceTracking:
    """Minimum fraction of aliked-n16's points, 1000 per image, that are alive 5 frames later."""

    fraction_alive: float


SEQUENCE_TRACKING = {"tum_fr2_desk": SequenceTracking(0.75), "kitti00": SequenceTracking(0.55)}
