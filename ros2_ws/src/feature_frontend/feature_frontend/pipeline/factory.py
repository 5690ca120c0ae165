"""Which way of extracting and matching fits the extractor, the matcher and the device."""

from __future__ import annotations

from typing import cast

from feature_frontend.extractors.extractor import Extractor
from feature_frontend.matchers.base import MatcherProtocol, PaddedMatcher
from feature_frontend.matchers.factory import make_matcher
from feature_frontend.models.catalog import MATCHER_MODELS
from feature_frontend.pipeline.base import Pairing
from feature_frontend.pipeline.cuda_graphs import RecordedPairing
from feature_frontend.pipeline.persistent import PersistentPairing
from feature_frontend.pipeline.persistent_cuda_graphs import RecordedPersistentPairing
from feature_frontend.pipeline.plain import PlainPairing
from feature_frontend.settings.settings import Settings

__all__ = ["make_pairing", "pairing_of"]


def make_pairing(extractor: Extractor, matcher: MatcherProtocol, *, is_stereo: bool = False) -> Pairing:
    """Recorded where the extractor is and the matcher can be; of stereo pairs only the extraction is."""
    if extractor.recorder is not None and MATCHER_MODELS[matcher.name].takes_padding and not is_stereo:
        return RecordedPairing(extractor, cast(PaddedMatcher, matcher), extractor.recorder)
    return PlainPairing(extractor, matcher)


def pairing_of(extractor: Extractor, settings: Settings) -> Pairing:
    """The way that fits the extractor and the settings."""
    if settings.tracker == "persistent":
        if extractor.recorder is not None:
            return RecordedPersistentPairing(extractor, make_matcher(settings), settings, extractor.recorder)
        return PersistentPairing(extractor, make_matcher(settings), settings)
    return make_pairing(extractor, make_matcher(settings), is_stereo=settings.camera_type == "stereo")
