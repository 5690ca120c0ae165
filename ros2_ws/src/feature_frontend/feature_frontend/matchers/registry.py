"""The matchers by name, and which extractors they are for."""

from __future__ import annotations

from collections.abc import Callable

from feature_frontend.matchers.base import MatcherProtocol, MatchingOptions
from feature_frontend.matchers.lightglue import LIGHTGLUE_EXTRACTORS, LightGlueMatcher
from feature_frontend.matchers.mutual_nearest_neighbor import MutualNearestNeighborMatcher

__all__ = ["MATCHERS", "MATCHER_EXTRACTORS"]

MATCHERS: dict[str, Callable[[MatchingOptions], MatcherProtocol]] = {
    "mnn": MutualNearestNeighborMatcher,
    "lightglue": LightGlueMatcher.from_pretrained,
}

# A matcher that is not here takes any extractor's descriptors.
MATCHER_EXTRACTORS = {"lightglue": LIGHTGLUE_EXTRACTORS}
