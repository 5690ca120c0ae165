"""The parameters of matching."""

from __future__ import annotations

from dataclasses import dataclass

from feature_frontend.errors import SettingsError
from feature_frontend.models.catalog import MATCHER_MODELS
from feature_frontend.settings.parameter import SettingsGroup, parameter

__all__ = ["EpipolarSettings", "MatchingSettings", "check_extractor"]


@dataclass(frozen=True)
class MatchingSettings(SettingsGroup):
    """What decides which keypoints of two images correspond."""

    matcher: str = parameter(
        "mnn",
        "How descriptors are matched. mnn: mutual nearest neighbours; lightglue: a network that also looks at the "
        "positions, for aliked-n16, aliked-n16rot and aliked-n32; needs kornia.",
        choices=tuple(MATCHER_MODELS),
        reloads=True,
    )
    min_similarity: float = parameter(
        -1.0,
        "Lowest cosine similarity of a match; -1 accepts all.",
        minimum=-1.0,
        maximum=1.0,
        live=True,
    )
    ratio_threshold: float = parameter(
        1.0,
        "Ratio test: a match stays if its cosine distance (1 - similarity) is below this share of the second best's; "
        "1 turns the test off.",
        minimum=0.01,
        maximum=1.0,
        live=True,
    )
    double_softmax_temperature: float = parameter(
        0.1,
        "Temperature of the double softmax over similarities (SiLK, appendix B.3).",
        minimum=0.001,
        maximum=10.0,
        live=True,
    )
    double_softmax_threshold: float = parameter(
        0.0,
        "Lowest probability of a match under the double softmax; 0 turns the double softmax off.",
        minimum=0.0,
        maximum=1.0,
        live=True,
    )
    lightglue_threshold: float = parameter(
        0.1,
        "Lowest probability of a match by LightGlue. Of the gates above only min_similarity acts on it too.",
        minimum=0.0,
        maximum=1.0,
        live=True,
    )
    lightglue_weights_path: str = parameter(
        "",
        "File of weights for LightGlue, instead of the published ones (aliked_lightglue.pth, found as the extractor's "
        "are).",
        reloads=True,
    )


def check_extractor(matcher: str, extractor: str) -> None:
    """Accepts an extractor whose descriptors the matcher takes.

    Raises:
        SettingsError: It does not take them.
    """
    expected = MATCHER_MODELS[matcher].extractors
    if expected and extractor not in expected:
        msg = (
            f"parameter matcher is {matcher!r} and extractor {extractor!r}; expected one of {', '.join(expected)} with "
            "it, or matcher 'mnn'"
        )
        raise SettingsError(msg)


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
