"""The interface of a matcher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from feature_frontend.errors import MatchingError
from feature_frontend.types import Features, Matches

__all__ = ["MatcherProtocol", "MatchingOptions", "PaddedMatcher", "PaddedMatches", "check_comparable"]


@dataclass(frozen=True)
class MatchingOptions:
    """Gates of a matcher, and its weights; each field has the meaning of the parameter of the same name."""

    min_similarity: float
    ratio_threshold: float
    double_softmax_temperature: float
    double_softmax_threshold: float
    lightglue_threshold: float = 0.1
    lightglue_weights_path: str = ""
    weights_dir: str = ""


@dataclass(frozen=True)
class PaddedMatches:
    """`Matches` padded to fixed length: one row for each of the K0 rows of the earlier image's features.

    Attributes:
        keep: (K0,) bool, whether the row is a match; other rows are undefined.
        index: (K0,) int64, row of the current features.
        similarity: (K0,) float32.
        margin: (K0,) float32.
    """

    keep: torch.Tensor
    index: torch.Tensor
    similarity: torch.Tensor
    margin: torch.Tensor

    def unpadded(self, matcher: str) -> Matches:
        """The matches, with this matcher name; waits for the device."""
        indices0 = self.keep.nonzero()[:, 0]
        return Matches(indices0, self.index[indices0], self.similarity[indices0], self.margin[indices0], matcher)


class MatcherProtocol(Protocol):
    """Finds which keypoints of two images match."""

    name: str

    def match(self, features0: Features, features1: Features) -> Matches:
        """Matches from the earlier to the current image, in the order of `indices0`."""


class PaddedMatcher(MatcherProtocol, Protocol):
    """A matcher whose work on padded descriptors has fixed shapes and never waits for the device."""

    options: MatchingOptions

    def padded(
        self, descriptors0: torch.Tensor, count0: torch.Tensor, descriptors1: torch.Tensor, count1: torch.Tensor
    ) -> PaddedMatches:
        """Matches of (K0, D) and (K1, D) descriptors; the first `count0` and `count1` () rows are valid."""


def check_comparable(features0: Features, features1: Features) -> None:
    """Checks that two images' features can be matched.

    Raises:
        MatchingError: They come from different extractors or weights, or their descriptors differ in length.
    """
    if features0.extractor != features1.extractor:
        names = f"{features0.extractor} and {features1.extractor}"
        raise MatchingError(f"descriptors of {names} do not compare; extract both images with the same extractor")
    if len(features0) and len(features1) and features0.descriptor_dim != features1.descriptor_dim:
        raise MatchingError(
            f"descriptors have {features0.descriptor_dim} and {features1.descriptor_dim} elements, both said to be of "
            f"{features0.extractor}; expected one length: extract both images with the same weights"
        )
