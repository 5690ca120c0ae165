"""How much of what one side finds the other one finds too, and whether that is enough."""

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
    """Two sets of features of one image.

    Attributes:
        count0: Keypoints of the reference.
        count1: Keypoints of the other side.
        share: Of the side with the smaller share, the keypoints that the other has: position, score, descriptor.
        share_near: The same by position alone, within `position_px`.
        share_coarse: The same within 0.1 px.
        median_px: Median distance from a reference keypoint to the other side's nearest.
        worst_score: Largest difference of scores among those within `position_px`.
        least_cosine: Least cosine similarity of descriptors among them.
        passes: Whether the share is enough.
    """

    count0: int
    count1: int
    share: float
    share_near: float
    share_coarse: float
    median_px: float
    worst_score: float
    least_cosine: float
    passes: bool

    def as_json(self) -> dict[str, Any]:
        """Every field."""
        return asdict(self)


def compare_features(reference: Features, other: Features, bars: DeviceAgreement = DEVICE) -> FeatureAgreement:
    """How much two sets of features have in common; nothing on one side only is no agreement."""
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
        share=fraction,
        share_near=_smaller_fraction(near),
        share_coarse=_smaller_fraction(distances <= _COARSE_PX),
        median_px=float(distances.amin(dim=1).median()),
        worst_score=float(scores[near].max()) if near.any() else 1.0,
        least_cosine=float(cosines[near].min()) if near.any() else -1.0,
        # Not below a bar: what is not a number meets none.
        passes=fraction >= bars.fraction and bool(torch.isfinite(other.descriptors.float()).all()),
    )


@dataclass(frozen=True)
class MatchAgreement:
    """Two matchers' pairs of the same features.

    Attributes:
        count0: Pairs of the reference.
        count1: Pairs of the other side.
        share: Of the pairs that either has, those that both have.
        worst_similarity: Largest difference of the similarity among those.
        passes: Whether both are in their bars.
    """

    count0: int
    count1: int
    share: float
    worst_similarity: float
    passes: bool

    def as_json(self) -> dict[str, Any]:
        """Every field."""
        return asdict(self)


def compare_matches(reference: Matches, other: Matches, bars: DeviceAgreement = DEVICE) -> MatchAgreement:
    """How much two sets of pairs of the same rows have in common."""
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
    """Two runs of a whole front-end over the same images.

    Attributes:
        images: How many.
        points: Least share over the images of the points that both have.
        links: Share of the matches that both have, both ends by position; 1 where neither has any.
        ages: Largest difference of an image's mean age of tracks, as a share of it.
        passes: Whether all are in their bars.
    """

    images: int
    points: float
    links: float
    ages: float
    passes: bool

    def as_json(self) -> dict[str, Any]:
        """Every field."""
        return asdict(self)


def compare_sequences(
    reference: Sequence[FrameResult],
    other: Sequence[FrameResult],
    *,
    least_points: float,
    least_links: float,
    bars: DeviceAgreement = DEVICE,
) -> SequenceAgreement:
    """How much two runs have in common.

    Args:
        reference: One result an image.
        other: The other side's, of the same images.
        least_points: Bar of the points.
        least_links: Bar of the matches.
        bars: Which points count as the same, and the bar of the ages.
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
    """Of shapes, types and bytes: equal for the same results and for no others."""
    digest = hashlib.sha256()
    for tensor in tensors:
        on_host = tensor.detach().to("cpu").contiguous()
        digest.update(f"{tuple(on_host.shape)} {on_host.dtype}".encode())
        digest.update(on_host.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _smaller_fraction(same: torch.Tensor) -> float:
    """(N0, N1) bool, which are the same: the share of rows or of columns that have one, whichever is the smaller."""
    if 0 in same.shape:
        return float(same.shape[0] == same.shape[1])
    return min(float(same.any(dim=dim).double().mean()) for dim in (0, 1))


def _ends(result: FrameResult) -> torch.Tensor:
    """(M, 4): where each match began and where it ends, px."""
    return torch.cat([result.keypoints0, result.features.keypoints[result.matches.indices1]], dim=1).double()


def _points_in_common(one: FrameResult, two: FrameResult, within_px: float) -> float:
    keypoints = one.features.keypoints.double(), two.features.keypoints.double()
    return _smaller_fraction(torch.cdist(*keypoints) <= within_px)


def _links_in_common(one: FrameResult, two: FrameResult, within_px: float) -> tuple[int, int]:
    """Matches that both have, and how many the one with the more has."""
    ends0, ends1 = _ends(one), _ends(two)
    most = max(len(ends0), len(ends1))
    if 0 in (len(ends0), len(ends1)):
        return 0, most
    # The largest difference of a coordinate: both ends at once.
    near = (ends0[:, None] - ends1[None]).abs().amax(dim=2) <= within_px
    return min(int(near.any(dim=dim).sum()) for dim in (0, 1)), most


def _age_difference(one: FrameResult, two: FrameResult) -> float:
    ages = [float(result.tracks.ages.mean()) if len(result.tracks) else 0.0 for result in (one, two)]
    return abs(ages[0] - ages[1]) / max(ages[0], 1.0)
