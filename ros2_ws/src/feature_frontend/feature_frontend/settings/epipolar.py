"""The parameters of the epipolar check."""

from __future__ import annotations

from dataclasses import dataclass

from feature_frontend.settings.parameter import SettingsGroup, parameter

__all__ = ["EpipolarSettings"]


@dataclass(frozen=True)
class EpipolarSettings(SettingsGroup):
    """Whether and how strictly matches are checked against one motion of the camera."""

    epipolar_check: bool = parameter(
        False,
        "Whether each match is checked against the one motion of the camera that explains most of them; fills `inlier` "
        "in `matches` and `inlier_ratio` in `status`. With camera_info by the essential matrix, without by the "
        "fundamental matrix. Features and tracks do not wait for it, matches do.",
        live=True,
    )
    epipolar_threshold_px: float = parameter(
        2.0,
        "Largest distance of an accepted match from its epipolar line.",
        unit="px",
        minimum=0.01,
        maximum=100.0,
        live=True,
    )
