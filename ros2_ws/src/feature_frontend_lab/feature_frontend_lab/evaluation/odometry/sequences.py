"""Sequences for odometry, recorded or rendered, and the views that a front-end makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import normalize_points
from feature_frontend.errors import SettingsError
from feature_frontend.sources.imu import ImuMeasurements
from feature_frontend_lab.evaluation.tracks.baselines import SequenceFrontend
from feature_frontend_lab.evaluation.tracks.sequence import SequenceFrame, SequenceOptions, open_sequence
from feature_frontend_lab.odometry.views import TrackedView
from feature_frontend_lab.rendering.flights import FLIGHTS, Flight, flight

__all__ = ["RENDERED", "OdometrySequence", "TrackedSequence", "open_odometry_sequence", "track"]

FloatArray = npt.NDArray[np.float64]

RENDERED = "rendered:"
"""What the name of a flight begins with, where a folder could be."""


@dataclass(frozen=True, eq=False)
class OdometrySequence:
    """Images that can be read repeatedly, with an IMU or without.

    Attributes:
        name: Name used in reports.
        seed: Of a flight; None for a recording, of which there is one only.
        frames: Reads the images in order.
        count: Number of images; None if unknown.
        imu: Measurements; None without an IMU.
        missing: Known image losses, one sentence each; filled once all images have been read.
    """

    name: str
    seed: int | None
    frames: Callable[[], Iterator[SequenceFrame]]
    count: int | None
    imu: ImuMeasurements | None
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class TrackedSequence:
    """What a back-end gets of a sequence, and the truth.

    Attributes:
        views: The tracks of each image.
        poses: True camera-to-world matrices (4, 4) of the images; None where unknown.
        imu: Measurements; None without an IMU.
    """

    views: list[TrackedView]
    poses: list[FloatArray | None]
    imu: ImuMeasurements | None


def open_odometry_sequence(location: str, options: SequenceOptions, seeds: int) -> list[OdometrySequence]:
    """Opens a recording, or as many seeds of a rendered flight.

    Args:
        location: A folder, bag or video, or `rendered:` and the name of a flight.
        options: Selection of images; files apply to recordings only.
        seeds: Number of seeds of a flight.

    Raises:
        SettingsError: There is no such flight, or it has no such images.
        FeatureFrontendError: The recording cannot be read.
    """
    if not location.startswith(RENDERED):
        sequence = open_sequence(location, options)
        count = sequence.source.frame_count
        if count is not None:
            count = max(count - options.start, 0)
            count = min(count, options.count or count)
        return [OdometrySequence(sequence.name, None, sequence.frames, count, sequence.imu, sequence.missing)]
    name = location.removeprefix(RENDERED)
    if name not in FLIGHTS:
        raise SettingsError(f"no rendered flight is called {name!r}; expected one of {', '.join(FLIGHTS)}")
    return [_rendered(flight(name, seed), options) for seed in range(seeds)]


def _rendered(flown: Flight, options: SequenceOptions) -> OdometrySequence:
    rows = range(len(flown.stamps_ns))[options.start :][: options.count]
    if not rows:
        raise SettingsError(
            f"there is no image {options.start} among the {len(flown.stamps_ns)} of {RENDERED}{flown.name}; choose a "
            "smaller start"
        )

    def frames() -> Iterator[SequenceFrame]:
        for row in rows:
            yield SequenceFrame(flown.image(row), int(flown.stamps_ns[row]), flown.calibration, flown.poses[row])

    return OdometrySequence(flown.name, flown.seed, frames, len(rows), flown.imu)


def track(
    frontends: Mapping[str, SequenceFrontend], sequence: OdometrySequence, on_frame: Callable[[], object] = lambda: None
) -> dict[str, TrackedSequence]:
    """Runs new front-ends over all images, each of which is read or rendered once.

    Args:
        frontends: By name.
        sequence: The images.
        on_frame: Called after each image that a front-end has processed.

    Returns:
        What each front-end made of the images, by its name.

    Raises:
        SettingsError: The camera is not calibrated.
        FeatureFrontendError: The images cannot be read or processed.
    """
    views: dict[str, list[TrackedView]] = {name: [] for name in frontends}
    poses: list[FloatArray | None] = []
    for frame in sequence.frames():
        if frame.camera is None:
            raise SettingsError(f"{sequence.name} has no calibration, which odometry needs; give one by --camera-info")
        for name, frontend in frontends.items():
            tracks = frontend.process(frame.image, frame.stamp_ns).tracks
            rays = normalize_points(frame.camera, tracks.keypoints)
            views[name].append(
                TrackedView.of(frame.stamp_ns, tracks.ids.astype(np.int64), rays, 1 / frame.camera.camera_matrix[0])
            )
            on_frame()
        poses.append(frame.pose)
    return {name: TrackedSequence(of_one, poses, sequence.imu) for name, of_one in views.items()}
