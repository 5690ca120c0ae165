"""Creates matchers from settings."""

from __future__ import annotations

from feature_frontend.matchers.base import MatcherProtocol, MatchingOptions
from feature_frontend.matchers.registry import MATCHERS
from feature_frontend.settings.extraction import ExtractionSettings
from feature_frontend.settings.matching import MatchingSettings

__all__ = ["make_matcher", "matching_options"]


def make_matcher(settings: MatchingSettings) -> MatcherProtocol:
    """The matcher that `settings` describe.

    Raises:
        SettingsError: It needs a package that is not installed.
        WeightsError: Its weights are not available, or do not fit.
    """
    return MATCHERS[settings.matcher](matching_options(settings))


def matching_options(settings: MatchingSettings) -> MatchingOptions:
    """Everything that a matcher depends on besides its name."""
    return MatchingOptions(
        min_similarity=settings.min_similarity,
        ratio_threshold=settings.ratio_threshold,
        double_softmax_temperature=settings.double_softmax_temperature,
        double_softmax_threshold=settings.double_softmax_threshold,
        lightglue_threshold=settings.lightglue_threshold,
        lightglue_weights_path=settings.lightglue_weights_path,
        weights_dir=settings.weights_dir if isinstance(settings, ExtractionSettings) else "",
    )
