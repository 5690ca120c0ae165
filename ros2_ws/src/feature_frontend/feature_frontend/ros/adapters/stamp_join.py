"""Joins the messages of one image from several topics by their stamps, without message_filters."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

__all__ = ["StampJoin"]


class StampJoin:
    """Collects messages until those of one image are complete.

    Args:
        exact: Names of the topics whose messages have the image's stamp.
        near: Name of the topic with messages of another device: the one with the nearest stamp is taken.
        slop_ns: Maximum difference of that stamp.
        most: Number of images, and of messages of `near`, that may wait; older ones are left out.
    """

    def __init__(self, exact: Collection[str], near: str, slop_ns: int, most: int) -> None:
        self._exact, self._near, self._slop_ns, self._most = set(exact), near, slop_ns, most
        self._images: dict[int, dict[str, Any]] = {}
        self._others: dict[int, Any] = {}

    def add(self, name: str, stamp_ns: int, message: Any) -> dict[str, Any] | None:
        """Takes a message; returns the messages of an image by topic if they are complete now.

        Whatever is older than an image that is returned will never be.
        """
        if name == self._near:
            self._others[stamp_ns] = message
            _cut(self._others, self._most)
        else:
            self._images.setdefault(stamp_ns, {})[name] = message
            _cut(self._images, self._most)
        for image_ns in sorted(self._images):
            if set(self._images[image_ns]) != self._exact or not self._others:
                continue
            other_ns = min(self._others, key=lambda one: abs(one - image_ns))
            if abs(other_ns - image_ns) > self._slop_ns:
                continue
            found = self._images[image_ns] | {self._near: self._others[other_ns]}
            self._images = {ns: of for ns, of in self._images.items() if ns > image_ns}
            self._others = {ns: of for ns, of in self._others.items() if ns > other_ns}
            return found
        return None


def _cut(waiting: dict[int, Any], most: int) -> None:
    """Removes those that arrived first; by stamps, a clock that went back would remove what is new."""
    while len(waiting) > most:
        del waiting[next(iter(waiting))]
