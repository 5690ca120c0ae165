"""What flows between the stages: `Features`, `Matches`, `Tracks`.

Convention: points are (x, y) in px of the image as published, pixel centres at integers, the origin at the centre of
the top-left pixel. Row i of every array of one object belongs to the same keypoint, match or track. "Nothing found" is
an object with zero rows. Suffix 0 is the earlier image, suffix 1 the current one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.snapshot import require

__all__ = ["Features", "Matches", "Tracks"]


@dataclass(frozen=True)
class Features:
    """Keypoints and descriptors of one image.

    Attributes:
        keypoints: (N, 2) float32, (x, y) px.
        scores: (N,) float32 in [0, 1].
        descriptors: (N, D) float32, float16 or bfloat16, L2-normalised rows.
        height: Height in px of the image that the keypoints refer to.
        width: Width in px of that image.
        extractor: Who made them, name and first 8 hex digits of the weights' SHA-256 ("aliked-n16@5be87048"), or name
            and library of an extractor without weights ("sift@opencv-4.11.0"). Descriptors of different extractors
            never compare.
        sizes: (N,) float32, diameter in px; None where the extractor estimates none.
        angles: (N,) float32, orientation in rad, [0, 2 pi), from the x axis towards the y axis (clockwise as one looks
            at the image); None where the extractor estimates none.
        scales: (N,) float32, px of the image for 1 px of the resized image in which the keypoint was found; None where
            that is not known.
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    descriptors: torch.Tensor
    height: int
    width: int
    extractor: str
    sizes: torch.Tensor | None = None
    angles: torch.Tensor | None = None
    scales: torch.Tensor | None = None

    def __len__(self) -> int:
        """Number of keypoints N."""
        return int(self.keypoints.shape[0])

    def check(self) -> None:
        """Checks that the rows of all arrays belong together, of features that were read from somewhere.

        Raises:
            SnapshotError: They do not.
        """
        rows = self.keypoints.shape[:1]
        is_whole = all(
            array is None or array.shape == rows for array in (self.scores, self.sizes, self.angles, self.scales)
        )
        is_whole = is_whole and self.keypoints.shape == (*rows, 2) and self.descriptors.shape[:-1] == rows
        require(is_whole, "as much of each keypoint")

    @property
    def descriptor_dim(self) -> int:
        """Descriptor length D."""
        return int(self.descriptors.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.keypoints.device

    @staticmethod
    def empty(
        height: int,
        width: int,
        extractor: str,
        descriptor_dim: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Features:
        """Features of an image in which nothing was found."""
        return Features(
            keypoints=torch.zeros((0, 2), device=device),
            scores=torch.zeros((0,), device=device),
            descriptors=torch.zeros((0, descriptor_dim), device=device, dtype=dtype),
            height=height,
            width=width,
            extractor=extractor,
        )

    def to(self, device: torch.device | str) -> Features:
        """The same features with their tensors on `device`."""
        return replace(
            self,
            keypoints=self.keypoints.to(device),
            scores=self.scores.to(device),
            descriptors=self.descriptors.to(device),
            sizes=None if self.sizes is None else self.sizes.to(device),
            angles=None if self.angles is None else self.angles.to(device),
            scales=None if self.scales is None else self.scales.to(device),
        )


@dataclass(frozen=True)
class Matches:
    """Correspondences from an earlier image (0) to the current one (1).

    Attributes:
        indices0: (M,) int64, rows of the earlier `Features`.
        indices1: (M,) int64, rows of the current `Features`.
        similarity: (M,) float32, cosine similarity in [-1, 1].
        margin: (M,) float32 in [0, 2], how much the pair beats its closest rival: similarity minus the second best
            similarity of the earlier descriptor. Where there is no rival (one keypoint in the current image) it is
            similarity + 1, the distance to the worst one possible. Down to -2 with a matcher that may prefer a less
            similar pair.
        matcher: Name of the matcher.
    """

    indices0: torch.Tensor
    indices1: torch.Tensor
    similarity: torch.Tensor
    margin: torch.Tensor
    matcher: str

    def __len__(self) -> int:
        """Number of matches M."""
        return int(self.indices0.shape[0])

    @staticmethod
    def empty(matcher: str, device: torch.device | str = "cpu") -> Matches:
        """Matches of a pair in which nothing corresponds."""
        index = torch.zeros((0,), dtype=torch.int64, device=device)
        value = torch.zeros((0,), device=device)
        return Matches(index, index.clone(), value, value.clone(), matcher)

    def to(self, device: torch.device | str) -> Matches:
        """The same matches with their tensors on `device`."""
        return replace(
            self,
            indices0=self.indices0.to(device),
            indices1=self.indices1.to(device),
            similarity=self.similarity.to(device),
            margin=self.margin.to(device),
        )


@dataclass(frozen=True)
class Tracks:
    """Points with a memory, as seen in the current image. NumPy arrays: tracking is bookkeeping on the CPU.

    Attributes:
        ids: (T,) uint64, never reused within a run.
        ages: (T,) uint32, number of frames in which the point was seen, this one included.
        gaps: (T,) uint32, number of frames since it was first seen in which it was missed.
        feature_indices: (T,) uint32, rows of the current `Features`.
        keypoints: (T, 2) float32, (x, y) px.
        velocities: (T, 2) float32, px/s since the previous sighting; 0 at age 1 and where time does not advance.
        elapsed_s: (T,) float32, s since the previous sighting; 0 at age 1.
        quality: (T,) float32 in [-1, 1], how alike the point looks to an earlier sighting: the cosine similarity of its
            latest match, or with the persistent tracker the correlation of its surroundings. NaN at age 1 and where
            that is not known.
    """

    ids: npt.NDArray[np.uint64]
    ages: npt.NDArray[np.uint32]
    gaps: npt.NDArray[np.uint32]
    feature_indices: npt.NDArray[np.uint32]
    keypoints: npt.NDArray[np.float32]
    velocities: npt.NDArray[np.float32]
    elapsed_s: npt.NDArray[np.float32]
    quality: npt.NDArray[np.float32]

    def __len__(self) -> int:
        """Number of tracks T."""
        return int(self.ids.shape[0])

    def check(self) -> None:
        """Checks that the rows of all arrays belong together, of tracks that were read from somewhere.

        Raises:
            SnapshotError: They do not.
        """
        rows = self.ids.shape[:1]
        one_each = (self.ids, self.ages, self.gaps, self.feature_indices, self.elapsed_s, self.quality)
        is_whole = all(array.shape == rows for array in one_each)
        is_whole = is_whole and self.keypoints.shape == self.velocities.shape == (*rows, 2)
        require(is_whole, "as much of each track")

    @staticmethod
    def empty() -> Tracks:
        """No tracks."""
        return Tracks(
            ids=np.zeros(0, np.uint64),
            ages=np.zeros(0, np.uint32),
            gaps=np.zeros(0, np.uint32),
            feature_indices=np.zeros(0, np.uint32),
            keypoints=np.zeros((0, 2), np.float32),
            velocities=np.zeros((0, 2), np.float32),
            elapsed_s=np.zeros(0, np.float32),
            quality=np.zeros(0, np.float32),
        )
