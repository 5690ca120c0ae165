"""Camera calibrations as ROS tools write them (`camera_calibration`, `camera_info_manager`): read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from feature_frontend.calibration import IDENTITY, MATRIX_SIZE, PROJECTION_SIZE, CameraCalibration, check_length
from feature_frontend.errors import CalibrationError

__all__ = ["read_calibration_file"]


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
        camera_matrix=_values(document, "camera_matrix", MATRIX_SIZE),
        distortion_coefficients=_values(document, "distortion_coefficients", None, ()),
        rectification_matrix=_values(document, "rectification_matrix", MATRIX_SIZE, IDENTITY),
        projection_matrix=_values(document, "projection_matrix", PROJECTION_SIZE, ()),
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
        check_length(key, values, length)
    return values
