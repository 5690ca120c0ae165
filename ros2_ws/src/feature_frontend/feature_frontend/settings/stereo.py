"""The parameters of a stereo camera."""

from __future__ import annotations

from dataclasses import dataclass

from feature_frontend.errors import SettingsError
from feature_frontend.settings.parameter import SettingsGroup, parameter

__all__ = ["StereoSettings"]


@dataclass(frozen=True)
class StereoSettings(SettingsGroup):
    """Whether there are two cameras, how their images meet, and which of their keypoints may correspond."""

    camera_type: str = parameter(
        "mono",
        "mono: images on `image`; stereo: pairs on `left/image` and `right/image`, which give also `stereo_matches` "
        "and, with both camera_info, `points`; needs message_filters.",
        choices=("mono", "stereo"),
    )
    stereo_slop_ms: float = parameter(
        10.0,
        "Two images pair if their stamps differ by less. 0.1 does for cameras that share one trigger and stamp.",
        unit="ms",
        minimum=0.001,
        maximum=10_000.0,
    )
    stereo_queue_size: int = parameter(
        10,
        "Images of each side that wait for one of the other side; when more come, the oldest is dropped.",
        unit="images",
        minimum=1,
        maximum=1000,
    )
    stereo_row_tolerance_px: float = parameter(
        2.0,
        "How far apart the rows of two rectified keypoints may be that match.",
        unit="px",
        minimum=0.0,
        maximum=100.0,
        live=True,
    )
    stereo_min_disparity_px: float = parameter(
        1.0,
        "Least disparity of a match, x on the left minus x on the right; it bounds how far away points may be.",
        unit="px",
        minimum=-10_000.0,
        maximum=10_000.0,
        live=True,
    )
    stereo_max_disparity_px: float = parameter(
        256.0,
        "Largest disparity of a match; it bounds how near points may be. Above stereo_min_disparity_px.",
        unit="px",
        minimum=-10_000.0,
        maximum=10_000.0,
        live=True,
    )

    stereo_subpixel: bool = parameter(
        True,
        "Whether `points` take each match's disparity from the images around its keypoints, to a fraction of a pixel, "
        "instead of from the keypoints themselves. 1 ms for 1000 matches.",
        live=True,
    )

    def __post_init__(self) -> None:
        """Checks also what concerns two values."""
        super().__post_init__()
        if self.stereo_min_disparity_px >= self.stereo_max_disparity_px:
            msg = (
                f"parameter stereo_min_disparity_px is {self.stereo_min_disparity_px:g} and stereo_max_disparity_px "
                f"{self.stereo_max_disparity_px:g}; expected the first below the second"
            )
            raise SettingsError(msg)
