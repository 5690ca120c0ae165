"""The parameters of a stereo camera."""

from __future__ import annotations

from dataclasses import dataclass

from feature_frontend.errors import SettingsError
from feature_frontend.settings.parameter import SettingsGroup, parameter

__all__ = ["StereoSettings"]


@dataclass(frozen=True)
class StereoSettings(SettingsGroup):
    """Mono or stereo, how images are paired, and which of their keypoints may match."""

    camera_type: str = parameter(
        "mono",
        "mono: images on `image`; stereo: pairs on `left/image` and `right/image`, also publishes `stereo_matches` "
        "and, with both camera_info, `points`; needs message_filters.",
        choices=("mono", "stereo"),
    )
    stereo_slop_ms: float = parameter(
        10.0,
        "Maximum difference between the stamps of a stereo pair. 0.1 is enough for cameras with one trigger and stamp.",
        unit="ms",
        minimum=0.001,
        maximum=10_000.0,
    )
    stereo_queue_size: int = parameter(
        10,
        "Number of images per side that wait for their partner; if more arrive, the oldest is dropped.",
        unit="images",
        minimum=1,
        maximum=1000,
    )
    stereo_row_tolerance_px: float = parameter(
        2.0,
        "Maximum row difference of two rectified keypoints that match.",
        unit="px",
        minimum=0.0,
        maximum=100.0,
        live=True,
    )
    stereo_min_disparity_px: float = parameter(
        1.0,
        "Minimum disparity of a match, x on the left minus x on the right; limits how far away points may be.",
        unit="px",
        minimum=-10_000.0,
        maximum=10_000.0,
        live=True,
    )
    stereo_max_disparity_px: float = parameter(
        256.0,
        "Maximum disparity of a match; limits how near points may be. Must be above stereo_min_disparity_px.",
        unit="px",
        minimum=-10_000.0,
        maximum=10_000.0,
        live=True,
    )

    stereo_subpixel: bool = parameter(
        True,
        "Whether the disparities behind `points` are refined to a fraction of a pixel on the images around the "
        "keypoints, instead of taken from the keypoints themselves. Takes 1 ms for 1000 matches.",
        live=True,
    )

    def __post_init__(self) -> None:
        """Also checks values against each other."""
        super().__post_init__()
        if self.stereo_min_disparity_px >= self.stereo_max_disparity_px:
            raise SettingsError(
                f"parameter stereo_min_disparity_px is {self.stereo_min_disparity_px:g} and stereo_max_disparity_px "
                f"{self.stereo_max_disparity_px:g}; expected the first below the second"
            )
