"""KITTI's calibrations: calib.txt of the odometry sequences, calib_cam_to_cam.txt of the raw recordings.

A line is a name and numbers, such as "P0: 7.188560e+02 ...". P0 to P3 and P_rect_00 to P_rect_03 are the 3x4 projection
matrices of the rectified images, which is what KITTI publishes; K_00 and D_00 are those of the images before.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from feature_frontend.camera.calibration import MATRIX_SIZE, PROJECTION_SIZE, CameraCalibration, check_length
from feature_frontend.camera.distortion import PLUMB_BOB
from feature_frontend.errors import CalibrationError
from feature_frontend.image.image_file import IMAGE_SUFFIXES, first_image_size
from feature_frontend.system.text import listed, quoted

__all__ = ["is_kitti", "kitti_calibration", "kitti_image_size"]

_LINE = re.compile(r"^(P[0-3]|(?:P_rect|K|D|S|S_rect)_0\d):(.*)$", re.MULTILINE)
_PROJECTION = re.compile(r"P([0-3])|P_rect_0(\d)")
_MATRIX = re.compile(r"K_0(\d)")
_SIZE = 2

_logger = logging.getLogger(__name__)


def is_kitti(text: str) -> bool:
    """Whether a text is a calibration of KITTI."""
    return any(_PROJECTION.fullmatch(name) for name, _ in _LINE.findall(text))


def kitti_calibration(text: str, camera: str, image_size: tuple[int, int] | None) -> CameraCalibration:
    """Parses a calibration of KITTI.

    Args:
        text: The file's text.
        camera: Name of the camera's matrix: "P2" or "P_rect_02" for rectified images, "K_02" for the ones before. Empty
            for the first P; a warning then names it.
        image_size: (height, width) of the images in px; needed if the file does not contain it.

    Raises:
        CalibrationError: There is no such camera, a value is missing or invalid, or the size is unknown.
    """
    lines = dict(_LINE.findall(text))
    names = [name for name in lines if _PROJECTION.fullmatch(name) or _MATRIX.fullmatch(name)]
    if camera and camera not in names:
        raise CalibrationError(f"is a calibration of KITTI with {listed(names)}; it has no {quoted(camera)}")
    chosen = camera or next(name for name in names if _PROJECTION.fullmatch(name))
    if not camera and len(names) > 1:
        _logger.warning(
            "the calibration of KITTI holds %s: %s is taken; FILE#%s, for example, takes another",
            listed(names),
            chosen,
            next(name for name in reversed(names) if name != chosen),
        )
    projection = _PROJECTION.fullmatch(chosen)
    number = chosen[-1]
    if projection is None:
        height, width = _size(lines, f"S_0{number}")
        return CameraCalibration(
            height=height,
            width=width,
            camera_name=f"image_0{number}",
            distortion_model=PLUMB_BOB,
            camera_matrix=_numbers(lines, chosen, MATRIX_SIZE),
            distortion_coefficients=_numbers(lines, f"D_0{number}", 5),
        )
    matrix = _numbers(lines, chosen, PROJECTION_SIZE)
    if projection[2]:
        image_size = _size(lines, f"S_rect_0{number}")
    if image_size is None:
        raise CalibrationError(
            f"is a calib.txt of KITTI, which does not contain the size of the images; keep it beside image_{number}, "
            f"or write its {chosen} as a YAML file of ROS"
        )
    return CameraCalibration(
        height=image_size[0],
        width=image_size[1],
        camera_name=f"image_0{number}" if projection[2] else f"image_{number}",
        distortion_model=PLUMB_BOB,
        camera_matrix=(*matrix[0:3], *matrix[4:7], *matrix[8:11]),
        distortion_coefficients=(),
        projection_matrix=matrix,
    )


def kitti_image_size(calibration_file: Path, camera: str) -> tuple[int, int] | None:
    """(height, width) in px of the images of `camera` beside a calib.txt; None if there are none."""
    folder = calibration_file.parent / f"image_{(camera or 'P0')[-1]}"
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    return first_image_size(files)


def _size(lines: Mapping[str, str], name: str) -> tuple[int, int]:
    """(height, width) in px."""
    width, height = _numbers(lines, name, _SIZE)
    if not (width.is_integer() and height.is_integer()):
        raise CalibrationError(f"is a calibration of KITTI, whose {name} is {width:g} {height:g}; expected whole px")
    return int(height), int(width)


def _numbers(lines: Mapping[str, str], name: str, count: int) -> tuple[float, ...]:
    if name not in lines:
        raise CalibrationError(f"is a calibration of KITTI, in which {name} is missing; expected {count} numbers")
    try:
        values = tuple(map(float, lines[name].split()))
    except ValueError as error:
        raise CalibrationError(
            f"is a calibration of KITTI, whose {name} is {quoted(lines[name].strip())}; expected {count} numbers"
        ) from error
    check_length(name, values, count)
    return values
