"""What is remembered of the points that are followed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch

from feature_frontend.image.resize import Resize
from feature_frontend.runtime.snapshot import require

__all__ = ["KEPT_IMAGES", "Past", "TrackState", "View", "Views"]

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
        latest: () int64, row of the latest image.
        resize: From the image as published to the network's.
    """

    images: torch.Tensor
    latest: torch.Tensor
    resize: Resize


@dataclass(frozen=True)
class Views:
    """What points were seen in before, and where they are looked for.

    Attributes:
        earlier: With the image before; None for the first image.
        latest: With the current one.
        image: (H, W) float32, the current image itself.
    """

    earlier: View | None
    latest: View
    image: torch.Tensor

    @staticmethod
    def of(image: torch.Tensor, resize: Resize, earlier: View | None) -> Views:
        """With an (H, W) grey image that was resized so. Writes into the memory of `earlier`, over its oldest image."""
        before = earlier
        if before is None or before.resize != resize:
            none = torch.full((), -1, dtype=torch.int64, device=image.device)
            before = View(image.new_zeros((KEPT_IMAGES, *image.shape)), none, resize)
        row = (before.latest + 1) % KEPT_IMAGES
        before.images.index_copy_(0, row[None], image[None])
        return Views(earlier, View(before.images, row, resize), image)

    @property
    def compare(self) -> bool:
        """Whether a px is the same in both: the network's image may change where frames are late."""
        return self.earlier is not None and self.earlier.resize == self.latest.resize

    def rows_before(self, ages: torch.Tensor) -> torch.Tensor:
        """Rows of the images so many images before the one before."""
        return (self.latest.latest - 1 - ages) % KEPT_IMAGES


@dataclass(frozen=True, eq=False)
class Past:
    """What is remembered from one image to the next."""

    state: TrackState
    view: View

    @property
    def capacity(self) -> int:
        """How many points it has room for."""
        return len(self.state.is_valid)

    def check(self) -> None:
        """Checks that the rows of all tensors belong together, of a past that was read from somewhere.

        Raises:
            SnapshotError: They do not.
        """
        images, latest, descriptors = self.view.images, self.view.latest, self.state.recent
        require(images.ndim == 3 and len(images) == KEPT_IMAGES and latest.shape == (), f"{KEPT_IMAGES} images")
        require(descriptors.ndim == 2 and len(descriptors) > 0, "points with descriptors")
        like = TrackState.empty(len(descriptors), descriptors.shape[1], torch.device("cpu"))
        for field in fields(like):
            found, expected = getattr(self.state, field.name), getattr(like, field.name)
            require((found.shape, found.dtype) == (expected.shape, expected.dtype), "as much of each point")

    def copied(self) -> Past:
        """The same in memory of its own."""
        state = TrackState(*(getattr(self.state, field.name).clone() for field in fields(self.state)))
        return Past(state, replace(self.view, images=self.view.images.clone(), latest=self.view.latest.clone()))

    def take_over(self, state: TrackState, view: View) -> None:
        """Remembers these, which are as large, where it is."""
        for field in fields(state):
            getattr(self.state, field.name).copy_(getattr(state, field.name))
        # What has been written into the memory of this view is there already.
        if view.images is not self.view.images:
            self.view.images.copy_(view.images)
        self.view.latest.copy_(view.latest)
