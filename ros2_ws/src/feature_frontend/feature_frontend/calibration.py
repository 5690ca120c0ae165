"""Camera calibrations: what `sensor_msgs/CameraInfo` says, and from pixels to undistorted, normalised coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.errors import CalibrationError

__all__ = [
    "DISTORTION_MODELS",
    "CameraCalibration",
    "RegionOfInterest",
    "calibration_from_message",
    "normalize_points",
]

# Numbers of coefficients that sensor_msgs and OpenCV define for a model; older files hold a plumb_bob without k3.
DISTORTION_MODELS: dict[str, tuple[int, ...]] = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8,),
    "equidistant": (4,),
    "thin_prism_fisheye": (12,),
    "tilted_thin_prism": (14,),
}

_FISHEYE_MODELS = {"equidistant"}
# OpenCV's default of 5 iterations leaves visible errors at the corners of wide lenses.
_CRITERIA = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 100, 1e-9)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
MATRIX_SIZE = 9
PROJECTION_SIZE = 12


@dataclass(frozen=True)
class RegionOfInterest:
    """The part of the full image that a camera delivers, in px before binning; all zero for the whole image."""

    x_offset: int = 0
    y_offset: int = 0
    height: int = 0
    width: int = 0
    do_rectify: bool = False


@dataclass(frozen=True)
class CameraCalibration:
    """What `sensor_msgs/CameraInfo` says of a camera.

    Attributes:
        height: Height in px of the image that was calibrated.
        width: Width in px of that image.
        camera_name: Name of the camera, may be empty.
        distortion_model: A key of `DISTORTION_MODELS`.
        camera_matrix: 9 values, the 3x3 matrix K row by row, px.
        distortion_coefficients: As many as the model has; empty for an image without distortion.
        rectification_matrix: 9 values, the 3x3 rotation R row by row.
        projection_matrix: 12 values, the 3x4 matrix P row by row, px.
        binning_x: Sensor columns that make one image column; 0 means 1.
        binning_y: Sensor rows that make one image row; 0 means 1.
        region_of_interest: The part of the calibrated image that the camera delivers.

    Raises:
        CalibrationError: A size, number of values, value or name is not as above.
    """

    height: int
    width: int
    camera_name: str
    distortion_model: str
    camera_matrix: tuple[float, ...]
    distortion_coefficients: tuple[float, ...]
    rectification_matrix: tuple[float, ...] = IDENTITY
    projection_matrix: tuple[float, ...] = ()
    binning_x: int = 0
    binning_y: int = 0
    region_of_interest: RegionOfInterest = RegionOfInterest()

    def __post_init__(self) -> None:
        """Checks the values, and fills in the projection of a camera that is not rectified."""
        if self.height < 1 or self.width < 1:
            msg = f"calibrated image size is {self.width}x{self.height} px; expected at least 1x1"
            raise CalibrationError(msg)
        check_length("camera_matrix", self.camera_matrix, MATRIX_SIZE)
        if not self.projection_matrix:
            k = self.camera_matrix
            object.__setattr__(self, "projection_matrix", (*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0))
        check_length("rectification_matrix", self.rectification_matrix, MATRIX_SIZE)
        check_length("projection_matrix", self.projection_matrix, PROJECTION_SIZE)
        if self.camera_matrix[0] <= 0 or self.camera_matrix[4] <= 0:
            msg = f"focal lengths are {self.camera_matrix[0]:g} and {self.camera_matrix[4]:g} px; expected above 0"
            raise CalibrationError(msg)
        if self.distortion_coefficients or self.distortion_model:
            self._check_distortion()

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in px of the images that the camera delivers, after region of interest and binning."""
        roi = self.region_of_interest
        height, width = (roi.height or self.height), (roi.width or self.width)
        return height // max(self.binning_y, 1), width // max(self.binning_x, 1)

    def check_image(self, height: int, width: int, name: str) -> None:
        """Checks that an image has the size that the camera delivers.

        Raises:
            CalibrationError: It has not; the text names both.
        """
        expected_height, expected_width = self.image_size
        if (height, width) != (expected_height, expected_width):
            msg = (
                f"{name} is {width}x{height} px, but the calibration is for {expected_width}x{expected_height} px; "
                "take the one of this camera at this resolution"
            )
            raise CalibrationError(msg)

    def _check_distortion(self) -> None:
        lengths = DISTORTION_MODELS.get(self.distortion_model)
        if lengths is None:
            msg = (
                f"distortion_model {self.distortion_model!r} is unknown; expected one of {', '.join(DISTORTION_MODELS)}"
            )
            raise CalibrationError(msg)
        count = len(self.distortion_coefficients)
        if count and count not in lengths:
            expected = " or ".join(map(str, lengths))
            msg = f"distortion_coefficients holds {count} values; {self.distortion_model} has {expected}"
            raise CalibrationError(msg)
        if not all(map(math.isfinite, self.distortion_coefficients)):
            msg = f"distortion_coefficients {self.distortion_coefficients} must be finite numbers"
            raise CalibrationError(msg)


def calibration_from_message(message: Any) -> CameraCalibration:
    """The calibration that a `sensor_msgs/CameraInfo` carries, whichever library read the message.

    Raises:
        CalibrationError: A size, matrix, model or number of coefficients is not possible; an uncalibrated camera
            (K all zero) among them.
    """

    def values(name: str) -> tuple[float, ...]:
        # ROS 1 writes the matrices as capital letters.
        field = getattr(message, name, None)
        return tuple(map(float, getattr(message, name.upper()) if field is None else field))

    roi = message.roi
    return CameraCalibration(
        height=int(message.height),
        width=int(message.width),
        camera_name="",
        distortion_model=message.distortion_model,
        camera_matrix=values("k"),
        distortion_coefficients=values("d"),
        rectification_matrix=values("r"),
        projection_matrix=values("p"),
        binning_x=int(message.binning_x),
        binning_y=int(message.binning_y),
        region_of_interest=RegionOfInterest(
            x_offset=int(roi.x_offset),
            y_offset=int(roi.y_offset),
            height=int(roi.height),
            width=int(roi.width),
            do_rectify=bool(roi.do_rectify),
        ),
    )


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


def check_length(key: str, values: tuple[float, ...], length: int) -> None:
    if len(values) != length:
        msg = f"{key} holds {len(values)} values; expected {length}"
        raise CalibrationError(msg)
    if not all(map(math.isfinite, values)):
        msg = f"{key} {values} must be finite numbers"
        raise CalibrationError(msg)
