"""Runs the odometry over the tracks of front-ends, always with the same settings, and measures the trajectories."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_frontend_lab.evaluation.odometry.metrics import TrajectoryErrors, trajectory_errors
from feature_frontend_lab.evaluation.odometry.sequences import TrackedSequence
from feature_frontend_lab.odometry.monocular import View, VisualOdometry

__all__ = ["PIECE_FRAMES", "OdometryResult", "SequenceResults", "run_odometry"]

FloatArray = npt.NDArray[np.float64]

PIECE_FRAMES = 10
"""Images in each piece of a sequence without an IMU."""

_MS_PER_S = 1e3
_NS_PER_S = 1e9


@dataclass(frozen=True, eq=False)
class OdometryResult:
    """One front-end on one sequence. Errors are NaN without ground truth, or if there are too few poses.

    Attributes:
        stamps_ns: Stamps of the estimated poses.
        poses: (4, 4) camera-to-world each, in the odometry's world.
        pieces: For each pose, how often the odometry had been lost before; without an IMU, the number of the piece.
        errors: Against the truth. Without an IMU, each piece is aligned by itself, with scale, and the errors are those
            of all pieces together.
        images: Images of the sequence.
        start_s: Time from the first image to the first pose; NaN if there is none.
        losses: Why the odometry was lost and started anew, for each time.
        no_start: Why there is no pose at all; empty if there is one.
        rejected: Fraction of the points in use that fitted no place; NaN without any, or without an IMU.
        points: Mean number of points in use; NaN without an IMU.
        mean_ms: Time that the odometry took for an image.
    """

    stamps_ns: list[int]
    poses: list[FloatArray]
    pieces: list[int]
    errors: TrajectoryErrors
    images: int
    start_s: float
    losses: list[str]
    no_start: str
    rejected: float
    points: float
    mean_ms: float

    @property
    def covered(self) -> float:
        """Fraction of the images that have a pose."""
        return len(self.poses) / self.images if self.images else float("nan")


@dataclass(frozen=True, eq=False)
class SequenceResults:
    """All results on one sequence.

    Attributes:
        name: Name of the sequence.
        has_imu: Whether the IMU was used.
        seeds: Seeds of a flight; None for a recording.
        truth: For each seed the stamps and the known camera-to-world poses.
        results: By front-end, for each seed.
    """

    name: str
    has_imu: bool
    seeds: Sequence[int] | None
    truth: Sequence[tuple[list[int], list[FloatArray]]]
    results: dict[str, list[OdometryResult]]


def run_odometry(tracked: TrackedSequence) -> OdometryResult:
    """Visual-inertial odometry; monocular odometry of pieces of ten images without an IMU.

    Raises:
        SettingsError: gtsam is not installed, which only the IMU needs.
    """
    return _monocular(tracked) if tracked.imu is None else _inertial(tracked)


def _inertial(tracked: TrackedSequence) -> OdometryResult:
    from feature_frontend_lab.odometry.smoother import VisualInertialSmoother

    imu = tracked.imu
    assert imu is not None
    smoother = VisualInertialSmoother(imu.body_from_camera, imu.noise)
    smoother.imu.add(imu.stamps_ns, imu.angular_velocity, imu.linear_acceleration)
    rows: list[int] = []
    poses: list[FloatArray] = []
    pieces: list[int] = []
    losses: list[str] = []
    rejected, points = 0, 0
    waiting = "the images end before a start"
    begin_s = time.perf_counter()
    for row, view in enumerate(tracked.views):
        step = smoother.update(view)
        losses += [step.lost] if step.lost else []
        waiting = step.waiting or waiting
        rejected += step.rejected
        points += step.points
        if step.pose is not None:
            rows.append(row)
            poses.append(step.pose @ imu.body_from_camera)
            pieces.append(len(losses))
    elapsed_s = time.perf_counter() - begin_s
    fraction = rejected / points if points else float("nan")
    return _result(tracked, rows, poses, pieces, losses, waiting, fraction, points / max(len(rows), 1), elapsed_s)


def _monocular(tracked: TrackedSequence) -> OdometryResult:
    rows: list[int] = []
    poses: list[FloatArray] = []
    pieces: list[int] = []
    losses: list[str] = []
    begin_s = time.perf_counter()
    for number, piece in enumerate(_pieces(len(tracked.views))):
        odometry, begun, why = VisualOdometry(), piece[0], ""
        found: dict[int, FloatArray] = {}
        for row in piece:
            view = tracked.views[row]
            step = odometry.update(View.of(view.ids, view.rays), view.px)
            if step.begins:
                begun, why = row, why or step.note
            if step.first_pose is not None:
                losses += [why] if found else []
                why = ""
                found[begun] = step.first_pose
            if step.pose is not None:
                found[row] = step.pose
        rows += found
        poses += found.values()
        pieces += [number] * len(found)
    elapsed_s = time.perf_counter() - begin_s
    no_start = f"no piece of {PIECE_FRAMES} images shows a motion"
    return _result(tracked, rows, poses, pieces, losses, no_start, float("nan"), float("nan"), elapsed_s)


def _pieces(count: int) -> Iterator[range]:
    for first in range(0, count - PIECE_FRAMES + 1, PIECE_FRAMES):
        yield range(first, first + PIECE_FRAMES)


def _result(
    tracked: TrackedSequence,
    rows: list[int],
    poses: list[FloatArray],
    pieces: list[int],
    losses: list[str],
    no_start: str,
    rejected: float,
    points: float,
    elapsed_s: float,
) -> OdometryResult:
    stamps_ns = [tracked.views[row].stamp_ns for row in rows]
    images = len(tracked.views)
    return OdometryResult(
        stamps_ns=stamps_ns,
        poses=poses,
        pieces=pieces,
        errors=_errors(tracked, rows, poses, pieces),
        images=images,
        start_s=(stamps_ns[0] - tracked.views[0].stamp_ns) / _NS_PER_S if rows else float("nan"),
        losses=losses,
        no_start="" if rows else no_start,
        rejected=rejected,
        points=points,
        mean_ms=elapsed_s * _MS_PER_S / max(images, 1),
    )


def _errors(tracked: TrackedSequence, rows: list[int], poses: list[FloatArray], pieces: list[int]) -> TrajectoryErrors:
    known = [
        (tracked.views[row].stamp_ns, pose, true_pose, piece)
        for row, pose, piece in zip(rows, poses, pieces, strict=True)
        if (true_pose := tracked.poses[row]) is not None
    ]
    if tracked.imu is not None:
        columns = list(zip(*known, strict=True)) or [()] * 4
        return trajectory_errors(*columns)
    of_pieces = []
    for number in sorted({piece for *_, piece in known}):
        of_piece = [entry for entry in known if entry[3] == number]
        of_pieces.append(trajectory_errors(*zip(*of_piece, strict=True), with_scale=True))
    positions = [errors.positions for errors in of_pieces] or [np.zeros((0, 3))]
    squares = [errors.ate_m**2 * len(errors.positions) for errors in of_pieces if len(errors.positions)]
    total = sum(map(len, positions))
    ate_m = float(np.sqrt(sum(squares) / total)) if total else float("nan")
    nan = float("nan")
    return TrajectoryErrors(ate_m, nan, nan, np.concatenate(positions))
