"""What the ways of extracting and matching have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.extractors.extractor import Mask
from feature_frontend.matchers.base import MatcherProtocol
from feature_frontend.tracking.state import Past
from feature_frontend.tracking.track_table import TrackAssociation
from feature_frontend.types import Features, Matches

__all__ = ["FrameMatcher", "FrameMatcherState", "Pair"]


@dataclass(frozen=True)
class Pair:
    """What one image gave.

    Attributes:
        features: On the CPU.
        matches: On the CPU, from the image before; empty for the first.
        extraction_ms: Wall-clock time of the extraction.
        matching_ms: Wall-clock time of the matching and of what was left to bring to the CPU.
        right: Features of the right image of a stereo pair, on the CPU; None where there was none.
        continuation: Which points go on, where that is known better than the matches say; None where they say it.
    """

    features: Features
    matches: Matches
    extraction_ms: float
    matching_ms: float
    right: Features | None = None
    continuation: TrackAssociation | None = None


@dataclass(frozen=True)
class FrameMatcherState:
    """What a `FrameMatcher` remembers of the images before; each kind of them fills one field, unless it knows of none.

    Attributes:
        features: Of the image before.
        descriptors: Of the image before, in a tensor with room for more, and how many they are.
        past: Points that are followed, and what they were seen in.
        is_first: Whether there is no image to match with.
    """

    features: Features | None = None
    descriptors: tuple[torch.Tensor, torch.Tensor] | None = None
    past: Past | None = None
    is_first: bool = True


class FrameMatcher(Protocol):
    """Extracts from one image after another and matches each with the one before."""

    matcher: MatcherProtocol

    def run(
        self, image: npt.NDArray[np.uint8], mask: Mask | None = None, right: npt.NDArray[np.uint8] | None = None
    ) -> Pair:
        """The next image, and where keypoints may lie, as `Extractor` takes them.

        `right`, the right image of a stereo pair, is extracted together with it, and not matched.

        Raises:
            ImageError: They cannot be processed; the one before stays the one to match with.
        """

    def forget(self) -> None:
        """The next image is a first one."""

    def get_state(self) -> FrameMatcherState:
        """What another one of its kind needs to go on."""

    def set_state(self, state: FrameMatcherState) -> None:
        """Goes on from the state of another one.

        Raises:
            SnapshotError: It is the state of none.
        """
