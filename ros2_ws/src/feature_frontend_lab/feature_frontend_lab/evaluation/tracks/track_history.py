"""Runs one configuration over a sequence and stores the data for the metrics; descriptors only while needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.errors import SettingsError, SourceError
from feature_frontend.types import Tracks
from feature_frontend_lab.evaluation.homography.baselines import DescribedPoints, match_points
from feature_frontend_lab.evaluation.tracks.baselines import Detections, SequenceFrontend
from feature_frontend_lab.evaluation.tracks.metrics import fraction_seen
from feature_frontend_lab.evaluation.tracks.sequence import EvaluationSequence

__all__ = ["FRAMES_BEFORE_UNRELATED", "POSE_GAPS", "TrackHistory", "fraction_seen_in_unrelated", "record_sequence"]

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.floating]
FloatArray = npt.NDArray[np.float64]
Pair = tuple[int, Points, Points]

POSE_GAPS = (1, 2, 5)
"""Gaps, in frames, at which geometry is evaluated."""

FRAMES_BEFORE_UNRELATED = 10
"""Number of frames shown to a front-end before an unrelated image, if the sequence has that many."""


@dataclass(eq=False)
class TrackHistory:
    """Results of one configuration on a sequence; lists have one entry per frame.

    Attributes:
        identity: Name and version of the front-end.
        height: Image height, px.
        width: Image width, px.
        camera: Calibration; None if not available.
        stamps_ns: Stamps.
        poses: Known camera-to-world matrices (4, 4); None if unknown.
        tracks: Points seen, with ids.
        detections: Independent detections.
        keypoints: Number of keypoints.
        nearest_pairs: Mutual nearest neighbours of the frames' descriptors without tracking, by gap; empty without
            descriptors.
        extraction_ms: Time to detect and describe keypoints.
        tracking_ms: Time to match or track them.
    """

    identity: str
    height: int = 0
    width: int = 0
    camera: CameraCalibration | None = None
    stamps_ns: list[int] = field(default_factory=list)
    poses: list[FloatArray | None] = field(default_factory=list)
    tracks: list[Tracks] = field(default_factory=list)
    detections: list[Detections] = field(default_factory=list)
    keypoints: list[int] = field(default_factory=list)
    nearest_pairs: dict[int, list[Pair]] = field(default_factory=lambda: {gap: [] for gap in POSE_GAPS})
    extraction_ms: list[float] = field(default_factory=list)
    tracking_ms: list[float] = field(default_factory=list)

    @property
    def has_truth(self) -> bool:
        """Whether at least two frames have known poses and the camera is calibrated."""
        return self.camera is not None and sum(pose is not None for pose in self.poses) >= 2


def record_sequence(
    frontend: SequenceFrontend, sequence: EvaluationSequence, on_frame: Callable[[], object] = lambda: None
) -> TrackHistory:
    """Runs a new `frontend` over all images.

    Raises:
        SourceError: The images cannot be read, differ in size, or are fewer than two.
        FeatureFrontendError: An image cannot be processed.
    """
    recording = TrackHistory(frontend.identity)
    latest: deque[DescribedPoints] = deque(maxlen=max(POSE_GAPS))
    for index, frame in enumerate(sequence.frames()):
        size = frame.image.shape[:2]
        if index and size != (recording.height, recording.width):
            raise SourceError(
                f"image {index} of {sequence.name} is {size[1]}x{size[0]} px, those before it "
                f"{recording.width}x{recording.height} px; expected one size"
            )
        result = frontend.process(frame.image, frame.stamp_ns)
        recording.height, recording.width = size
        recording.camera = frame.camera
        recording.stamps_ns.append(frame.stamp_ns)
        recording.poses.append(frame.pose)
        recording.tracks.append(result.tracks)
        recording.detections.append(frontend.detect(frame.image))
        recording.keypoints.append(len(result.found.points))
        recording.extraction_ms.append(result.extraction_ms)
        recording.tracking_ms.append(result.tracking_ms)
        for gap in POSE_GAPS:
            if gap <= len(latest) and result.found.norm != "none":
                earlier = latest[-gap]
                rows0, rows1 = match_points(earlier, result.found).T
                pair = (index - gap, _small(earlier.points[rows0]), _small(result.found.points[rows1]))
                recording.nearest_pairs[gap].append(pair)
        latest.append(result.found)
        on_frame()
    _check(recording, sequence)
    return recording


def fraction_seen_in_unrelated(
    frontend: SequenceFrontend,
    sequence: EvaluationSequence,
    frame_count: int,
    unrelated: Image,
    on_frame: Callable[[], object] = lambda: None,
) -> float:
    """Fraction of the tracks reported as seen in an unrelated image that replaces the middle frame.

    Args:
        frontend: A new one. It sees up to ten frames before the unrelated image.
        sequence: The other frames.
        frame_count: Number of frames in the sequence.
        unrelated: (H, W) or (H, W, 3) RGB, uint8; converted to the frames' size and number of channels.
        on_frame: Called after each frame.
    """
    middle = frame_count // 2
    tracks: list[Tracks] = []
    for index, frame in enumerate(sequence.frames()):
        if index < middle - FRAMES_BEFORE_UNRELATED:
            continue
        image = _like(unrelated, frame.image) if index == middle else frame.image
        tracks.append(frontend.process(image, frame.stamp_ns).tracks)
        on_frame()
        if index == middle:
            break
    return fraction_seen(tracks, len(tracks) - 1)


def _check(recording: TrackHistory, sequence: EvaluationSequence) -> None:
    count = len(recording.tracks)
    if count < 2:
        raise SourceError(f"{sequence.name} gives {count} image; tracks need at least 2")
    back = sum(later < earlier for earlier, later in pairwise(recording.stamps_ns))
    if back:
        raise SourceError(
            f"the stamps of {sequence.name} go back {back} times; expected one sequence with ascending stamps"
        )
    truth = sequence.ground_truth
    if truth is not None and not any(pose is not None for pose in recording.poses):
        raise SettingsError(
            f"no image of {sequence.name} falls into the time of the poses in {truth.path}; expected other poses"
        )


def _like(image: Image, frame: Image) -> Image:
    height, width = frame.shape[:2]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if resized.ndim == frame.ndim:
        return np.asarray(resized, np.uint8)
    code = cv2.COLOR_GRAY2RGB if resized.ndim == 2 else cv2.COLOR_RGB2GRAY
    return np.asarray(cv2.cvtColor(resized, code), np.uint8)


def _small(points: FloatArray) -> Points:
    """Converts to float32: half the memory, still exact to 1e-4 px."""
    return points.astype(np.float32)
