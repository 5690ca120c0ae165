"""How topics are named; launch files read it too, so it imports neither torch nor OpenCV."""

from __future__ import annotations

__all__ = ["COMPRESSED_SUFFIX", "compressed_topic"]

COMPRESSED_SUFFIX = "/compressed"


def compressed_topic(base_topic: str) -> str:
    """The topic of the compressed images that belong to `base_topic`; one that is compressed already stays as it is."""
    return base_topic if base_topic.endswith(COMPRESSED_SUFFIX) else base_topic + COMPRESSED_SUFFIX
