"""Every parameter of the front-end, declared once, one file per group; and the reader of parameter files."""

from feature_frontend.settings.extraction import ExtractionSettings
from feature_frontend.settings.matching import MatchingSettings
from feature_frontend.settings.node import NodeSettings
from feature_frontend.settings.settings import PARAMETERS, Settings

__all__ = ["PARAMETERS", "ExtractionSettings", "MatchingSettings", "NodeSettings", "Settings"]
