"""Known camera poses of a sequence: files of TUM RGB-D and KITTI odometry, and the pose at an image's time.

Convention: a pose is a 4x4 camera-to-world matrix, metres; the camera's frame is the optical one. A quaternion is
(x, y, z, w).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.errors import SourceError

__all__ = [
    "GROUND_TRUTH_FILES",
    "GroundTruth",
    "quaternion_of",
    "read_ground_truth",
    "rotation_of",
    "tum_text",
]

FloatArray = npt.NDArray[np.float64]

GROUND_TRUTH_FILES = ("groundtruth.txt", "poses.txt")
"""What TUM, KITTI and the demo call the file, in the folder of the images."""

# Columns of a line: stamp, position, quaternion; the rows of a 3x4 matrix; a stamp and those.
_TUM, _KITTI, _STAMPED_MATRIX = 8, 12, 13
# Between known poses further apart than this, where the camera was is a guess.
_LONGEST_HOLE_NS = 250_000_000
_NS_PER_S = 1e9
_LAST_STAMP_S = 2.0**33
# Rounding to the digits that such files have leaves less; columns in another order leave more.
_ROTATION_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Poses of a camera.

    Attributes:
        path: Of the file they come from.
        poses: (N, 4, 4) camera-to-world.
        stamps_ns: (N,) their times in ns, ascending; None where pose i is that of image i of the sequence.
    """

    path: Path
    poses: FloatArray
    stamps_ns: npt.NDArray[np.int64] | None

    def pose_at(self, index: int, stamp_ns: int | None) -> FloatArray | None:
        """The pose (4, 4) of image `index`, taken at `stamp_ns`; None where none is known.

        Between two stamps the position is interpolated linearly and the rotation about a fixed axis; between stamps
        more than 0.25 s apart nothing is known.

        Raises:
            SourceError: The poses have stamps and the image has none.
        """
        if self.stamps_ns is None:
            return np.asarray(self.poses[index]) if index < len(self.poses) else None
        if stamp_ns is None:
            msg = f"the poses in {self.path} are for stamps, and the images have none; give them names that are times"
            raise SourceError(msg)
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
    """Reads poses: the number of columns tells the format.

    Args:
        path: 8 columns: stamp (s), position, quaternion x y z w (TUM). 12: a 3x4 matrix, line i for image i (KITTI).
            13: stamp (s) and a 3x4 matrix (this project's demo). "#" begins a comment.
        frame_count: Number of images in the sequence, where known: as many lines must be in a KITTI file.

    Raises:
        SourceError: The file cannot be read, or holds something else.
    """
    table = _table(path)
    columns = table.shape[1]
    if columns not in {_TUM, _KITTI, _STAMPED_MATRIX}:
        msg = (
            f"{path} has {columns} columns; expected 8 (stamp x y z qx qy qz qw, as TUM writes), 12 (a 3x4 matrix, as "
            "KITTI writes) or 13 (stamp and a 3x4 matrix)"
        )
        raise SourceError(msg)
    if columns == _KITTI:
        if frame_count not in {None, len(table)}:
            msg = f"{path} has {len(table)} poses for {frame_count} images; expected one for each, in their order"
            raise SourceError(msg)
        return GroundTruth(path, _from_rows(path, table), None)
    table = table[np.argsort(table[:, 0], kind="stable")]
    if np.abs(table[:, 0]).max() > _LAST_STAMP_S:
        msg = f"{path} has a stamp {np.abs(table[:, 0]).max():g}; expected seconds"
        raise SourceError(msg)
    stamps_ns = np.rint(table[:, 0] * _NS_PER_S).astype(np.int64)
    poses = _from_tum(path, table) if columns == _TUM else _from_rows(path, table[:, 1:])
    return GroundTruth(path, poses, stamps_ns)


def tum_text(stamps_ns: Sequence[int], poses: Sequence[FloatArray]) -> str:
    """Poses (4, 4) as TUM writes them, for `evo` and its like: stamp (s), position, quaternion x y z w."""
    lines = ["# timestamp tx ty tz qx qy qz qw"]
    for stamp_ns, pose in zip(stamps_ns, poses, strict=True):
        values = [*pose[:3, 3], *quaternion_of(pose[:3, :3])]
        stamp = f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}"
        lines.append(" ".join([stamp, *(f"{value:.9f}" for value in values)]))
    return "\n".join(lines) + "\n"


def quaternion_of(rotation: FloatArray) -> FloatArray:
    """(4,) unit quaternion x, y, z, w of a rotation (3, 3), w not below 0."""
    vector = cv2.Rodrigues(rotation)[0].ravel()
    angle = float(np.linalg.norm(vector))
    # sin(a / 2) / a tends to 1 / 2.
    scale = np.sin(angle / 2) / angle if angle > 0 else 0.5
    return np.asarray([*(vector * scale), np.cos(angle / 2)], np.float64)


def rotation_of(quaternion: FloatArray) -> FloatArray:
    """(3, 3) rotation of a quaternion x, y, z, w of any length above 0."""
    imaginary, real = np.asarray(quaternion[:3], np.float64), float(quaternion[3])
    length = float(np.linalg.norm(imaginary))
    axis = imaginary / length if length > 0 else imaginary
    return np.asarray(cv2.Rodrigues(axis * 2 * np.arctan2(length, real))[0], np.float64)


def _table(path: Path) -> FloatArray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file, which is an error below
            table = np.loadtxt(path, dtype=np.float64, ndmin=2, comments="#")
    except FileNotFoundError as error:
        msg = f"there is no file {path}"
        raise SourceError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read as a table of numbers: {error}"
        raise SourceError(msg) from error
    if table.size == 0 or not np.isfinite(table).all():
        msg = f"{path} holds {'no numbers' if table.size == 0 else 'a number that is not finite'}; expected a table"
        raise SourceError(msg)
    return table


def _from_rows(path: Path, rows: FloatArray) -> FloatArray:
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows.reshape(-1, 3, 4)
    rotations = poses[:, :3, :3]
    error = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    _check_rotations(path, error + (np.linalg.det(rotations) < 0), "a 3x4 matrix that begins with a rotation")
    return poses


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
        msg = f"pose {wrong[0] + 1} of {len(error)} in {path} has no rotation; expected {expectation}"
        raise SourceError(msg)


def _between(pose0: FloatArray, pose1: FloatArray, share: float) -> FloatArray:
    pose = np.eye(4)
    turn = cv2.Rodrigues(pose0[:3, :3].T @ pose1[:3, :3])[0]
    pose[:3, :3] = pose0[:3, :3] @ cv2.Rodrigues(turn * share)[0]
    pose[:3, 3] = pose0[:3, 3] + share * (pose1[:3, 3] - pose0[:3, 3])
    return pose
