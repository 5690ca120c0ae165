"""The data types that the stages exchange: `Features`, `Matches`, `Tracks`.

Convention: points are (x, y) in px of the image as published, pixel centres at integers, the origin at the centre of
the top-left pixel. Row i of every array of an object belongs to the same keypoint, match or track. If nothing is found,
the object has zero rows. Suffix 0 is the earlier image, suffix 1 the current one.
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
        extractor: Name of the extractor and first 8 hex digits of its weights' SHA-256 ("aliked-n16@5be87048"), or name
            and library of an extractor without weights ("sift@opencv-4.11.0"). Descriptors of different extractors
            are not comparable.
        sizes: (N,) float32, diameter in px; None if the extractor does not estimate it.
        angles: (N,) float32, orientation in rad, [0, 2 pi), from the x axis towards the y axis (clockwise in the
            displayed image); None if the extractor does not estimate it.
        scales: (N,) float32, px of the image per px of the resized image in which the keypoint was found; None if
            unknown.
        covariances: (N, 3) float32, xx, xy and yy of the covariance of each keypoint's position in px^2, as
            `extractors.covariances` defines it; None if unknown.
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
    covariances: torch.Tensor | None = None

    def __len__(self) -> int:
        """Number of keypoints N."""
        return int(self.keypoints.shape[0])

    @property
    def is_whole(self) -> bool:
        """Whether all arrays have consistent shapes; for features read from a file or message."""
        rows = self.keypoints.shape[:1]
        one_each = (self.scores, self.sizes, self.angles, self.scales)
        has_all = all(array is None or array.shape == rows for array in one_each)
        has_all = has_all and (self.covariances is None or self.covariances.shape == (*rows, 3))
        return has_all and self.keypoints.shape == (*rows, 2) and self.descriptors.shape[:-1] == rows

    @property
    def descriptor_dim(self) -> int:
        """Descriptor length D."""
        return int(self.descriptors.shape[1])

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
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
            covariances=None if self.covariances is None else self.covariances.to(device),
        )


@dataclass(frozen=True)
class Matches:
    """Correspondences from an earlier image (0) to the current one (1).

    Attributes:
        indices0: (M,) int64, rows of the earlier `Features`.
        indices1: (M,) int64, rows of the current `Features`.
        similarity: (M,) float32, cosine similarity in [-1, 1].
        margin: (M,) float32 in [0, 2], similarity minus the second-best similarity of the earlier descriptor. If there
            is no second-best (only one keypoint in the current image) it is similarity + 1, the distance to the lowest
            possible similarity. Down to -2 with a matcher that may prefer a less similar pair.
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
        """Matches of an image pair in which nothing matches."""
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
    """Points tracked over time, as seen in the current image. NumPy arrays: tracking is bookkeeping on the CPU.

    Attributes:
        ids: (T,) uint64, never reused within a run.
        ages: (T,) uint32, number of frames in which the point was seen, including this one.
        gaps: (T,) uint32, number of frames since its first sighting in which it was missed.
        feature_indices: (T,) uint32, rows of the current `Features`.
        keypoints: (T, 2) float32, (x, y) px.
        velocities: (T, 2) float32, px/s since the previous sighting; 0 at age 1 and if time does not advance.
        elapsed_s: (T,) float32, s since the previous sighting; 0 at age 1.
        quality: (T,) float32 in [-1, 1], similarity of the point to an earlier sighting: the cosine similarity of its
            latest match, or, with the persistent tracker, the correlation of the pixels around it. NaN at age 1 and if
            unknown.
        covariances: (T, 3) float32, as in `Features`; None if unknown.
    """

    ids: npt.NDArray[np.uint64]
    ages: npt.NDArray[np.uint32]
    gaps: npt.NDArray[np.uint32]
    feature_indices: npt.NDArray[np.uint32]
    keypoints: npt.NDArray[np.float32]
    velocities: npt.NDArray[np.float32]
    elapsed_s: npt.NDArray[np.float32]
    quality: npt.NDArray[np.float32]
    covariances: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Number of tracks T."""
        return int(self.ids.shape[0])

    @property
    def is_whole(self) -> bool:
        """Whether all arrays have consistent shapes; for tracks read from a file or message."""
        rows = self.ids.shape[:1]
        one_each = (self.ids, self.ages, self.gaps, self.feature_indices, self.elapsed_s, self.quality)
        has_all = all(array.shape == rows for array in one_each)
        has_all = has_all and (self.covariances is None or self.covariances.shape == (*rows, 3))
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
    """How the tracks changed from the previous image to this one.

    Attributes:
        lost: Number of tracks seen in the previous image but not in this one.
        survival: Fraction of the tracks seen in the previous image that are seen in this one; NaN if there were none.
        parallax_px: Median distance in px that the surviving tracks moved; NaN if there are none.
    """

    lost: int = 0
    survival: float = math.nan
    parallax_px: float = math.nan


@dataclass(frozen=True)
class MatchCheck:
    """Result of the epipolar check of an image's matches.

    Attributes:
        inlier: (M,) uint8, 1 if the match is accepted, otherwise 0; (0,) without a result: the check is off, or there
            are fewer than 8 matches.
    """

    inlier: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))

    @property
    def ratio(self) -> float:
        """Fraction of the matches that are accepted, in [0, 1]; NaN without a result."""
        return float(self.inlier.mean()) if len(self.inlier) else math.nan


class FrameState(enum.IntEnum):
    """Status of a frame; the values are those of `FrameStatus.state`."""

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
    """All results of one image. All tensors are on the CPU.

    Attributes:
        state: OK, FIRST (no earlier image to match with) or DEGENERATE (no keypoints).
        reason: Why the state is DEGENERATE, or why a reset preceded this image; empty otherwise.
        features: Of this image.
        matches: From the previous image to this one; empty for the first.
        keypoints0: (M, 2) float32, (x, y) px: positions of the matches in the previous image.
        stamp0_ns: Stamp of the previous image in ns; None for the first.
        tracks: Of this image.
        times: Duration of each stage.
        check: Result of the epipolar check of the matches; `Frontend` leaves it empty.
        right: Features of the right image of a stereo pair; None for a mono image.
        resets: Number of resets so far (previous image and all tracks discarded).
        change: How the tracks of the previous image changed.
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
