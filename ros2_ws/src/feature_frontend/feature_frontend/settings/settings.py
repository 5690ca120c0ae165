"""Every parameter of the front-end, declared once.

The ROS parameters with their descriptors, the YAML files, docs/parameters.md, the tools' options and the keyword
arguments of the Python API are all derived from the fields below. A field declares its default, unit, bounds or
choices, what it does, and whether it can change while the node runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from feature_frontend.errors import SettingsError
from feature_frontend.models.catalog import EXTRACTOR_MODELS, named_by
from feature_frontend.settings.extraction import ExtractionSettings
from feature_frontend.settings.matching import EpipolarSettings, MatchingSettings, check_extractor
from feature_frontend.settings.node import NodeSettings
from feature_frontend.settings.parameter import ParameterRecord
from feature_frontend.settings.stereo import StereoSettings
from feature_frontend.settings.tracking import TrackingSettings

__all__ = ["PARAMETERS", "MatchingSettings", "Settings", "TrackingSettings"]

# Whoever sets one of these wants the matches of that matcher.
_NOT_OF_PERSISTENT = ("matcher", "min_similarity", "ratio_threshold", "double_softmax_threshold")


@dataclass(frozen=True)
class Settings(StereoSettings, NodeSettings, EpipolarSettings, TrackingSettings, MatchingSettings, ExtractionSettings):
    """All parameters of the node."""

    def __post_init__(self) -> None:
        """Also checks that extractor, matcher and tracker are compatible."""
        super().__post_init__()
        check_extractor(self.matcher, self.extractor)
        obstacle, remedy = self._obstacle()
        if self.tracker == "persistent" and obstacle:
            raise SettingsError(
                "parameter tracker is 'persistent', which finds points again on a network's score map of one scale, "
                f"but {obstacle}; expected tracker chain, or {remedy}"
            )

    @property
    def automatic_tracker(self) -> tuple[str, str]:
        """The tracker that "auto" stands for with the other parameters, and why; "" for persistent."""
        obstacle, _ = self._obstacle()
        of_matcher = [name for name in _NOT_OF_PERSISTENT if getattr(self, name) != PARAMETERS[name].default]
        if of_matcher and not obstacle:
            obstacle = f"persistent does not use {of_matcher[0]}, which is {getattr(self, of_matcher[0])}"
        return ("chain", obstacle) if obstacle else ("persistent", "")

    def _obstacle(self) -> tuple[str, str]:
        """Why the tracker cannot be persistent, and what would allow it; empty if it can be."""
        if not all(EXTRACTOR_MODELS[name].has_maps for name in named_by(self.extractor)):
            with_maps = ", ".join(name for name, model in EXTRACTOR_MODELS.items() if model.has_maps)
            return f"{self.extractor} has no score map", f"one of the extractors {with_maps}"
        return ("multi_scale is true", "multi_scale false") if self.multi_scale else ("", "")


PARAMETERS: dict[str, ParameterRecord] = Settings.records()
