"""Entry points for Python programs. The keyword arguments are the node's parameters."""

from __future__ import annotations

from feature_frontend.extractors.extractor import Extractor
from feature_frontend.matchers.base import MatcherProtocol
from feature_frontend.matchers.factory import make_matcher
from feature_frontend.settings import ExtractionSettings, MatchingSettings

__all__ = ["load_extractor", "load_matcher"]


def load_extractor(name: str = ExtractionSettings.extractor, **parameters: bool | float | str) -> Extractor:
    """Loads an extractor with its published weights, ready to run.

    Args:
        name: "aliked-t16", "aliked-n16", "aliked-n16rot", "aliked-n32", "silk-vggnp-mu", "sift", "rootsift" or another
            key of `EXTRACTORS`.
        **parameters: Any field of `ExtractionSettings`: `device`, `precision`, `weights_dir`, `max_num_keypoints`,
            `detection_threshold`, `nms_radius`, `border`, `distribution`, `grid_rows`, `grid_columns`, `grid_slack`,
            `multi_scale`, `resize_height`, `max_pixels`, `min_grey_range`.

    Raises:
        SettingsError: A name or value is invalid; the text lists the valid ones.
        WeightsError: The weights cannot be found, downloaded or verified; the text says what to do.
    """
    return Extractor.from_pretrained(ExtractionSettings.from_mapping({"extractor": name, **parameters}))


def load_matcher(name: str = MatchingSettings.matcher, **parameters: bool | float | str) -> MatcherProtocol:
    """Loads a matcher: call it with the features of the earlier and the current image.

    Args:
        name: "mnn" or "lightglue".
        **parameters: Any field of `MatchingSettings`: `min_similarity`, `ratio_threshold`,
            `double_softmax_temperature`, `double_softmax_threshold`, `lightglue_threshold`, `lightglue_weights_path`.

    Raises:
        SettingsError: A name or value is invalid; the text lists the valid ones.
        WeightsError: The matcher's weights cannot be found, downloaded or verified; the text says what to do.
    """
    return make_matcher(MatchingSettings.from_mapping({"matcher": name, **parameters}))
