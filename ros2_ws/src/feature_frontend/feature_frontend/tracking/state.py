"""What is remembered of the points that are followed."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from feature_frontend.coordinates import Resize
from feature_frontend.extractors.base import FrameMaps

__all__ = ["KEPT_IMAGES", "TrackState", "View"]

KEPT_IMAGES = 7


@dataclass(frozen=True)
class TrackState:
    """Points with their descriptors, C rows, at least one, on the device. Those that are valid come first.

    Attributes:
        is_valid: (C,) bool; the other rows mean nothing.
        points: (C, 2) float32 px of the image as published: where they were seen last, or should be since.
        recent: (C, D) float32, their descriptors when they were seen last.
        first: (C, D) float32, their descriptors when they were seen first.
        ages: (C,) int64, images in which they were seen.
        missed: (C,) int64, images since they were seen last; 0 for those seen in the latest image.
        rows: (C,) int64, their rows in the features of the latest image; -1 where they were missed.
        anchors: (C, 2) float32 px of the network's image, where they lay in the image with which their surroundings are
            compared.
        anchor_ages: (C,) int64, how many images before the latest that one was.
        anchor_slopes: (C, 2, 2) float32, how their shifts since then change with the place, px a px, as in
            `LocalMotion.slopes`.
    """

    is_valid: torch.Tensor
    points: torch.Tensor
    recent: torch.Tensor
    first: torch.Tensor
    ages: torch.Tensor
    missed: torch.Tensor
    rows: torch.Tensor
    anchors: torch.Tensor
    anchor_ages: torch.Tensor
    anchor_slopes: torch.Tensor

    @staticmethod
    def empty(capacity: int, descriptor_dim: int, device: torch.device) -> TrackState:
        """No points, in `capacity` rows."""
        number = torch.zeros(capacity, dtype=torch.int64, device=device)
        descriptors = torch.zeros((capacity, descriptor_dim), device=device)
        return TrackState(
            is_valid=number > 0,
            points=torch.zeros((capacity, 2), device=device),
            recent=descriptors,
            first=descriptors,
            ages=number,
            missed=number,
            rows=number - 1,
            anchors=torch.zeros((capacity, 2), device=device),
            anchor_ages=number,
            anchor_slopes=torch.zeros((capacity, 2, 2), device=device),
        )

    def select(self, rows: torch.Tensor) -> TrackState:
        """The given rows."""
        return TrackState(*(getattr(self, field.name).index_select(0, rows) for field in fields(self)))

    def followed_by(self, other: TrackState) -> TrackState:
        """The rows of both."""
        return TrackState(*(torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))


@dataclass(frozen=True)
class View:
    """What points were seen in: the latest image and the ones before it, as far as they are as large.

    Attributes:
        images: (`KEPT_IMAGES`, H, W) float32 grey in [0, 1], as the network saw them, each in turn in the place of the
            oldest.
        latest: Row of the latest image.
        resize: From the image as published to the network's.
    """

    images: torch.Tensor
    latest: int
    resize: Resize

    @staticmethod
    def of(maps: FrameMaps, earlier: View | None) -> View:
        """What the network saw; colours count alike. Writes into the memory of `earlier`, over its oldest image."""
        images = maps.images
        weights = images.new_full((images.shape[1],), 1.0 / images.shape[1])
        image = images[0].permute(1, 2, 0) @ weights
        if earlier is None or earlier.resize != maps.resize:
            earlier = View(image.new_zeros((KEPT_IMAGES, *image.shape)), -1, maps.resize)
        latest = (earlier.latest + 1) % KEPT_IMAGES
        earlier.images[latest] = image
        return View(earlier.images, latest, maps.resize)

    @property
    def image(self) -> torch.Tensor:
        """(H, W), the latest one."""
        return self.images[self.latest]

    def rows(self, ages: torch.Tensor) -> torch.Tensor:
        """Rows of the images so many images before the latest."""
        return (self.latest - ages) % KEPT_IMAGES

    def compares_with(self, other: View | None) -> bool:
        """Whether a px is the same in both: the network's image may change where frames are late."""
        return other is not None and other.resize == self.resize
