"""Files with camera calibrations: found, read and checked; `camera/file_formats.py` knows what is in them."""

from __future__ import annotations

from pathlib import Path

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.camera.file_formats import calibration_from_text
from feature_frontend.errors import CalibrationError
from feature_frontend.system.yaml_text import YamlTextError, read_small_text

__all__ = ["file_and_camera", "read_calibration_file"]


def file_and_camera(path: Path) -> tuple[Path, str]:
    """File and camera of `FILE#NAME`; the camera is empty where none is named, or the "#" is of the file's own name."""
    if "#" not in path.name[1:] or path.exists():
        return path, ""
    name, _, camera = path.name.rpartition("#")
    return path.with_name(name), camera


def read_calibration_file(path: Path) -> CameraCalibration:
    """Reads a calibration of ROS, OpenCV, Kalibr, EuRoC, ORB-SLAM, VINS or COLMAP; see docs/calibration.md.

    Args:
        path: The file; `FILE#NAME` for one camera of several, such as `camchain.yaml#cam1`.

    Raises:
        CalibrationError: The file cannot be read, is of another kind, or is no valid calibration; the text names the
            file.
    """
    try:
        path, camera = file_and_camera(path)
        return calibration_from_text(read_small_text(path), camera)
    except FileNotFoundError as error:
        msg = f"there is no calibration file {path}"
        raise CalibrationError(msg) from error
    except OSError as error:
        msg = f"calibration file {path} cannot be read: {error.strerror or error}"
        raise CalibrationError(msg) from error
    except (CalibrationError, YamlTextError) as error:
        msg = f"calibration file {path}: {error}"
        raise CalibrationError(msg) from error
