"""Camera calibrations as ROS tools write them (`camera_calibration`, `camera_info_manager`): read and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from feature_frontend.errors import CalibrationError

__all__ = ["DISTORTION_MODELS", "CameraCalibration", "RegionOfInterest", "read_calibration_file"]

# Numbers of coefficients that sensor_msgs and OpenCV define for a model; older files hold a plumb_bob without k3.
DISTORTION_MODELS: dict[str, tuple[int, ...]] = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8,),
    "equidistant": (4,),
    "thin_prism_fisheye": (12,),
    "tilted_thin_prism": (14,),
}

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
_MATRIX_SIZE = 9
_PROJECTION_SIZE = 12


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
    rectification_matrix: tuple[float, ...] = _IDENTITY
    projection_matrix: tuple[float, ...] = ()
    binning_x: int = 0
    binning_y: int = 0
    region_of_interest: RegionOfInterest = RegionOfInterest()

    def __post_init__(self) -> None:
        """Checks the values, and fills in the projection of a camera that is not rectified."""
        if self.height < 1 or self.width < 1:
            msg = f"calibrated image size is {self.width}x{self.height} px; expected at least 1x1"
            raise CalibrationError(msg)
        _check_length("camera_matrix", self.camera_matrix, _MATRIX_SIZE)
        if not self.projection_matrix:
            k = self.camera_matrix
            object.__setattr__(self, "projection_matrix", (*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0))
        _check_length("rectification_matrix", self.rectification_matrix, _MATRIX_SIZE)
        _check_length("projection_matrix", self.projection_matrix, _PROJECTION_SIZE)
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


def read_calibration_file(path: Path) -> CameraCalibration:
    """Reads the YAML file that ROS's `camera_calibration` writes.

    Needs `image_width`, `image_height` and `camera_matrix`; the other keys default to plumb_bob, no distortion, no
    rectification.

    Raises:
        CalibrationError: The file cannot be read, is no YAML, or is no valid calibration; the text names the file.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"there is no calibration file {path}"
        raise CalibrationError(msg) from error
    except (OSError, UnicodeDecodeError) as error:
        msg = f"calibration file {path} cannot be read: {error}"
        raise CalibrationError(msg) from error
    except yaml.YAMLError as error:
        msg = f"calibration file {path} is not valid YAML: {error}"
        raise CalibrationError(msg) from error
    try:
        return _parse(document)
    except CalibrationError as error:
        msg = f"calibration file {path}: {error}"
        raise CalibrationError(msg) from error


def _parse(document: object) -> CameraCalibration:
    if not isinstance(document, Mapping):
        msg = f"is a {type(document).__name__}; expected the keys image_width, image_height, camera_matrix, ..."
        raise CalibrationError(msg)
    return CameraCalibration(
        height=_integer(document, "image_height"),
        width=_integer(document, "image_width"),
        camera_name=str(document.get("camera_name", "")),
        distortion_model=str(document.get("distortion_model", "plumb_bob")),
        camera_matrix=_values(document, "camera_matrix", _MATRIX_SIZE),
        distortion_coefficients=_values(document, "distortion_coefficients", None, ()),
        rectification_matrix=_values(document, "rectification_matrix", _MATRIX_SIZE, _IDENTITY),
        projection_matrix=_values(document, "projection_matrix", _PROJECTION_SIZE, ()),
    )


def _integer(document: Mapping[str, Any], key: str) -> int:
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{key} is {value!r}; expected a whole number of px"
        raise CalibrationError(msg)
    return value


def _values(
    document: Mapping[str, Any], key: str, length: int | None, default: tuple[float, ...] | None = None
) -> tuple[float, ...]:
    if key not in document and default is not None:
        return default
    matrix = document.get(key)
    data = matrix.get("data") if isinstance(matrix, Mapping) else None
    if not isinstance(data, list):
        msg = f"{key} is {matrix!r}; expected a matrix such as {{rows: 3, cols: 3, data: [...]}}"
        raise CalibrationError(msg)
    try:
        # YAML 1.1 reads "1e-05", which has no decimal point, as a string.
        values = tuple(float(value) for value in data)
    except (TypeError, ValueError) as error:
        msg = f"{key} holds {data!r}; expected numbers"
        raise CalibrationError(msg) from error
    if length is not None:
        _check_length(key, values, length)
    return values


def _check_length(key: str, values: tuple[float, ...], length: int) -> None:
    if len(values) != length:
        msg = f"{key} holds {len(values)} values; expected {length}"
        raise CalibrationError(msg)
    if not all(map(math.isfinite, values)):
        msg = f"{key} {values} must be finite numbers"
        raise CalibrationError(msg)
