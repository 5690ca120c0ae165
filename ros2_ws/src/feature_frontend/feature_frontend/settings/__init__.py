"""Every parameter of the front-end, declared once, a file for each group, and parameter files."""

from feature_frontend.settings.extraction import ExtractionSettings
from feature_frontend.settings.matching import MatchingSettings
from feature_frontend.settings.node import NodeSettings
from feature_frontend.settings.settings import PARAMETERS, Settings

__all__ = ["PARAMETERS", "ExtractionSettings", "MatchingSettings", "NodeSettings", "Settings"]
