"""What flows between the stages: `Features`, `Matches`, `Tracks`.

Convention: points are (x, y) in px of the image as published, pixel centres at integers, the origin at the centre of
the top-left pixel. Row i of every array of one object belongs to the same keypoint, match or track. "Nothing found" is
an object with zero rows. Suffix 0 is the earlier image, suffix 1 the current one.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

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

    @property
    def is_whole(self) -> bool:
        """Whether the rows of all arrays belong together, of features that were read from somewhere."""
        rows = self.keypoints.shape[:1]
        one_each = (self.scores, self.sizes, self.angles, self.scales)
        has_all = all(array is None or array.shape == rows for array in one_each)
        return has_all and self.keypoints.shape == (*rows, 2) and self.descriptors.shape[:-1] == rows

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

    @property
    def is_whole(self) -> bool:
        """Whether the rows of all arrays belong together, of tracks that were read from somewhere."""
        rows = self.ids.shape[:1]
        one_each = (self.ids, self.ages, self.gaps, self.feature_indices, self.elapsed_s, self.quality)
        has_all = all(array.shape == rows for array in one_each)
        return has_all and self.keypoints.shape == self.velocities.shape == (*rows, 2)

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


@dataclass(frozen=True)
class TrackChange:
    """What became of the tracks from one image to the next.

    Attributes:
        lost: How many of those seen in the image before are not seen in this one.
        survival: Share of those seen in the image before that are seen in this one; NaN where there were none.
        parallax_px: Median distance that these moved; NaN where there are none.
    """

    lost: int = 0
    survival: float = math.nan
    parallax_px: float = math.nan


@dataclass(frozen=True)
class MatchCheck:
    """What the check says of an image's matches.

    Attributes:
        inlier: (M,) uint8, 1 where a match is accepted, else 0; (0,) where nothing is said: the check is off, or there
            are fewer than 8 matches.
    """

    inlier: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))

    @property
    def ratio(self) -> float:
        """Share of the matches that are accepted, in [0, 1]; NaN where nothing is said."""
        return float(self.inlier.mean()) if len(self.inlier) else math.nan


class FrameState(enum.IntEnum):
    """What became of a frame; the values are those of `FrameStatus.state`."""

    OK = 0
    FIRST = 1
    DEGENERATE = 2
    DROPPED = 3
    ERROR = 4


@dataclass(frozen=True)
class StageTimes:
    """Wall-clock time of each stage, ms."""

    extraction_ms: float
    matching_ms: float
    tracking_ms: float


@dataclass(frozen=True)
class FrameResult:
    """What one image gave. All tensors are on the CPU.

    Attributes:
        state: OK, FIRST (no earlier image to match with) or DEGENERATE (no keypoints).
        reason: Why it is DEGENERATE, and why the image before was forgotten, if it was; empty otherwise.
        features: Of this image.
        matches: From the previous image to this one; empty for the first.
        keypoints0: (M, 2) float32, (x, y) px: where the matches were in the previous image.
        stamp0_ns: Time of the previous image in ns; None for the first.
        tracks: Of this image.
        times: How long it took.
        check: What the epipolar check says of the matches; `Frontend` itself leaves it empty.
        right: Features of the right image of a stereo pair; None where there was none.
        resets: How often the previous image and all tracks had been forgotten.
        change: What became of the previous image's tracks.
    """

    state: FrameState
    reason: str
    features: Features
    matches: Matches
    keypoints0: torch.Tensor
    stamp0_ns: int | None
    tracks: Tracks
    times: StageTimes
    check: MatchCheck = field(default_factory=MatchCheck)
    right: Features | None = None
    resets: int = 0
    change: TrackChange = field(default_factory=TrackChange)
