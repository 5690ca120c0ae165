"""Sequences in the layout of the TUM RGB-D benchmark (Sturm et al., IROS 2012): stamped images, depth and poses.

    FOLDER/rgb.txt, depth.txt       "timestamp file" per line, seconds and a path below FOLDER; # begins a comment
    FOLDER/groundtruth.txt          "timestamp tx ty tz qx qy qz qw" per line, camera to world, metres
    FOLDER/camera.yaml              calibration as written by ROS's camera_calibration; not needed for freiburg1 to 3

Depth images have 16 bits, 5000 per metre, 0 if unknown, and are registered to the colour images pixel by pixel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.camera.calibration_file import read_calibration_file
from feature_frontend.errors import ImageError, SourceError
from feature_frontend.image.image_file import read_image_file
from feature_frontend_lab.training.aliked.posed import PosedPhotograph
from feature_frontend_lab.training.images import ColorImages

__all__ = ["TumSequence", "read_tum_sequence"]

_DEPTH_UNITS_PER_M = 5000.0
# The maximum time difference of associated files, as in the benchmark's own script.
_LARGEST_GAP_S = 0.02
_OPENCV_LENSES = ("plumb_bob", "rational_polynomial")
# fx, fy, cx, cy and the plumb_bob coefficients of the colour cameras, from the benchmark's page on file formats.
_PUBLISHED_CAMERAS = {
    "freiburg1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), (0.0, 0.0, 0.0, 0.0, 0.0)),
}

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Frame:
    image: Path
    depth: Path
    pose: FloatArray


class TumSequence:
    """A sequence; see `PosedPhotographs`.

    Args:
        folder: Folder of the sequence.
        frames: Images with a depth image and a pose, in the order of time.
        calibration: Calibration of the colour camera, used to undistort images and depth.
    """

    def __init__(self, folder: Path, frames: Sequence[_Frame], calibration: CameraCalibration) -> None:
        self.description = f"{len(frames)} RGB-D images of {folder}"
        self._frames = frames
        self._matrix = np.array(calibration.camera_matrix, np.float64).reshape(3, 3)
        coefficients = np.array(calibration.distortion_coefficients, np.float64)
        size = (calibration.height, calibration.width)
        self._size = size
        self._undistortion = None
        if coefficients.any():
            self._undistortion = cv2.initUndistortRectifyMap(
                self._matrix, coefficients, np.eye(3), self._matrix, size[::-1], cv2.CV_32FC1
            )

    def __len__(self) -> int:
        """Number of photographs."""
        return len(self._frames)

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Two frames; their time difference is drawn uniformly on a logarithmic scale."""
        count = len(self._frames)
        gap = min(int(2 ** rng.uniform(0, np.log2(count))), count - 1)
        first = int(rng.integers(count - gap))
        return (first, first + gap) if rng.random() < 0.5 else (first + gap, first)

    def load(self, index: int) -> PosedPhotograph | None:
        """Photograph `index`; None if a file cannot be read or its size differs from the calibration's."""
        frame = self._frames[index]
        image = ColorImages.read(frame.image)
        try:
            levels = read_image_file(frame.depth).samples
        except ImageError:
            return None
        if image is None or image.shape[:2] != self._size or levels.shape != self._size:
            return None
        depth = levels.astype(np.float32) / np.float32(_DEPTH_UNITS_PER_M)
        if self._undistortion is not None:
            image = np.asarray(cv2.remap(image, *self._undistortion, cv2.INTER_LINEAR), np.uint8)
            # Depth is not interpolated across edges; outside the photograph it is unknown: 0.
            depth = np.asarray(cv2.remap(depth, *self._undistortion, cv2.INTER_NEAREST), np.float32)
        return PosedPhotograph(image, depth, self._matrix, frame.pose)


def read_tum_sequence(folder: Path) -> TumSequence:
    """Finds the images of a sequence that have a depth image and a pose.

    Raises:
        SourceError: A file of the layout is missing or damaged, or fewer than two images have both.
        CalibrationError: `camera.yaml` cannot be read.
    """
    images, depths = _read_table(folder / "rgb.txt"), _read_table(folder / "depth.txt")
    poses = _read_table(folder / "groundtruth.txt")
    depth_times, pose_times = ([time for time, _ in table] for table in (depths, poses))
    frames = []
    for time, values in images:
        depth, pose = _nearest(depth_times, time), _nearest(pose_times, time)
        if depth is not None and pose is not None:
            matrix = _pose(poses[pose][1], folder / "groundtruth.txt")
            frames.append(_Frame(folder / values[0], folder / depths[depth][1][0], matrix))
    if len(frames) < 2:
        raise SourceError(
            f"{folder} has {len(frames)} image(s) with a depth image and a pose within {_LARGEST_GAP_S} s; "
            "expected at least 2: see whether the timestamps of its files are of one clock"
        )
    return TumSequence(folder, frames, _calibration(folder))


def _read_table(path: Path) -> list[tuple[float, list[str]]]:
    """Reads a file's lines as (timestamp, other words), in the order of time."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
        table = [(float(row[0]), row[1:]) for row in rows]
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {error}; expected the layout of the TUM RGB-D benchmark") from error
    if any(not values for _, values in table):
        raise SourceError(f"{path} has lines with a timestamp only; expected the layout of the TUM RGB-D benchmark")
    return sorted(table, key=lambda row: row[0])


def _nearest(times: Sequence[float], time: float) -> int | None:
    """Index of the nearest of sorted `times`; None if it is too far away."""
    after = int(np.searchsorted(times, time))
    candidates = [index for index in (after - 1, after) if 0 <= index < len(times)]
    best = min(candidates, key=lambda index: abs(times[index] - time), default=None)
    return best if best is not None and abs(times[best] - time) <= _LARGEST_GAP_S else None


def _pose(words: Sequence[str], path: Path) -> FloatArray:
    """(4, 4) camera-to-world matrix of "tx ty tz qx qy qz qw"."""
    try:
        values = np.array([float(word) for word in words])
        x, y, z, w = values[3:7] / np.linalg.norm(values[3:7])
    except ValueError as error:
        raise SourceError(f"{path} has a line {' '.join(words)!r}; expected timestamp tx ty tz qx qy qz qw") from error
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = values[:3]
    return pose


def _calibration(folder: Path) -> CameraCalibration:
    path = folder / "camera.yaml"
    if path.exists():
        calibration = read_calibration_file(path)
        if calibration.distortion_coefficients and calibration.distortion_model not in _OPENCV_LENSES:
            raise SourceError(
                f"{path} has the lens model {calibration.distortion_model}; expected {' or '.join(_OPENCV_LENSES)}"
            )
        return calibration
    named = re.search("freiburg[123]", str(folder.resolve()))
    if named is None:
        raise SourceError(
            f"there is no {path}, and the folder's name has no freiburg1, 2 or 3; expected a calibration of the camera"
        )
    (fx, fy, cx, cy), coefficients = _PUBLISHED_CAMERAS[named.group()]
    return CameraCalibration(480, 640, named.group(), "plumb_bob", (fx, 0, cx, 0, fy, cy, 0, 0, 1), coefficients)
