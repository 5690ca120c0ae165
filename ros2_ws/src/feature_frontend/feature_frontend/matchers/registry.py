"""The matchers by name."""

from __future__ import annotations

from collections.abc import Callable

from feature_frontend.matchers.base import MatcherProtocol, MatchingOptions
from feature_frontend.matchers.lightglue import LightGlueMatcher
from feature_frontend.matchers.mutual_nn import MutualNearestNeighborMatcher

__all__ = ["MATCHERS"]

MATCHERS: dict[str, Callable[[MatchingOptions], MatcherProtocol]] = {
    "mnn": MutualNearestNeighborMatcher,
    "lightglue": LightGlueMatcher.from_pretrained,
}
