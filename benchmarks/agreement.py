"""Checks that two engines compute the same: only then can their speeds be compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.engines.extraction import Found
from feature_frontend.errors import FeatureFrontendError

__all__ = ["POSITION_PX", "Agreement", "DisagreementError", "compare_found"]

POSITION_PX = 0.5
_LEAST_FRACTION, _LEAST_COSINE = 0.98, 0.99


class DisagreementError(FeatureFrontendError):
    """Two engines that should compute the same results differ."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of two results on one image.

    Attributes:
        strongest_fraction: Fraction of the better half of the other engine's keypoints that the reference also has,
            within `POSITION_PX`. Near 1 if both rank the same candidates, whatever the budget cuts off.
        fraction: Fraction of all of the reference's keypoints that the other engine also has.
        median_distance_px: Median distance of those keypoints.
        median_cosine: Median cosine similarity of their descriptors.
    """

    strongest_fraction: float
    fraction: float
    median_distance_px: float
    median_cosine: float

    def check(self, name: str) -> None:
        """Accepts only results of the same network on the same image.

        Raises:
            DisagreementError: The results differ too much.
        """
        if not (self.strongest_fraction >= _LEAST_FRACTION and self.median_cosine >= _LEAST_COSINE):
            msg = (
                f"of the better half of what {name} finds, the reference has {self.strongest_fraction:.1%} within "
                f"{POSITION_PX} px, median cosine {self.median_cosine:.4f}; expected at least {_LEAST_FRACTION:.0%}, "
                f"{_LEAST_COSINE}: its results differ, so its time cannot be compared; check its weights "
                "and version, or leave it out by --engines"
            )
            raise DisagreementError(msg)

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def compare_found(reference: Found, other: Found) -> Agreement:
    """The agreement of two results, each sorted by score, with L2-normalised descriptors.

    Raises:
        DisagreementError: One of them is empty.
    """
    if len(reference.keypoints) == 0 or len(other.keypoints) == 0:
        counts = f"{len(reference.keypoints)} and {len(other.keypoints)}"
        msg = f"{counts} keypoints cannot be compared; expected some of both: choose images with texture by --images"
        raise DisagreementError(msg)
    distances = np.linalg.norm(reference.keypoints[:, None] - other.keypoints[None], axis=2)
    nearest, distance = distances.argmin(axis=1), distances.min(axis=1)
    better_half = distances.min(axis=0)[: max(1, len(other.keypoints) // 2)]
    near = distance <= POSITION_PX
    # Row by row: the cosine of the two descriptors of each common keypoint.
    cosine = np.sum(reference.descriptors[near] * other.descriptors[nearest[near]], axis=1)
    return Agreement(
        strongest_fraction=float((better_half <= POSITION_PX).mean()),
        fraction=float(near.mean()),
        median_distance_px=float(np.median(distance[near])) if near.any() else float(np.median(distance)),
        median_cosine=float(np.median(cosine)) if near.any() else -1.0,
    )
