"""The state of the persistent tracker."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch

from feature_frontend.image.resize import Resize
from feature_frontend.runtime.snapshot import require

__all__ = ["KEPT_IMAGES", "Past", "TrackState", "View", "Views"]

KEPT_IMAGES = 7


@dataclass(frozen=True)
class TrackState:
    """Tracked points with their descriptors, C >= 1 rows, on the device. Valid rows come first.

    Attributes:
        is_valid: (C,) bool; ignore the other rows.
        points: (C, 2) float32 px of the image as published: last seen or, if missed, predicted position.
        recent: (C, D) float32, descriptors of the last sighting.
        first: (C, D) float32, descriptors of the first sighting.
        ages: (C,) int64, number of images in which they were seen.
        missed: (C,) int64, number of images since the last sighting; 0 if seen in the latest image.
        rows: (C,) int64, rows in the features of the latest image; -1 if missed.
        anchors: (C, 2) float32 px of the network's image, positions of the templates in their anchor images.
        anchor_ages: (C,) int64, how many images before the latest one the anchor image was.
        anchor_slopes: (C, 2, 2) float32, gradient of the displacement since the anchor image, px per px, as in
            `LocalMotion.slopes`.
        flows: (C, 2) float32 px of the image as published, displacement in the last step in which they were seen
            before and after; NaN if unknown.
        inverse_depths: (C,) float32, in the latest image, in a unit common to all points; NaN if unknown.
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
    flows: torch.Tensor
    inverse_depths: torch.Tensor

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
            flows=torch.full((capacity, 2), torch.nan, device=device),
            inverse_depths=torch.full((capacity,), torch.nan, device=device),
        )

    def select(self, rows: torch.Tensor) -> TrackState:
        """The given rows."""
        return TrackState(*(getattr(self, field.name).index_select(0, rows) for field in fields(self)))

    def followed_by(self, other: TrackState) -> TrackState:
        """The rows of both states."""
        return TrackState(*(torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))


@dataclass(frozen=True)
class View:
    """The latest images of one size.

    Attributes:
        images: (`KEPT_IMAGES`, H, W) float32 grey in [0, 1], as the network saw them; a ring buffer.
        halves: (`KEPT_IMAGES`, H // 2, W // 2) float32, the same at half their size.
        latest: () int64, row of the latest image.
        resize: From the image as published to the network's.
    """

    images: torch.Tensor
    halves: torch.Tensor
    latest: torch.Tensor
    resize: Resize


@dataclass(frozen=True)
class Views:
    """The images before the step, and the current one.

    Attributes:
        earlier: Up to the previous image; None for the first image.
        latest: Up to the current image.
        image: (H, W) float32, the current image itself.
        half: (H // 2, W // 2) float32, the current image at half its size.
    """

    earlier: View | None
    latest: View
    image: torch.Tensor
    half: torch.Tensor

    @staticmethod
    def of(image: torch.Tensor, resize: Resize, earlier: View | None) -> Views:
        """Adds an (H, W) grey image resized by `resize`. Overwrites the oldest image of `earlier` in place."""
        before = earlier
        half = _halved(image)
        if before is None or before.resize != resize:
            none = torch.full((), -1, dtype=torch.int64, device=image.device)
            images, halves = (level.new_zeros((KEPT_IMAGES, *level.shape)) for level in (image, half))
            before = View(images, halves, none, resize)
        row = (before.latest + 1) % KEPT_IMAGES
        before.images.index_copy_(0, row[None], image[None])
        before.halves.index_copy_(0, row[None], half[None])
        return Views(earlier, View(before.images, before.halves, row, resize), image, half)

    @property
    def compare(self) -> bool:
        """Whether both have the same scale: the size of the network's image may change to meet a deadline."""
        return self.earlier is not None and self.earlier.resize == self.latest.resize

    def rows_before(self, ages: torch.Tensor) -> torch.Tensor:
        """Rows of the images `ages` images before the previous one."""
        return (self.latest.latest - 1 - ages) % KEPT_IMAGES


@dataclass(frozen=True, eq=False)
class Past:
    """What the tracker remembers from one image to the next."""

    state: TrackState
    view: View

    @property
    def capacity(self) -> int:
        """Maximum number of points."""
        return len(self.state.is_valid)

    def check(self) -> None:
        """Checks that the shapes of a restored state agree.

        Raises:
            SnapshotError: They do not.
        """
        images, latest, descriptors = self.view.images, self.view.latest, self.state.recent
        require(images.ndim == 3 and len(images) == KEPT_IMAGES and latest.shape == (), f"{KEPT_IMAGES} images")
        height, width = images.shape[1:]
        require(self.view.halves.shape == (KEPT_IMAGES, height // 2, width // 2), "the same images at half their size")
        require(descriptors.ndim == 2 and len(descriptors) > 0, "points with descriptors")
        like = TrackState.empty(len(descriptors), descriptors.shape[1], torch.device("cpu"))
        for field in fields(like):
            found, expected = getattr(self.state, field.name), getattr(like, field.name)
            require((found.shape, found.dtype) == (expected.shape, expected.dtype), "arrays of equal length")

    def copied(self) -> Past:
        """A deep copy."""
        state = TrackState(*(getattr(self.state, field.name).clone() for field in fields(self.state)))
        view = replace(
            self.view,
            images=self.view.images.clone(),
            halves=self.view.halves.clone(),
            latest=self.view.latest.clone(),
        )
        return Past(state, view)

    def copy_from(self, state: TrackState, view: View) -> None:
        """Copies a state and view of the same size into this memory."""
        for field in fields(state):
            getattr(self.state, field.name).copy_(getattr(state, field.name))
        # `view` may share this memory already.
        if view.images is not self.view.images:
            self.view.images.copy_(view.images)
            self.view.halves.copy_(view.halves)
        self.view.latest.copy_(view.latest)


def _halved(image: torch.Tensor) -> torch.Tensor:
    """(H // 2, W // 2) means of 2x2 px of (H, W); faster than `avg_pool2d`, which has no fast case for one channel."""
    height, width = (side // 2 * 2 for side in image.shape)
    lines = image[:height:2] + image[1:height:2]
    return (lines[:, :width:2] + lines[:, 1:width:2]) / 4.0
