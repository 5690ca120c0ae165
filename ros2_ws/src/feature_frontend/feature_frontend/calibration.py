"""From pixels to undistorted, normalised coordinates, through OpenCV's camera models."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.calibration_file import CameraCalibration

__all__ = ["normalize_points"]

_FISHEYE_MODELS = {"equidistant"}
# OpenCV's default of 5 iterations leaves visible errors at the corners of wide lenses.
_CRITERIA = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 100, 1e-9)


def normalize_points(calibration: CameraCalibration, points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Undistorted (x/z, y/z), without unit, of points in the raw image.

    Args:
        calibration: The camera's.
        points: (N, 2), (x, y) px.

    Returns:
        (N, 2) float32.
    """
    if len(points) == 0:
        return np.zeros((0, 2), np.float32)
    pixels = points.reshape(-1, 1, 2).astype(np.float64)
    matrix = np.array(calibration.camera_matrix, np.float64).reshape(3, 3)
    coefficients = np.array(calibration.distortion_coefficients, np.float64)
    if not coefficients.any():
        inverse = np.linalg.inv(matrix)
        flat = pixels[:, 0] @ inverse[:2, :2].T + inverse[:2, 2]
    elif calibration.distortion_model in _FISHEYE_MODELS:
        flat = cv2.fisheye.undistortPoints(pixels, matrix, coefficients, criteria=_CRITERIA)
    elif hasattr(cv2, "undistortPointsIter"):  # OpenCV 4; version 5 gave the criteria to undistortPoints
        identity = np.eye(3)
        flat = cv2.undistortPointsIter(pixels, matrix, coefficients, identity, identity, _CRITERIA)
    else:
        flat = cv2.undistortPoints(pixels, matrix, coefficients, criteria=_CRITERIA)
    return np.asarray(flat, np.float64).reshape(-1, 2).astype(np.float32)
