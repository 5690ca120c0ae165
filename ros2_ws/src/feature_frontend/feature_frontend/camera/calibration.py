"""Camera calibrations, as in `sensor_msgs/CameraInfo`, and the conversion of pixels to normalised points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_frontend.camera.distortion import canonical_distortion, lens_of
from feature_frontend.errors import CalibrationError
from feature_frontend.system.text import shown

__all__ = [
    "CameraCalibration",
    "Intrinsics",
    "RegionOfInterest",
    "calibration_from_message",
    "normalize_points",
    "undistorted_rays",
]

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
MATRIX_SIZE = 9
PROJECTION_SIZE = 12
# The limit of `sensor_msgs/CameraInfo`.
MAX_SIDE = 2**32 - 1


@dataclass(frozen=True)
class RegionOfInterest:
    """The part of the full image that a camera delivers, in px before binning; all zero for the whole image."""

    x_offset: int = 0
    y_offset: int = 0
    height: int = 0
    width: int = 0
    do_rectify: bool = False


@dataclass(frozen=True)
class Intrinsics:
    """Intrinsics and distortion of the images that a camera delivers.

    Attributes:
        fx: Focal length in x, px; likewise `fy`.
        cx: Principal point x, px, pixel centres at integers; likewise `cy`.
        distortion_model: ROS's name of the lens model; empty for a pinhole.
        distortion_coefficients: As many as the model has; empty for a pinhole.
    """

    fx: float = 0.0
    fy: float = 0.0
    cx: float = 0.0
    cy: float = 0.0
    distortion_model: str = ""
    distortion_coefficients: tuple[float, ...] = ()


@dataclass(frozen=True)
class CameraCalibration:
    """The calibration of a camera, as in `sensor_msgs/CameraInfo`.

    Attributes:
        height: Height in px of the image that was calibrated.
        width: Width in px of that image.
        camera_name: Name of the camera, may be empty.
        distortion_model: Any name that `camera.models` knows; stored as ROS's name for the same lens model.
        camera_matrix: 9 values, the 3x3 matrix K row by row, px; all 0 if only P is known.
        distortion_coefficients: As many as the model has, stored without redundant zeros; empty or all 0 for an image
            without distortion, whatever the model.
        rectification_matrix: 9 values, the 3x3 rotation R row by row.
        projection_matrix: 12 values, the 3x4 matrix P row by row, px; all 0 if the camera has none.
        binning_x: Sensor columns per image column; 0 means 1.
        binning_y: Sensor rows per image row; 0 means 1.
        region_of_interest: The part of the calibrated image that the camera delivers.

    Raises:
        CalibrationError: A size, number of values, value or name violates the above.
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
        """Checks the values, and fills in the projection matrix of a camera without rectification."""
        check_length("camera_matrix", self.camera_matrix, MATRIX_SIZE)
        if not any(self.camera_matrix) and not any(self.projection_matrix):
            raise CalibrationError(
                "the camera is not calibrated: its matrix K is 0; calibrate it, or give its driver the calibration"
            )
        if not (0 < self.height <= MAX_SIDE and 0 < self.width <= MAX_SIDE):
            size = f"{shown(self.width)}x{shown(self.height)}"
            raise CalibrationError(
                f"calibrated image size is {size} px; expected at least 1x1, and no side above {MAX_SIDE}"
            )
        if not self.projection_matrix:
            k = self.camera_matrix
            object.__setattr__(self, "projection_matrix", (*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0))
        check_length("rectification_matrix", self.rectification_matrix, MATRIX_SIZE)
        check_length("projection_matrix", self.projection_matrix, PROJECTION_SIZE)
        self._check_camera_matrix()
        self._check_region()
        model, coefficients = canonical_distortion(self.distortion_model, self.distortion_coefficients)
        object.__setattr__(self, "distortion_model", model)
        object.__setattr__(self, "distortion_coefficients", coefficients)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in px of the images that the camera delivers, after region of interest and binning."""
        roi = self.region_of_interest
        height, width = (roi.height or self.height), (roi.width or self.width)
        return height // max(self.binning_y, 1), width // max(self.binning_x, 1)

    def check_image(self, height: int, width: int, name: str) -> None:
        """Checks that an image has the size that the camera delivers.

        Raises:
            CalibrationError: It does not; the text names both sizes.
        """
        expected_height, expected_width = self.image_size
        if (height, width) != (expected_height, expected_width):
            raise CalibrationError(
                f"{name} is {width}x{height} px, but the calibration is for {expected_width}x{expected_height} px; "
                "take the one of this camera at this resolution"
            )

    def focal_px(self, *, rectified: bool = False) -> float:
        """Mean focal length of the images that the camera delivers, px; from P if they are `rectified`."""
        matrix, y = (self.projection_matrix, 5) if rectified else (self.camera_matrix, 4)
        return (matrix[0] / max(self.binning_x, 1) + matrix[y] / max(self.binning_y, 1)) / 2

    def intrinsics(self, *, rectified: bool = False) -> Intrinsics:
        """The intrinsics that `normalize_points` uses: K and the distortion, or P alone for `rectified` images."""
        fx, _, cx, *_ = self.projection_matrix if rectified else self.camera_matrix
        fy, cy = (self.projection_matrix if rectified else self.camera_matrix)[5 if rectified else 4 :][:2]
        binning_x, binning_y = max(self.binning_x, 1), max(self.binning_y, 1)
        has_lens = not rectified and any(self.distortion_coefficients)
        return Intrinsics(
            fx=fx / binning_x,
            fy=fy / binning_y,
            cx=(cx - self.region_of_interest.x_offset + 0.5) / binning_x - 0.5,
            cy=(cy - self.region_of_interest.y_offset + 0.5) / binning_y - 0.5,
            distortion_model=self.distortion_model if has_lens else "",
            distortion_coefficients=self.distortion_coefficients if has_lens else (),
        )

    def to_full_image(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Maps (N, 2) points (x, y) px from an image that the camera delivers to the calibrated image.

        Pixel centres are at integers. Pixel x of an image binned by b covers the columns b x ... b x + b - 1 of the
        region of interest, with their centre at b x + (b - 1) / 2 = b (x + 1/2) - 1/2; the region starts at `x_offset`,
        in px before binning.
        """
        roi = self.region_of_interest
        binning = np.array([max(self.binning_x, 1), max(self.binning_y, 1)], np.float64)
        return (np.asarray(points, np.float64) + 0.5) * binning - 0.5 + [roi.x_offset, roi.y_offset]

    def check_raw(self) -> None:
        """Checks that there is a camera matrix K, which unrectified images need.

        Raises:
            CalibrationError: There is only P.
        """
        if not any(self.camera_matrix):
            raise CalibrationError(
                "the matrix K is 0, and only P is known: if the images are rectified (image_rect), set rectified to "
                "true; else calibrate the camera"
            )

    def check_rectified(self) -> None:
        """Checks that there is a projection matrix P, which rectified images need.

        Raises:
            CalibrationError: There is no P.
        """
        if self.projection_matrix[0] <= 0 or self.projection_matrix[5] <= 0:
            raise CalibrationError(
                f"focal lengths in the projection matrix P are {self.projection_matrix[0]:g} and "
                f"{self.projection_matrix[5]:g} px; a rectified image needs them above 0"
            )

    def _check_camera_matrix(self) -> None:
        if not any(self.camera_matrix):
            return
        fx, skew, _, k3, fy, _, *last_row = self.camera_matrix
        if fx <= 0 or fy <= 0:
            raise CalibrationError(f"focal lengths are {fx:g} and {fy:g} px; expected above 0")
        if skew or k3 or tuple(last_row) != (0.0, 0.0, 1.0):
            raise CalibrationError(f"camera_matrix is {self.camera_matrix}; expected fx 0 cx, 0 fy cy, 0 0 1")

    def _check_region(self) -> None:
        roi = self.region_of_interest
        height, width = roi.y_offset + roi.height, roi.x_offset + roi.width
        delivered = self.image_size
        if height > self.height or width > self.width or min(delivered) < 1 or min(roi.x_offset, roi.y_offset) < 0:
            raise CalibrationError(
                f"a region of interest of {roi.width}x{roi.height} px at ({roi.x_offset}, {roi.y_offset}), binned by "
                f"{self.binning_x}x{self.binning_y}, is not part of the calibrated {self.width}x{self.height} px"
            )


def calibration_from_message(message: Any) -> CameraCalibration:
    """The calibration in a `sensor_msgs/CameraInfo`, read by any library.

    Raises:
        CalibrationError: A size, matrix, model or number of coefficients is invalid, or the camera is uncalibrated
            (K all zero).
    """

    def values(name: str) -> tuple[float, ...]:
        # ROS 1 names the matrices by capital letters.
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


def normalize_points(
    calibration: CameraCalibration, points: npt.NDArray[np.floating], *, rectified: bool = False
) -> npt.NDArray[np.float32]:
    """Undistorted (x/z, y/z), without unit, of points in an image that the camera delivers.

    Args:
        calibration: Of the camera; region of interest and binning are applied.
        points: (N, 2), (x, y) px.
        rectified: Whether the image is rectified (`image_rect`). The ray is then computed with the projection matrix P
            alone, in the rectified camera's frame; otherwise with K and the distortion, in the camera's frame.

    Returns:
        (N, 2) float32; NaN, NaN for a point without a ray in the lens model, or with a ray `MAX_ANGLE_DEG` or more off
        the axis.

    Raises:
        CalibrationError: `rectified`, and the calibration has no P.
    """
    with np.errstate(over="ignore"):
        normalized = undistorted_rays(calibration, points, rectified=rectified).astype(np.float32)
    normalized[~np.isfinite(normalized).all(axis=1)] = np.nan  # extreme values in the calibration or the points
    return normalized


def undistorted_rays(
    calibration: CameraCalibration, points: npt.NDArray[np.floating], *, rectified: bool
) -> npt.NDArray[np.float64]:
    """`normalize_points` in float64, for further computation; non-finite values mean no ray."""
    full = calibration.to_full_image(points.reshape(-1, 2))
    if rectified:
        calibration.check_rectified()
        fx, _, cx, _, _, fy, cy, *_ = calibration.projection_matrix
    else:
        calibration.check_raw()
        fx, _, cx, _, fy, cy, *_ = calibration.camera_matrix
    with np.errstate(all="ignore"):
        flat = (full - [cx, cy]) / [fx, fy]
    coefficients = calibration.distortion_coefficients
    if not rectified and any(coefficients):
        flat = lens_of(calibration.distortion_model, coefficients).undistort(flat)
    return np.asarray(flat)


def check_length(key: str, values: tuple[float, ...], length: int) -> None:
    if len(values) != length:
        raise CalibrationError(f"{key} holds {len(values)} values; expected {length}")
    if not all(map(math.isfinite, values)):
        raise CalibrationError(f"{key} {values} must be finite numbers")
