"""Known camera poses of a sequence: files of TUM RGB-D, KITTI odometry and EuRoC, and the pose at an image's time.

Convention: a pose is a 4x4 camera-to-world matrix, metres; the camera's frame is the optical one. A quaternion is
(x, y, z, w).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.errors import SourceError
from feature_frontend.sources.datasets.base import DatasetSource
from feature_frontend.sources.datasets.euroc import euroc_pose_row
from feature_frontend.sources.datasets.stamped_rows import read_stamped_rows
from feature_frontend.system.files import read_regular_file
from feature_frontend.system.text import short_text

__all__ = [
    "GROUND_TRUTH_FILES",
    "GroundTruth",
    "ground_truth_of",
    "quaternion_of",
    "read_ground_truth",
    "rotation_of",
    "tum_text",
]

_logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]

GROUND_TRUTH_FILES = ("groundtruth.txt", "poses.txt")
"""Pose file names used by TUM, KITTI and the demo, in the image folder."""

# Columns per line: stamp, position, quaternion; the rows of a 3x4 matrix; a stamp and such a matrix.
_TUM, _KITTI, _STAMPED_MATRIX = 8, 12, 13
# Poses are not interpolated over longer holes.
_LONGEST_HOLE_NS = 250_000_000
_LAST_STAMP_S = 2.0**33
_MAX_BYTES = 2**28
# The rounding in such files causes smaller errors; a wrong order of columns causes larger ones.
_ROTATION_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Poses of a camera.

    Attributes:
        path: File that they were read from.
        poses: (N, 4, 4) camera-to-world.
        stamps_ns: (N,) stamps in ns, ascending; None if pose i belongs to image i of the sequence.
    """

    path: Path
    poses: FloatArray
    stamps_ns: npt.NDArray[np.int64] | None

    def pose_at(self, index: int, stamp_ns: int | None) -> FloatArray | None:
        """Returns the pose (4, 4) of image `index`, taken at `stamp_ns`; None if unknown.

        Between two stamps, the position is interpolated linearly and the rotation about a fixed axis. Between stamps
        more than 0.25 s apart, the pose is unknown.

        Raises:
            SourceError: The poses have stamps but the image has none.
        """
        if self.stamps_ns is None:
            return np.asarray(self.poses[index]) if index < len(self.poses) else None
        if stamp_ns is None:
            raise SourceError(
                f"the poses in {self.path} are for stamps, and the images have none; give them names that are times"
            )
        after = int(np.searchsorted(self.stamps_ns, stamp_ns))
        if after < len(self.stamps_ns) and self.stamps_ns[after] == stamp_ns:
            return np.asarray(self.poses[after])
        if after in {0, len(self.stamps_ns)}:
            return None
        begin_ns, end_ns = self.stamps_ns[after - 1 : after + 1].tolist()
        if end_ns - begin_ns > _LONGEST_HOLE_NS:
            return None
        return _between(self.poses[after - 1], self.poses[after], (stamp_ns - begin_ns) / (end_ns - begin_ns))


def read_ground_truth(path: Path, frame_count: int | None = None) -> GroundTruth:
    """Reads poses; the number of columns determines the format.

    Args:
        path: 8 columns: stamp (s), position, quaternion x y z w (TUM). 12: a 3x4 matrix, line i for image i (KITTI).
            13: stamp (s) and a 3x4 matrix (this project's demo). "#" begins a comment.
        frame_count: Number of images in the sequence, if known; a KITTI file must have as many lines.

    Raises:
        SourceError: The file cannot be read or has other contents.
    """
    table = _table(path)
    columns = table.shape[1]
    if columns not in {_TUM, _KITTI, _STAMPED_MATRIX}:
        raise SourceError(
            f"{path} has {columns} columns; expected 8 (stamp x y z qx qy qz qw, as TUM writes), 12 (a 3x4 matrix, as "
            "KITTI writes) or 13 (stamp and a 3x4 matrix)"
        )
    if columns == _KITTI:
        if frame_count not in {None, len(table)}:
            raise SourceError(
                f"{path} has {len(table)} poses for {frame_count} images; expected one for each, in their order"
            )
        return GroundTruth(path, _from_rows(path, table), None)
    if np.abs(table[:, 0]).max() > _LAST_STAMP_S:
        raise SourceError(f"{path} has a stamp {np.abs(table[:, 0]).max():g}; expected seconds")
    # A float of seconds since 1970 is exact to 0.2 us only.
    texts = _loaded(path, dtype=np.str_, usecols=[0])[:, 0]
    stamps_ns = np.array([round(Decimal(str(text)).scaleb(9)) for text in texts], np.int64)
    order = np.argsort(stamps_ns, kind="stable")
    table, stamps_ns = table[order], stamps_ns[order]
    poses = _from_tum(path, table) if columns == _TUM else _from_rows(path, table[:, 1:])
    return GroundTruth(path, poses, stamps_ns)


def ground_truth_of(source: DatasetSource) -> GroundTruth | None:
    """The poses of the camera of a dataset, whatever frame its file is about; None if the dataset has none.

    Raises:
        SourceError: The file cannot be read or has other contents.
    """
    file = source.poses
    if file is None:
        return None
    known = _from_euroc(file.path) if file.path.suffix == ".csv" else read_ground_truth(file.path)
    poses = known.poses @ file.frame_from_camera
    if file.lines is None:
        return GroundTruth(file.path, poses, known.stamps_ns)
    if len(file.lines) > 0 and max(file.lines) >= len(poses):
        raise SourceError(
            f"{file.path} has {len(poses)} poses; expected one for each image of {source.description}, the last of "
            f"which is number {max(file.lines)}"
        )
    return GroundTruth(file.path, poses[list(file.lines)], None)


def tum_text(stamps_ns: Sequence[int], poses: Sequence[FloatArray]) -> str:
    """Poses (4, 4) in TUM's format, as read by `evo`: stamp (s), position, quaternion x y z w."""
    lines = ["# timestamp tx ty tz qx qy qz qw"]
    for stamp_ns, pose in zip(stamps_ns, poses, strict=True):
        values = [*pose[:3, 3], *quaternion_of(pose[:3, :3])]
        stamp = f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}"
        lines.append(" ".join([stamp, *(f"{value:.9f}" for value in values)]))
    return "\n".join(lines) + "\n"


def quaternion_of(rotation: FloatArray) -> FloatArray:
    """(4,) unit quaternion x, y, z, w of a rotation (3, 3), with w >= 0."""
    vector = cv2.Rodrigues(rotation)[0].ravel()
    angle = float(np.linalg.norm(vector))
    # sin(a / 2) / a tends to 1 / 2.
    scale = np.sin(angle / 2) / angle if angle > 0 else 0.5
    return np.asarray([*(vector * scale), np.cos(angle / 2)], np.float64)


def rotation_of(quaternion: FloatArray) -> FloatArray:
    """(3, 3) rotation of a quaternion x, y, z, w of any positive length."""
    imaginary, real = np.asarray(quaternion[:3], np.float64), float(quaternion[3])
    length = float(np.linalg.norm(imaginary))
    axis = imaginary / length if length > 0 else imaginary
    return np.asarray(cv2.Rodrigues(axis * 2 * np.arctan2(length, real))[0], np.float64)


def _table(path: Path) -> FloatArray:
    try:
        table = _loaded(path, dtype=np.float64)
    except FileNotFoundError as error:
        raise SourceError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or short_text(error)
        raise SourceError(f"{path} cannot be read as a table of numbers: {why}") from error
    if table.size == 0 or not np.isfinite(table).all():
        raise SourceError(
            f"{path} holds {'no numbers' if table.size == 0 else 'a number that is not finite'}; expected a table"
        )
    return table


def _loaded(path: Path, **options: Any) -> npt.NDArray[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an empty file, which `_table` refuses
        text = read_regular_file(path, _MAX_BYTES).decode("utf-8-sig", "replace")
        return np.loadtxt(StringIO(text), ndmin=2, comments="#", **options)


def _from_rows(path: Path, rows: FloatArray) -> FloatArray:
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows.reshape(-1, 3, 4)
    rotations = poses[:, :3, :3]
    error = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    _check_rotations(path, error + (np.linalg.det(rotations) < 0), "a 3x4 matrix that begins with a rotation")
    return poses


def _from_euroc(path: Path) -> GroundTruth:
    rows = read_stamped_rows(path, euroc_pose_row, "of stamp (ns), position, quaternion w x y z")
    for sentence in (*rows.notices, *rows.missing):
        _logger.warning("%s", sentence)
    values = np.array(rows.values, np.float64)
    table = np.column_stack([np.zeros(len(values)), values[:, :3], values[:, 4:7], values[:, 3]])
    return GroundTruth(path, _from_tum(path, table), np.array(rows.stamps_ns, np.int64))


def _from_tum(path: Path, table: FloatArray) -> FloatArray:
    error = np.abs(np.linalg.norm(table[:, 4:], axis=1) - 1)
    _check_rotations(path, error, "stamp x y z qx qy qz qw with a quaternion of length 1")
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    poses[:, :3, 3] = table[:, 1:4]
    poses[:, :3, :3] = [rotation_of(row) for row in table[:, 4:]]
    return poses


def _check_rotations(path: Path, error: FloatArray, expectation: str) -> None:
    wrong = np.flatnonzero(error > _ROTATION_TOLERANCE)
    if len(wrong):
        raise SourceError(f"pose {wrong[0] + 1} of {len(error)} in {path} has no rotation; expected {expectation}")


def _between(pose0: FloatArray, pose1: FloatArray, fraction: float) -> FloatArray:
    pose = np.eye(4)
    turn = cv2.Rodrigues(pose0[:3, :3].T @ pose1[:3, :3])[0]
    pose[:3, :3] = pose0[:3, :3] @ cv2.Rodrigues(turn * fraction)[0]
    pose[:3, 3] = pose0[:3, 3] + fraction * (pose1[:3, 3] - pose0[:3, 3])
    return pose
