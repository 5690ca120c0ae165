"""Feature Frontend: ALIKED keypoints, descriptors, matches and tracks, with or without ROS 2.

Example::

    from feature_frontend import Frontend

    frontend = Frontend.from_pretrained(extractor="aliked-n16")
    result = frontend.process(image, stamp_ns)  # uint8, (H, W) grey or (H, W, 3) RGB
    result.features.keypoints, result.matches, result.tracks
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feature_frontend.api import load_extractor, load_matcher
    from feature_frontend.pipeline.frontend import Frontend
    from feature_frontend.types import Features, FrameResult, Matches, Tracks

__all__ = ["Features", "FrameResult", "Frontend", "Matches", "Tracks", "__version__", "load_extractor", "load_matcher"]

__version__ = "0.1.0"

_HOMES = {
    "Features": "feature_frontend.types",
    "FrameResult": "feature_frontend.types",
    "Frontend": "feature_frontend.pipeline.frontend",
    "Matches": "feature_frontend.types",
    "Tracks": "feature_frontend.types",
    "load_extractor": "feature_frontend.api",
    "load_matcher": "feature_frontend.api",
}


def __getattr__(name: str) -> Any:
    """Imports a public name on first use, so that `play` and `record` start without the seconds that torch takes."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
