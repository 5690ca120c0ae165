"""What a matcher offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from feature_frontend.errors import MatchingError
from feature_frontend.types import Features, Matches

__all__ = ["MatcherProtocol", "MatchingOptions", "check_comparable"]


@dataclass(frozen=True)
class MatchingOptions:
    """Gates of a matcher; the meaning of each is that of the parameter of the same name."""

    min_similarity: float
    ratio_threshold: float
    double_softmax_temperature: float
    double_softmax_threshold: float


class MatcherProtocol(Protocol):
    """Finds which keypoints of two images correspond."""

    name: str

    def __call__(self, features0: Features, features1: Features) -> Matches:
        """Matches from the earlier to the current image, in the order of `indices0`."""


def check_comparable(features0: Features, features1: Features) -> None:
    """Accepts two images' features that may be matched.

    Raises:
        MatchingError: They come from different extractors or weights.
    """
    if features0.extractor != features1.extractor:
        names = f"{features0.extractor} and {features1.extractor}"
        msg = f"descriptors of {names} do not compare; extract both images with the same extractor"
        raise MatchingError(msg)
