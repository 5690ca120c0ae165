"""The interface that all frame matchers share."""

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
    """Features of one image and its matches with the previous one.

    Attributes:
        features: On the CPU.
        matches: On the CPU, from the previous image; empty for the first.
        extraction_ms: Wall-clock time of the extraction.
        matching_ms: Wall-clock time of the matching and of the remaining copies to the CPU.
        right: Features of the right image of a stereo pair, on the CPU; None without one.
        continuation: Which tracks continue; None if the matches define that.
    """

    features: Features
    matches: Matches
    extraction_ms: float
    matching_ms: float
    right: Features | None = None
    continuation: TrackAssociation | None = None


@dataclass(frozen=True)
class FrameMatcherState:
    """What a `FrameMatcher` remembers of earlier images; each class fills one field, or none before the first image.

    Attributes:
        features: Of the previous image.
        descriptors: Of the previous image, as a padded tensor, and their number.
        past: The tracked points, and the images in which they were seen.
        is_first: Whether there is no previous image to match with.
    """

    features: Features | None = None
    descriptors: tuple[torch.Tensor, torch.Tensor] | None = None
    past: Past | None = None
    is_first: bool = True


class FrameMatcher(Protocol):
    """Extracts features from successive images and matches each image with the previous one."""

    matcher: MatcherProtocol

    def run(
        self, image: npt.NDArray[np.uint8], mask: Mask | None = None, right: npt.NDArray[np.uint8] | None = None
    ) -> Pair:
        """Processes the next image and its mask, in the formats of `Extractor`.

        `right`, the right image of a stereo pair, is extracted but not matched.

        Raises:
            ImageError: An image or the mask cannot be processed; the previous image stays the one to match with.
        """

    def forget(self) -> None:
        """Makes the next image a first one."""

    def get_state(self) -> FrameMatcherState:
        """The state that another instance of this class needs to continue."""

    def set_state(self, state: FrameMatcherState) -> None:
        """Continues from the state of another instance.

        Raises:
            SnapshotError: The state is invalid.
        """
