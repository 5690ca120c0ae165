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


@dataclass(frozen=True)
class Settings(StereoSettings, NodeSettings, EpipolarSettings, TrackingSettings, MatchingSettings, ExtractionSettings):
    """All parameters of the node."""

    def __post_init__(self) -> None:
        """Also checks that extractor, matcher and tracker are compatible."""
        super().__post_init__()
        check_extractor(self.matcher, self.extractor)
        has_maps = all(EXTRACTOR_MODELS[name].has_maps for name in named_by(self.extractor))
        if self.tracker == "persistent" and not has_maps:
            with_maps = ", ".join(name for name, model in EXTRACTOR_MODELS.items() if model.has_maps)
            raise SettingsError(
                f"parameter tracker is 'persistent', which finds points again on a network's score map, and "
                f"{self.extractor} has none; expected tracker chain, or one of the extractors {with_maps}"
            )
        if self.tracker == "persistent" and self.multi_scale:
            raise SettingsError(
                "parameter multi_scale is true and tracker 'persistent', which finds points again on the score map of "
                "one scale; expected multi_scale false, or tracker chain"
            )


PARAMETERS: dict[str, ParameterRecord] = Settings.records()
