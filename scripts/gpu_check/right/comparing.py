"""Compares the results of two sides and checks whether they agree sufficiently."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from feature_frontend.types import Features, FrameResult, Matches
from tests.tolerances import DEVICE, DeviceAgreement

__all__ = [
    "FeatureAgreement",
    "MatchAgreement",
    "SequenceAgreement",
    "compare_features",
    "compare_matches",
    "compare_sequences",
    "fingerprint",
]

_COARSE_PX = 0.1


@dataclass(frozen=True)
class FeatureAgreement:
    """Agreement of two sets of features of one image.

    Attributes:
        count0: Number of the reference's keypoints.
        count1: Number of the other side's keypoints.
        fraction: Fraction of one side's keypoints that the other has, by position, score and descriptor; the smaller of
            both.
        share_near: The same by position alone, within `position_px`.
        share_coarse: The same within 0.1 px.
        median_px: Median distance from a reference keypoint to the other side's nearest.
        worst_score: Maximum difference of scores among those within `position_px`.
        least_cosine: Minimum cosine similarity of descriptors among them.
        passes: Whether the fraction is sufficient.
    """

    count0: int
    count1: int
    fraction: float
    share_near: float
    share_coarse: float
    median_px: float
    worst_score: float
    least_cosine: float
    passes: bool

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def compare_features(reference: Features, other: Features, bars: DeviceAgreement = DEVICE) -> FeatureAgreement:
    """Compares two sets of features; an empty set on one side only counts as no agreement."""
    reference, other = reference.to("cpu"), other.to("cpu")
    count0, count1 = len(reference), len(other)
    if count0 == 0 or count1 == 0:
        fraction = float(count0 == count1)
        return FeatureAgreement(count0, count1, fraction, fraction, fraction, 0.0, 0.0, 1.0, fraction == 1.0)
    distances = torch.cdist(reference.keypoints.double(), other.keypoints.double())
    near = distances <= bars.position_px
    scores = (reference.scores[:, None] - other.scores[None]).abs()
    cosines = reference.descriptors.float() @ other.descriptors.float().T
    same = near & (scores <= bars.score) & (cosines >= bars.cosine)
    fraction = _smaller_fraction(same)
    return FeatureAgreement(
        count0=count0,
        count1=count1,
        fraction=fraction,
        share_near=_smaller_fraction(near),
        share_coarse=_smaller_fraction(distances <= _COARSE_PX),
        median_px=float(distances.amin(dim=1).median()),
        worst_score=float(scores[near].max()) if near.any() else 1.0,
        least_cosine=float(cosines[near].min()) if near.any() else -1.0,
        # NaN fails every comparison.
        passes=fraction >= bars.fraction and bool(torch.isfinite(other.descriptors.float()).all()),
    )


@dataclass(frozen=True)
class MatchAgreement:
    """Agreement of two matchers' pairs for the same features.

    Attributes:
        count0: Number of the reference's pairs.
        count1: Number of the other side's pairs.
        fraction: Fraction of all pairs that both have.
        worst_similarity: Maximum difference of the similarity among those.
        passes: Whether both are within tolerance.
    """

    count0: int
    count1: int
    fraction: float
    worst_similarity: float
    passes: bool

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def compare_matches(reference: Matches, other: Matches, bars: DeviceAgreement = DEVICE) -> MatchAgreement:
    """Compares two sets of pairs of the same rows."""
    sides = [
        dict(
            zip(
                zip(matches.indices0.tolist(), matches.indices1.tolist(), strict=True),
                matches.similarity.tolist(),
                strict=True,
            )
        )
        for matches in (reference.to("cpu"), other.to("cpu"))
    ]
    both, either = sides[0].keys() & sides[1].keys(), sides[0].keys() | sides[1].keys()
    fraction = len(both) / len(either) if either else 1.0
    worst = max((abs(sides[0][pair] - sides[1][pair]) for pair in both), default=0.0)
    passes = fraction >= bars.pair_fraction and worst <= bars.similarity
    return MatchAgreement(len(reference), len(other), fraction, worst, passes)


@dataclass(frozen=True)
class SequenceAgreement:
    """Agreement of two runs of a whole front-end over the same images.

    Attributes:
        images: Number of images.
        points: Minimum over the images of the fraction of points that both have.
        links: Fraction of the matches that both have, by the position of both ends; 1 if neither has any.
        ages: Maximum relative difference of an image's mean track age.
        passes: Whether all are within tolerance.
    """

    images: int
    points: float
    links: float
    ages: float
    passes: bool

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def compare_sequences(
    reference: Sequence[FrameResult],
    other: Sequence[FrameResult],
    *,
    least_points: float,
    least_links: float,
    bars: DeviceAgreement = DEVICE,
) -> SequenceAgreement:
    """Compares two runs.

    Args:
        reference: One result per image.
        other: The other side's results for the same images.
        least_points: Minimum for the points.
        least_links: Minimum for the matches.
        bars: When points count as the same, and the tolerance of the ages.
    """
    pairs = list(zip(reference, other, strict=True))
    points = min(_points_in_common(one, two, bars.followed_px) for one, two in pairs)
    counts = [_links_in_common(one, two, bars.followed_px) for one, two in pairs]
    all_links = sum(most for _, most in counts)
    links = sum(common for common, _ in counts) / all_links if all_links else 1.0
    ages = max(_age_difference(one, two) for one, two in pairs)
    passes = points >= least_points and links >= least_links and ages <= bars.age
    return SequenceAgreement(len(pairs), points, links, ages, passes)


def fingerprint(*tensors: torch.Tensor) -> str:
    """A fingerprint of shapes, dtypes and bytes: equal only for equal results."""
    digest = hashlib.sha256()
    for tensor in tensors:
        on_host = tensor.detach().to("cpu").contiguous()
        digest.update(f"{tuple(on_host.shape)} {on_host.dtype}".encode())
        digest.update(on_host.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _smaller_fraction(same: torch.Tensor) -> float:
    """(N0, N1) bool, which are the same: the fraction of rows or of columns with a partner, whichever is smaller."""
    if 0 in same.shape:
        return float(same.shape[0] == same.shape[1])
    return min(float(same.any(dim=dim).double().mean()) for dim in (0, 1))


def _ends(result: FrameResult) -> torch.Tensor:
    """(M, 4): start and end point of each match, px."""
    return torch.cat([result.keypoints0, result.features.keypoints[result.matches.indices1]], dim=1).double()


def _points_in_common(one: FrameResult, two: FrameResult, within_px: float) -> float:
    keypoints = one.features.keypoints.double(), two.features.keypoints.double()
    return _smaller_fraction(torch.cdist(*keypoints) <= within_px)


def _links_in_common(one: FrameResult, two: FrameResult, within_px: float) -> tuple[int, int]:
    """Number of matches that both have, and the larger of the two totals."""
    ends0, ends1 = _ends(one), _ends(two)
    most = max(len(ends0), len(ends1))
    if 0 in (len(ends0), len(ends1)):
        return 0, most
    # The maximum coordinate difference covers both ends at once.
    near = (ends0[:, None] - ends1[None]).abs().amax(dim=2) <= within_px
    return min(int(near.any(dim=dim).sum()) for dim in (0, 1)), most


def _age_difference(one: FrameResult, two: FrameResult) -> float:
    ages = [float(result.tracks.ages.mean()) if len(result.tracks) else 0.0 for result in (one, two)]
    return abs(ages[0] - ages[1]) / max(ages[0], 1.0)
