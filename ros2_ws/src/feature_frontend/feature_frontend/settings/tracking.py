"""The parameters of the tracker."""

from __future__ import annotations

from dataclasses import dataclass

from feature_frontend.models.catalog import AUTO
from feature_frontend.settings.parameter import SettingsGroup, parameter

__all__ = ["TrackingSettings"]


@dataclass(frozen=True)
class TrackingSettings(SettingsGroup):
    """How, and for how long, points are tracked."""

    tracker: str = parameter(
        AUTO,
        "How points are tracked. chain: a track lasts as long as every image matches it and the motion of the camera "
        "explains the match; persistent: points are predicted, recovered if the detector did not select them, checked "
        "and re-linked; auto: persistent if the extractor has a score map, multi_scale is off and no matcher or gate "
        "is set, otherwise chain. A change ends all tracks.",
        choices=(AUTO, "chain", "persistent"),
        live=True,
    )
    max_gap_s: float = parameter(
        1.0,
        "Maximum time between the stamps of two images that are matched. After a longer gap that also exceeds five "
        "median intervals of the stream, the next image is FIRST and all tracks end. 0 turns this off.",
        unit="s",
        minimum=0.0,
        maximum=1e6,
        live=True,
    )
    track_min_similarity: float = parameter(
        -1.0,
        "persistent: minimum cosine similarity of a point to its latest descriptor; to its first one, twice the cosine "
        "distance is allowed, and half of it if the image around the point is not found again. -1 uses the network's "
        "default: 0.5 for ALIKED and dotlet, 0.7 for SiLK.",
        minimum=-1.0,
        maximum=1.0,
        live=True,
    )
    track_epipolar_px: float = parameter(
        2.0,
        "Maximum distance of a tracked point from the epipolar line of the camera motion; 0 turns the check off, to "
        "track moving objects too. With chain, `matches` keep what the tracks leave out.",
        unit="px",
        minimum=0.0,
        maximum=100.0,
        live=True,
    )
    track_max_gap: int = parameter(
        5,
        "persistent: maximum number of consecutive images in which a point may be missed before its track ends.",
        unit="images",
        minimum=0,
        maximum=100,
        live=True,
    )
    track_survival_fraction: float = parameter(
        0.38,
        "persistent: fraction of max_num_keypoints up to which points that the detector did not select again are "
        "searched for in an image; limits their number and the time for the search.",
        minimum=0.0,
        maximum=1.0,
        live=True,
        formerly="track_survival_share",
    )
