"""A calibrated stereo camera: rectifies keypoints and triangulates pairs of them.

The convention is that of `sensor_msgs/CameraInfo`: R rotates a camera's own frame to the rectified one, P projects from
there, and the right camera's P[0, 3] is -fx times the baseline. All computations are in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import CameraCalibration, undistorted_rays
from feature_frontend.errors import CalibrationError

__all__ = ["StereoRig"]

FloatArray = npt.NDArray[np.float64]
_ROTATION_TOLERANCE = 1e-3
# Maximum vertical offset as a fraction of the baseline; calibrations leave rounding errors.
_MAX_VERTICAL_FRACTION = 0.01


@dataclass(frozen=True)
class StereoRig:
    """A left and a right camera.

    Attributes:
        left: Its P is that of the first camera of the pair.
        right: Its P contains the baseline.
        rectified: Whether the images are rectified (`image_rect`). If not, keypoints are rectified by K, d, R and P.

    Raises:
        CalibrationError: The two are not one stereo calibration: a P or R is missing, the baseline is not positive, or
            one camera is above the other.
    """

    left: CameraCalibration
    right: CameraCalibration
    rectified: bool

    def __post_init__(self) -> None:
        """Checks that the calibrations allow triangulation."""
        for name, camera in (("left", self.left), ("right", self.right)):
            try:
                camera.check_rectified()
                if not self.rectified:
                    camera.check_raw()
            except CalibrationError as error:
                raise CalibrationError(f"{name} camera_info: {error}") from error
            rotation = _rotation(camera)
            if not self.rectified and not np.allclose(rotation @ rotation.T, np.eye(3), atol=_ROTATION_TOLERANCE):
                raise CalibrationError(f"{name} camera_info: R is {camera.rectification_matrix}; expected a rotation")
        baseline_m = self.baseline_m
        if not (math.isfinite(baseline_m) and baseline_m > 0):
            hint = (
                "left and right are swapped"
                if baseline_m < 0
                else "calibrate the two as one stereo camera; P[0, 3] on the right is -fx times the baseline"
            )
            received = " and ".join(
                f"P[0, 0] {camera.projection_matrix[0]:g}, P[0, 3] {camera.projection_matrix[3] + 0.0:g} on the {name}"
                for name, camera in (("left", self.left), ("right", self.right))
            )
            raise CalibrationError(
                f"the baseline in the projection matrices P is {baseline_m:g} m; expected above 0: {hint} "
                f"(received: {received})"
            )
        above_m = _position(self.right, 1) - _position(self.left, 1)
        if abs(above_m) > _MAX_VERTICAL_FRACTION * baseline_m:
            raise CalibrationError(
                f"one camera is {above_m:g} m above the other by P[1, 3]; expected the two side by side"
            )

    @property
    def baseline_m(self) -> float:
        """Distance of the right camera from the left one, m."""
        return _position(self.right, 0) - _position(self.left, 0)

    @property
    def focal_baseline(self) -> float:
        """Focal length of the rectified left camera in px, times the baseline in m."""
        return _intrinsics(self.left)[0] * self.baseline_m

    def left_on_rows(self, points: npt.NDArray[np.floating]) -> FloatArray:
        """(N, 2) keypoints (x, y) px of the left image, rectified; NaN where the lens model has no ray."""
        return self._on_rows(self.left, points)

    def right_on_rows(self, points: npt.NDArray[np.floating]) -> FloatArray:
        """As `left_on_rows` for the right image, with the left camera's focal lengths and principal point.

        So a pair differs in x only, with disparity 0 at infinity, whatever the principal points are.
        """
        return self._on_rows(self.right, points)

    def triangulate(self, points0: FloatArray, points1: FloatArray) -> FloatArray:
        """(M, 3) points (x, y, z), m, on the rays of the left keypoints; NaN unless the disparity is positive.

        In the frame of the left image's normalised keypoints: the rectified camera's for rectified images, else the
        camera's own.

        Args:
            points0: (M, 2), from `left_on_rows`.
            points1: (M, 2), from `right_on_rows`, of the same scene points.
        """
        fx, fy, cx, cy = _intrinsics(self.left)
        disparity = points0[:, 0] - points1[:, 0]
        depth = np.full(len(disparity), np.nan)
        np.divide(fx * self.baseline_m, disparity, out=depth, where=disparity > 0)
        rays = np.column_stack([(points0 - [cx, cy]) / [fx, fy], np.ones(len(points0))])
        points = rays * depth[:, None]
        return points if self.rectified else np.asarray(points @ _rotation(self.left))

    def _on_rows(self, camera: CameraCalibration, points: npt.NDArray[np.floating]) -> FloatArray:
        rays = undistorted_rays(camera, points, rectified=self.rectified)
        if not self.rectified:
            turned = np.column_stack([rays, np.ones(len(rays))]) @ _rotation(camera).T
            ahead = np.where(turned[:, 2:] > 0, turned[:, 2:], np.nan)
            rays = turned[:, :2] / ahead
        fx, fy, cx, cy = _intrinsics(self.left)
        return rays * [fx, fy] + [cx, cy]


def _intrinsics(camera: CameraCalibration) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of the rectified camera, px."""
    fx, _, cx, _, _, fy, cy, *_ = camera.projection_matrix
    return fx, fy, cx, cy


def _position(camera: CameraCalibration, axis: int) -> float:
    """Position of the camera along x (0) or y (1) of the rectified frame, m."""
    return -camera.projection_matrix[4 * axis + 3] / camera.projection_matrix[5 * axis]


def _rotation(camera: CameraCalibration) -> FloatArray:
    return np.array(camera.rectification_matrix).reshape(3, 3)
