"""The parameters of the tracker; `feature_frontend.settings` has the rest and says how they are used."""

from __future__ import annotations

from dataclasses import dataclass

from feature_frontend.settings.parameter import SettingsGroup, parameter

__all__ = ["TrackingSettings"]


@dataclass(frozen=True)
class TrackingSettings(SettingsGroup):
    """What decides how long a point is followed."""

    tracker: str = parameter(
        "chain",
        "How points are followed. chain: as long as each image's matches find them again; persistent: they are "
        "predicted, found again where the budget did not pick them, checked, and re-linked. A change ends all tracks.",
        choices=("chain", "persistent"),
        live=True,
    )
    max_gap_s: float = parameter(
        1.0,
        "Longest time between two images that are matched, by their stamps. After a longer one that is also more than "
        "five median intervals of the stream, the next image is a first one and all tracks end. 0 turns this off.",
        unit="s",
        minimum=0.0,
        maximum=1e6,
        live=True,
    )
    track_min_similarity: float = parameter(
        -1.0,
        "persistent: lowest cosine similarity of a point to its latest descriptor; to its first one, half as near "
        "will do. -1 is the network's own: 0.7 for ALIKED, 0.85 for SiLK.",
        minimum=-1.0,
        maximum=1.0,
        live=True,
    )
    track_epipolar_px: float = parameter(
        2.0,
        "persistent: farthest that a point may be from the epipolar line of the image's motion; 0 turns the check off, "
        "for scenes in which what moves shall be followed, too.",
        unit="px",
        minimum=0.0,
        maximum=100.0,
        live=True,
    )
    track_max_gap: int = parameter(
        5,
        "persistent: most images in a row in which a point may be missed before its track ends.",
        unit="images",
        minimum=0,
        maximum=100,
        live=True,
    )
    track_survival_fraction: float = parameter(
        0.38,
        "persistent: fraction of max_num_keypoints that may be looked for in an image where the detector did not pick "
        "them again; it bounds the time for that, and how many such points there are.",
        minimum=0.0,
        maximum=1.0,
        live=True,
        formerly="track_survival_share",
    )
