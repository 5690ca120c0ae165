"""Chooses the frame matcher for the extractor, the matcher and the device."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from feature_frontend.extractors.extractor import Extractor
from feature_frontend.matchers.base import MatcherProtocol, PaddedMatcher
from feature_frontend.matchers.factory import make_matcher
from feature_frontend.models.catalog import AUTO, MATCHER_MODELS
from feature_frontend.pipeline.base import FrameMatcher
from feature_frontend.pipeline.cuda_graphs import GraphFrameMatcher
from feature_frontend.pipeline.persistent import PersistentFrameMatcher
from feature_frontend.pipeline.persistent_cuda_graphs import PersistentGraphFrameMatcher
from feature_frontend.pipeline.plain import PlainFrameMatcher
from feature_frontend.settings.settings import Settings

__all__ = ["frame_matcher_of", "make_frame_matcher", "with_tracker"]


def make_frame_matcher(extractor: Extractor, matcher: MatcherProtocol, *, is_stereo: bool = False) -> FrameMatcher:
    """Uses captured graphs if extractor and matcher support them; for stereo, only the extraction is captured."""
    if extractor.graph_device is not None and MATCHER_MODELS[matcher.name].takes_padding and not is_stereo:
        return GraphFrameMatcher(extractor, cast(PaddedMatcher, matcher), extractor.graph_device)
    return PlainFrameMatcher(extractor, matcher)


def with_tracker(extractor: Extractor, settings: Settings) -> tuple[Settings, str]:
    """`settings` with the tracker that "auto" stands for, unchanged if they name one.

    Returns:
        The settings, and why "auto" is not persistent; "" if it is, or if they name one.
    """
    if settings.tracker != AUTO:
        return settings, ""
    tracker, why = settings.automatic_tracker
    if tracker == "persistent" and not extractor.has_maps:
        tracker, why = "chain", f"{extractor.identity} has no score map"
    return replace(settings, tracker=tracker), why


def frame_matcher_of(extractor: Extractor, settings: Settings) -> FrameMatcher:
    """The frame matcher for this extractor and these settings, which name the tracker."""
    if settings.tracker == "persistent":
        if extractor.graph_device is not None:
            return PersistentGraphFrameMatcher(extractor, make_matcher(settings), settings, extractor.graph_device)
        return PersistentFrameMatcher(extractor, make_matcher(settings), settings)
    return make_frame_matcher(extractor, make_matcher(settings), is_stereo=settings.camera_type == "stereo")
