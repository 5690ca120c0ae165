"""Front-ends that run over a sequence: this project's, and two baselines, Lucas-Kanade and chained ORB matches."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.extractors.covariances import PositionNoise
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.settings import PARAMETERS, Settings
from feature_frontend.tracking.track_table import TrackTable
from feature_frontend.types import Features, Matches, Tracks
from feature_frontend_lab.evaluation.homography.baselines import DescribedPoints, MethodOptions, OrbMethod, match_points

__all__ = ["Detections", "FrontendSequence", "LucasKanadeSequence", "OrbSequence", "SequenceFrontend", "SequenceResult"]

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.floating]
Float32Array = npt.NDArray[np.float32]

# Quality, window and levels as in VINS-Mono and OpenVINS; the distance leaves room for 1000 corners.
_QUALITY = 0.01
_MINIMUM_DISTANCE_PX = 8
_WINDOW = (21, 21)
_LAST_LEVEL = 3
_FORWARD_BACKWARD_PX = 0.5
# Multiple of the budget at which the detector shows the keypoints that the budget excludes.
_DETECTION_BUDGETS = 4
_MS_PER_S = 1e3
_NS_PER_S = 1e9


@dataclass(frozen=True)
class SequenceResult:
    """Result for one image.

    Attributes:
        tracks: Points seen in the image, with ids.
        found: Keypoints and descriptors, to be matched with those of any other image; norm "none" for a method that
            tracks points without describing them.
        extraction_ms: Time to detect and describe keypoints.
        tracking_ms: Time to match or track them.
    """

    tracks: Tracks
    found: DescribedPoints
    extraction_ms: float
    tracking_ms: float


@dataclass(frozen=True)
class Detections:
    """Keypoints that a detector finds in an image independently of any tracks, with several times the budget.

    Attributes:
        points: (N, 2) px.
        in_budget: (N,) bool, keypoints that the detector also finds with the budget alone.
    """

    points: Points
    in_budget: npt.NDArray[np.bool_]


class SequenceFrontend(Protocol):
    """Takes one image after another and returns tracks."""

    @property
    def identity(self) -> str:
        """Name and version of the front-end."""

    def process(self, image: Image, stamp_ns: int) -> SequenceResult:
        """Tracks of the next image, (H, W) grey or (H, W, 3) RGB."""

    def detect(self, image: Image) -> Detections:
        """Detections in the image last given to `process`, independent of the tracks."""

    def close(self) -> None:
        """Stops background work."""


class FrontendSequence:
    """This project's front-end.

    Args:
        settings: Its parameters. Fallback is disabled: figures of another network would carry the wrong name.
        noise: Constants of the covariances; None for the extractor's own.

    Raises:
        FeatureFrontendError: The weights are not available or do not fit.
    """

    def __init__(self, settings: Settings, noise: PositionNoise | None = None) -> None:
        self._frontend = Frontend.from_pretrained(replace(settings, fallback_extractor=""))
        if noise is not None:
            self._frontend.extractor.position_noise = noise
        self._budget = settings.max_num_keypoints
        self._latest: Points = np.zeros((0, 2))
        self._detector: Extractor | None = None
        if self._frontend.settings.tracker != "chain":
            # A separate extractor, so that the front-end keeps its settings and its captured CUDA graphs.
            budget = min(_DETECTION_BUDGETS * self._budget, int(PARAMETERS["max_num_keypoints"].maximum or 0))
            self._detector = Extractor.from_pretrained(replace(self._frontend.settings, max_num_keypoints=budget))

    @property
    def identity(self) -> str:
        """Name of the extractor and hash of its weights."""
        return self._frontend.extractor.identity

    def process(self, image: Image, stamp_ns: int) -> SequenceResult:
        """Features, matches and tracks of the next image."""
        result = self._frontend.process(image, stamp_ns)
        points = result.features.keypoints.numpy().astype(np.float64)
        found = DescribedPoints(points, result.features.descriptors.float().numpy(), "cosine")
        self._latest, times = points, result.times
        return SequenceResult(result.tracks, found, times.extraction_ms, times.matching_ms + times.tracking_ms)

    def detect(self, image: Image) -> Detections:
        """Runs the extractor alone if the tracker adds points; otherwise returns the keypoints already found."""
        if self._detector is None:
            return _all_in_budget(self._latest)
        features = self._detector.extract(image)
        in_budget = np.zeros(len(features), np.bool_)
        in_budget[torch.argsort(features.scores.cpu(), descending=True)[: self._budget].numpy()] = True
        return Detections(features.keypoints.cpu().numpy(), in_budget)

    def close(self) -> None:
        """Stops background work."""
        self._frontend.close()
        if self._detector is not None:
            self._detector.close()


class OrbSequence:
    """OpenCV's ORB; mutual nearest neighbours by Hamming distance, chained.

    Args:
        count: Maximum number of keypoints per image.
    """

    identity = f"OpenCV {cv2.__version__}"

    def __init__(self, count: int) -> None:
        self._count = count
        self._orb = OrbMethod(MethodOptions())
        self._tracker = TrackTable()
        self._latest: DescribedPoints | None = None

    def process(self, image: Image, stamp_ns: int) -> SequenceResult:
        """ORB's keypoints, and their matches with those of the previous image."""
        start_s = time.perf_counter()
        found = self._orb.detect_and_describe(image, self._count)
        found_s = time.perf_counter()
        rows = np.zeros((0, 2), np.int64) if self._latest is None else match_points(self._latest, found)
        self._latest = found
        indices0, indices1 = torch.from_numpy(rows.T.copy())
        value = torch.zeros(len(rows))
        keypoints = torch.from_numpy(found.points).float()
        scores, descriptors = torch.ones(len(keypoints)), torch.zeros((len(keypoints), 0))
        # The tracker uses positions and indices only.
        features = Features(keypoints, scores, descriptors, image.shape[0], image.shape[1], "orb")
        tracks = self._tracker.update(features, Matches(indices0, indices1, value, value, "mnn"), stamp_ns)
        end_s = time.perf_counter()
        return SequenceResult(tracks, found, (found_s - start_s) * _MS_PER_S, (end_s - found_s) * _MS_PER_S)

    def detect(self, _: Image) -> Detections:
        """Returns the keypoints of the last image: with ORB, tracks and detections are the same points."""
        return _all_in_budget(np.zeros((0, 2)) if self._latest is None else self._latest.points)

    def close(self) -> None:
        """Does nothing: there is no background work."""


class LucasKanadeSequence:
    """Shi-Tomasi corners tracked by pyramidal Lucas-Kanade, as in the optical-flow front-ends of VINS.

    A point survives if tracking it forward and back again ends within half a pixel of its start. New corners fill up
    the budget, at least 8 px from the tracked ones.

    Args:
        count: Maximum number of points per image.
    """

    identity = f"OpenCV {cv2.__version__}"

    def __init__(self, count: int) -> None:
        self._count = count
        self._next_id = 1
        self._latest: tuple[Image, int, Tracks] | None = None

    def process(self, image: Image, stamp_ns: int) -> SequenceResult:
        """Points of the previous image that are still visible, then new ones."""
        grey = _grey(image)
        start_s = time.perf_counter()
        followed = Tracks.empty() if self._latest is None else _follow(*self._latest, grey, stamp_ns)
        followed_s = time.perf_counter()
        fresh = _corners(grey, self._count - len(followed), followed.keypoints)
        tracks = _with_fresh(followed, fresh, self._next_id)
        self._next_id += len(fresh)
        self._latest = (grey, stamp_ns, tracks)
        end_s = time.perf_counter()
        found = DescribedPoints(tracks.keypoints.astype(np.float64), np.zeros((len(tracks), 0), np.float32), "none")
        return SequenceResult(tracks, found, (end_s - followed_s) * _MS_PER_S, (followed_s - start_s) * _MS_PER_S)

    def detect(self, image: Image) -> Detections:
        """Corners of the whole image, best first."""
        points = _corners(_grey(image), _DETECTION_BUDGETS * self._count, np.zeros((0, 2), np.float32))
        return Detections(points, np.arange(len(points)) < self._count)

    def close(self) -> None:
        """Does nothing: there is no background work."""


def _follow(grey0: Image, stamp0_ns: int, tracks0: Tracks, grey1: Image, stamp1_ns: int) -> Tracks:
    if len(tracks0) == 0 or grey0.shape != grey1.shape:
        return Tracks.empty()
    points0 = tracks0.keypoints
    points1, there = _flow(grey0, grey1, points0)
    again, back = _flow(grey1, grey0, points1)
    height, width = grey1.shape
    inside = ((points1 >= 0) & (points1 <= [width - 1, height - 1])).all(axis=1)
    kept = there & back & inside & (np.linalg.norm(again - points0, axis=1) <= _FORWARD_BACKWARD_PX)
    elapsed_s = (stamp1_ns - stamp0_ns) / _NS_PER_S
    moved = points1[kept] - points0[kept]
    return Tracks(
        ids=tracks0.ids[kept],
        ages=tracks0.ages[kept] + np.uint32(1),
        gaps=tracks0.gaps[kept],
        feature_indices=np.arange(int(kept.sum()), dtype=np.uint32),
        keypoints=points1[kept],
        velocities=moved / np.float32(elapsed_s) if elapsed_s > 0 else np.zeros_like(moved),
        elapsed_s=np.full(len(moved), elapsed_s, np.float32),
        quality=np.full(len(moved), np.nan, np.float32),
    )


def _flow(grey0: Image, grey1: Image, points0: Float32Array) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
    points1, status, _ = cv2.calcOpticalFlowPyrLK(  # type: ignore[call-overload]
        grey0, grey1, points0.reshape(-1, 1, 2), None, winSize=_WINDOW, maxLevel=_LAST_LEVEL
    )
    return points1.reshape(-1, 2), status.ravel().astype(np.bool_)


def _corners(grey: Image, count: int, occupied: Float32Array) -> Float32Array:
    """(N, 2) px, at most `count` corners, none close to the `occupied` points."""
    if count < 1:
        return np.zeros((0, 2), np.float32)
    mask = np.full(grey.shape, 255, np.uint8)
    for x, y in np.rint(occupied).astype(int).tolist():
        cv2.circle(mask, (x, y), _MINIMUM_DISTANCE_PX, 0, cv2.FILLED)
    corners = cv2.goodFeaturesToTrack(grey, count, _QUALITY, _MINIMUM_DISTANCE_PX, mask=mask)
    return np.zeros((0, 2), np.float32) if corners is None else np.asarray(corners, np.float32).reshape(-1, 2)


def _with_fresh(tracks: Tracks, fresh: Float32Array, first_id: int) -> Tracks:
    count = len(fresh)
    return Tracks(
        ids=np.concatenate([tracks.ids, np.arange(first_id, first_id + count, dtype=np.uint64)]),
        ages=np.concatenate([tracks.ages, np.ones(count, np.uint32)]),
        gaps=np.concatenate([tracks.gaps, np.zeros(count, np.uint32)]),
        feature_indices=np.arange(len(tracks) + count, dtype=np.uint32),
        keypoints=np.concatenate([tracks.keypoints, fresh]),
        velocities=np.concatenate([tracks.velocities, np.zeros((count, 2), np.float32)]),
        elapsed_s=np.concatenate([tracks.elapsed_s, np.zeros(count, np.float32)]),
        quality=np.concatenate([tracks.quality, np.full(count, np.nan, np.float32)]),
    )


def _all_in_budget(points: Points) -> Detections:
    return Detections(points, np.ones(len(points), np.bool_))


def _grey(image: Image) -> Image:
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
