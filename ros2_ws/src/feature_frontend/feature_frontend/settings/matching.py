"""The parameters of matching."""

from __future__ import annotations

from dataclasses import dataclass

from feature_frontend.errors import SettingsError
from feature_frontend.models.catalog import MATCHER_MODELS, named_by
from feature_frontend.settings.parameter import SettingsGroup, parameter

__all__ = ["EpipolarSettings", "MatchingSettings", "check_extractor"]


@dataclass(frozen=True)
class MatchingSettings(SettingsGroup):
    """Which keypoints of two images match."""

    matcher: str = parameter(
        "mnn",
        "How descriptors are matched. mnn: mutual nearest neighbours; lightglue: a network that also uses the "
        "positions, for aliked-n16, aliked-n16rot and aliked-n32; needs kornia.",
        choices=tuple(MATCHER_MODELS),
        reloads=True,
    )
    min_similarity: float = parameter(
        -1.0,
        "Minimum cosine similarity of a match; -1 accepts all.",
        minimum=-1.0,
        maximum=1.0,
        live=True,
    )
    ratio_threshold: float = parameter(
        1.0,
        "Ratio test: a match is kept if its cosine distance (1 - similarity) is below this fraction of the second "
        "best's; 1 turns the test off.",
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
        "Minimum probability of a match under the double softmax; 0 turns the double softmax off.",
        minimum=0.0,
        maximum=1.0,
        live=True,
    )
    lightglue_threshold: float = parameter(
        0.1,
        "Minimum probability of a match by LightGlue. Of the gates above, only min_similarity also applies.",
        minimum=0.0,
        maximum=1.0,
        live=True,
    )
    lightglue_weights_path: str = parameter(
        "",
        "Weights file for LightGlue, used instead of the published weights (aliked_lightglue.pth, found like those of "
        "the extractor).",
        reloads=True,
    )


def check_extractor(matcher: str, extractor: str) -> None:
    """Checks that the matcher supports the extractor's descriptors.

    Raises:
        SettingsError: It does not.
    """
    expected = MATCHER_MODELS[matcher].extractors
    if expected and not set(named_by(extractor)) <= set(expected):
        raise SettingsError(
            f"parameter matcher is {matcher!r} and extractor {extractor!r}; expected one of {', '.join(expected)} with "
            "it, or matcher 'mnn'"
        )


@dataclass(frozen=True)
class EpipolarSettings(SettingsGroup):
    """Whether and how strictly matches are checked against a single camera motion."""

    epipolar_check: bool = parameter(
        False,
        "Whether each match is checked against the camera motion that explains most matches; fills `inlier` in "
        "`matches` and `inlier_ratio` in `status`. Uses the essential matrix with camera_info, otherwise the "
        "fundamental matrix. Delays the messages `matches` and `status`, not `features` and `tracks`.",
        live=True,
    )
    epipolar_threshold_px: float = parameter(
        2.0,
        "Maximum distance of an accepted match from its epipolar line.",
        unit="px",
        minimum=0.01,
        maximum=100.0,
        live=True,
    )
