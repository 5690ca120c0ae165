"""Feature Frontend: ALIKED keypoints, descriptors, matches and tracks, with or without ROS 2.

Example::

    from feature_frontend import load_extractor, load_matcher

    extractor = load_extractor("aliked-n16", device="cpu", max_num_keypoints=1000)
    matcher = load_matcher("mnn")
    matches = matcher.match(extractor.extract(image0), extractor.extract(image1))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feature_frontend.api import load_extractor, load_matcher
    from feature_frontend.types import Features, Matches, Tracks

__all__ = ["Features", "Matches", "Tracks", "__version__", "load_extractor", "load_matcher"]

__version__ = "0.1.0"

_HOMES = {
    "Features": "feature_frontend.types",
    "Matches": "feature_frontend.types",
    "Tracks": "feature_frontend.types",
    "load_extractor": "feature_frontend.api",
    "load_matcher": "feature_frontend.api",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: `play` and `record` start without the seconds that torch takes."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_HOMES[name]), name)
