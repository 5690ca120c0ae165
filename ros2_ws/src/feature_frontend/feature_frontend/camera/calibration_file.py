"""Reads calibration files of ROS, OpenCV, Kalibr, EuRoC, KITTI, ORB-SLAM, VINS and COLMAP, identified by their keys."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from feature_frontend.camera.calibration import (
    IDENTITY,
    MATRIX_SIZE,
    PROJECTION_SIZE,
    CameraCalibration,
)
from feature_frontend.camera.distortion import EQUIDISTANT, PLUMB_BOB
from feature_frontend.camera.fields import (
    Document,
    Fields,
    briefly,
    document_of,
    errors_name_the_file,
    normalized_key,
)
from feature_frontend.camera.kitti import is_kitti, kitti_calibration, kitti_image_size
from feature_frontend.errors import CalibrationError
from feature_frontend.system.text import listed, printable, quoted
from feature_frontend.system.yaml_text import read_small_text

__all__ = ["calibration_from_text", "file_and_camera", "read_calibration_file"]

_KNOWN = (
    "ROS (image_width, image_height, camera_matrix, ...), OpenCV's FileStorage, Kalibr (camchain.yaml), EuRoC "
    "(sensor.yaml), KITTI (calib.txt), ORB-SLAM (Camera.fx, ...), VINS (projection_parameters), or COLMAP's cameras.txt"
)
_COLMAP_LINE = re.compile(r"\d+\s+[A-Z][A-Z0-9_]+(?:\s+\S+)*")
# Numbers of focal lengths and of distortion coefficients, and the distortion model, of a line of cameras.txt.
_COLMAP_MODELS = {
    "SIMPLE_PINHOLE": (1, 0, "none"),
    "PINHOLE": (2, 0, "none"),
    "SIMPLE_RADIAL": (1, 1, PLUMB_BOB),
    "RADIAL": (1, 2, PLUMB_BOB),
    "OPENCV": (2, 4, PLUMB_BOB),
    "FULL_OPENCV": (2, 8, PLUMB_BOB),
    "OPENCV_FISHEYE": (2, 4, EQUIDISTANT),
    "SIMPLE_RADIAL_FISHEYE": (1, 1, EQUIDISTANT),
    "RADIAL_FISHEYE": (1, 2, EQUIDISTANT),
}
# COLMAP counts pixels from the corner of the image.
_COLMAP_PIXEL_CENTRE = 0.5
_SHOWN_CHARACTERS = 60

_logger = logging.getLogger(__name__)


def calibration_from_text(text: str, camera: str = "", image_size: tuple[int, int] | None = None) -> CameraCalibration:
    """Parses the text of a calibration file.

    Args:
        text: The file's text.
        camera: Which of several cameras: a key such as `cam1` or `P2`, or COLMAP's number. Empty for the first; a
            warning then names it.
        image_size: (height, width) of the images in px, for a KITTI calib.txt, which does not contain it.

    Raises:
        CalibrationError: It is another kind of file, something is missing, or a value is invalid.
        YamlTextError: It is neither YAML nor another known kind of file.
    """
    _refuse_other_kinds(text)
    if is_kitti(text):
        return kitti_calibration(text, camera, image_size)
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if lines and all(map(_COLMAP_LINE.fullmatch, lines)):
        return _colmap([line.split() for line in lines], camera)
    document = document_of(text)
    if document is None:
        raise CalibrationError(f"is empty; expected a calibration of {_KNOWN}")
    if not isinstance(document, Mapping):
        raise CalibrationError(
            f"is {briefly(document)}, no mapping of keys to values; expected a calibration of {_KNOWN}"
        )
    for is_one, read in _FORMATS:
        if is_one(document):
            if camera and read is not _kalibr:
                raise CalibrationError(f"holds one camera; expected no name of one, but got {quoted(camera)}")
            return read(document, camera)
    raise CalibrationError(f"holds the keys {briefly(list(map(str, document)))}; expected a calibration of {_KNOWN}")


def _refuse_other_kinds(text: str) -> None:
    start = text.lstrip()
    if start.startswith("<"):
        what, advice = "an XML file", "save it as YAML; OpenCV's FileStorage does for a name that ends in .yml"
    elif re.search(r"^\[image\]\s*$", text, re.MULTILINE):
        what, advice = "an INI file of ROS's camera_calibration (ost.txt)", "take the ost.yaml that is saved beside it"
    elif "camera_type" in text and "value0" in text:
        what, advice = "a calibration of Basalt", "write it as a camchain.yaml of Kalibr"
    elif re.search(r"^\s*[\"']?ros__parameters[\"']?\s*:", text, re.MULTILINE):
        what, advice = "a parameter file", "give it as --params-file, and a calibration here"
    else:
        return
    raise CalibrationError(f"is {what}; {advice}")


def _ros_or_opencv(document: Document, _: str) -> CameraCalibration:
    """Files of ROS's `camera_calibration`, and files written by OpenCV's FileStorage, whose key names vary."""
    fields = Fields(document, "a calibration of ROS or OpenCV")
    is_fisheye = fields.flag("fisheye_model")
    return CameraCalibration(
        height=fields.integer("image_height"),
        width=fields.integer("image_width"),
        camera_name=fields.text("camera_name", ""),
        distortion_model=EQUIDISTANT if is_fisheye else fields.text("distortion_model", PLUMB_BOB),
        camera_matrix=fields.matrix(("camera_matrix", "k"), MATRIX_SIZE),
        distortion_coefficients=fields.matrix(
            ("distortion_coefficients", "dist_coeffs", "dist_coeff", "distortion", "d"), None, ()
        ),
        rectification_matrix=fields.matrix(("rectification_matrix",), MATRIX_SIZE, IDENTITY),
        projection_matrix=fields.matrix(("projection_matrix",), PROJECTION_SIZE, ()),
    )


def _camera_info(document: Document, _: str) -> CameraCalibration:
    """A `sensor_msgs/CameraInfo` as `ros2 topic echo` prints it."""
    fields = Fields(document, "a CameraInfo as `ros2 topic echo` prints it")
    return CameraCalibration(
        height=fields.integer("height"),
        width=fields.integer("width"),
        camera_name="",
        distortion_model=fields.text("distortion_model", ""),
        camera_matrix=fields.matrix(("k",), MATRIX_SIZE),
        distortion_coefficients=fields.matrix(("d",), None, ()),
        rectification_matrix=fields.matrix(("r",), MATRIX_SIZE, IDENTITY),
        projection_matrix=fields.matrix(("p",), PROJECTION_SIZE, ()),
    )


def _kalibr(document: Document, camera: str) -> CameraCalibration:
    cameras = {key: value for key, value in document.items() if _is_kalibr_camera(value)}
    if camera and camera not in cameras:
        raise CalibrationError(f"is a Kalibr camchain with {_listed(cameras)}; it has no {quoted(camera)}")
    chosen = camera or next(iter(cameras))
    if not camera and len(cameras) > 1:
        _logger.warning(
            "the Kalibr camchain holds %s: %s is taken; FILE#%s, for example, takes another",
            _listed(cameras),
            _shown(chosen),
            _shown(list(cameras)[-1]),
        )
    return _intrinsics(cameras[chosen], f"the {_shown(chosen)} of a Kalibr camchain", chosen)


def _euroc(document: Document, _: str) -> CameraCalibration:
    return _intrinsics(document, "a sensor.yaml of EuRoC, or one camera of Kalibr", "")


def _intrinsics(document: Document, what: str, name: str) -> CameraCalibration:
    """The common part of Kalibr and EuRoC: `intrinsics` and `resolution` as lists."""
    fields = Fields(document, what)
    model = fields.text("camera_model", "pinhole")
    if model != "pinhole":
        raise CalibrationError(
            f"is {what} with camera_model {quoted(model)}; expected pinhole, with radtan, equidistant or no distortion"
        )
    fx, fy, cx, cy = fields.matrix(("intrinsics",), 4)
    width, height = fields.size("resolution")
    return CameraCalibration(
        height=height,
        width=width,
        camera_name=name,
        distortion_model=fields.text("distortion_model", "none"),
        camera_matrix=_pinhole(fx, fy, cx, cy),
        distortion_coefficients=fields.matrix(("distortion_coeffs", "distortion_coefficients"), None, ()),
    )


def _orb_slam(document: Document, _: str) -> CameraCalibration:
    prefix = "Camera1" if "Camera1.fx" in document else "Camera"
    fields = Fields(document, "a settings file of ORB-SLAM")
    kind = fields.text("Camera.type", "PinHole")
    is_fisheye = kind.casefold().startswith("kannala")
    names = ("k1", "k2", "k3", "k4") if is_fisheye else ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
    fx, fy, cx, cy = (fields.number(f"{prefix}.{name}") for name in ("fx", "fy", "cx", "cy"))
    return CameraCalibration(
        height=fields.integer("Camera.height"),
        width=fields.integer("Camera.width"),
        camera_name=fields.text("Camera.name", ""),
        distortion_model=EQUIDISTANT if is_fisheye else PLUMB_BOB,
        camera_matrix=_pinhole(fx, fy, cx, cy),
        distortion_coefficients=tuple(fields.number(f"{prefix}.{name}", 0.0) for name in names),
    )


def _vins(document: Document, _: str) -> CameraCalibration:
    fields = Fields(document, "a camera of VINS (camodocal)")
    kind = fields.text("model_type", "")
    inner = Fields(fields.mapping("projection_parameters"), f"projection_parameters of {fields.what}")
    if kind == "KANNALA_BRANDT":
        fx, fy, cx, cy = (inner.number(name) for name in ("mu", "mv", "u0", "v0"))
        model, coefficients = EQUIDISTANT, tuple(inner.number(name) for name in ("k2", "k3", "k4", "k5"))
    elif kind == "PINHOLE":
        fx, fy, cx, cy = (inner.number(name) for name in ("fx", "fy", "cx", "cy"))
        lens = Fields(fields.mapping("distortion_parameters"), f"distortion_parameters of {fields.what}")
        model, coefficients = PLUMB_BOB, tuple(lens.number(name) for name in ("k1", "k2", "p1", "p2"))
    else:
        raise CalibrationError(f"is {fields.what} with model_type {quoted(kind)}; expected PINHOLE or KANNALA_BRANDT")
    return CameraCalibration(
        height=fields.integer("image_height"),
        width=fields.integer("image_width"),
        camera_name=fields.text("camera_name", ""),
        distortion_model=model,
        camera_matrix=_pinhole(fx, fy, cx, cy),
        distortion_coefficients=coefficients,
    )


def _colmap(lines: Sequence[Sequence[str]], camera: str) -> CameraCalibration:
    cameras = {number: words for number, *words in lines}
    if len(cameras) < len(lines):
        raise CalibrationError("is a cameras.txt of COLMAP with two lines for one camera; expected one for each number")
    if camera and camera not in cameras:
        raise CalibrationError(
            f"is a cameras.txt of COLMAP with the cameras {briefly(list(cameras))}; it has no {quoted(camera)}"
        )
    chosen = camera or next(iter(cameras))
    if not camera and len(cameras) > 1:
        _logger.warning(
            "the cameras.txt holds %s cameras: number %s is taken; FILE#%s, for example, takes another",
            len(cameras),
            _shown(chosen),
            _shown(list(cameras)[-1]),
        )
    model, *texts = cameras[chosen]
    if model not in _COLMAP_MODELS:
        raise CalibrationError(
            f"is a cameras.txt of COLMAP with the lens {_shown(model)}; expected one of {', '.join(_COLMAP_MODELS)}"
        )
    focal_count, lens_count, distortion_model = _COLMAP_MODELS[model]
    try:
        width, height = map(int, texts[:2])
        values = list(map(float, texts[2:]))
    except ValueError as error:
        raise CalibrationError(
            f"is a cameras.txt of COLMAP; camera {_shown(chosen)} holds {briefly(texts)}; expected width, height and "
            "parameters"
        ) from error
    expected = focal_count + 2 + lens_count
    if len(values) != expected:
        raise CalibrationError(
            f"is a cameras.txt of COLMAP; {model} of camera {_shown(chosen)} has {len(values)} parameters; expected "
            f"{expected}, and before them width and height"
        )
    cx, cy, *coefficients = values[focal_count:]
    if coefficients:
        coefficients += [0.0] * (4 - len(coefficients))
    return CameraCalibration(
        height=height,
        width=width,
        camera_name="",
        distortion_model=distortion_model,
        camera_matrix=_pinhole(
            values[0], values[focal_count - 1], cx - _COLMAP_PIXEL_CENTRE, cy - _COLMAP_PIXEL_CENTRE
        ),
        distortion_coefficients=tuple(coefficients),
    )


def _is_kalibr_camera(value: object) -> bool:
    return isinstance(value, Mapping) and "intrinsics" in value


def _shown(name: str) -> str:
    return printable(name, _SHOWN_CHARACTERS)


def _listed(names: Iterable[str]) -> str:
    return listed(map(_shown, names))


def _has(*names: str) -> Callable[[Document], bool]:
    return lambda document: bool({normalized_key(name) for name in document} & {normalized_key(name) for name in names})


# The first match wins.
_FORMATS: tuple[tuple[Callable[[Document], bool], Callable[[Document, str], CameraCalibration]], ...] = (
    (_has("camera_matrix"), _ros_or_opencv),
    (_has("projection_parameters"), _vins),
    (_has("Camera.fx", "Camera1.fx"), _orb_slam),
    (lambda document: any(map(_is_kalibr_camera, document.values())), _kalibr),
    (_has("intrinsics"), _euroc),
    (lambda document: _has("k")(document) and "width" in document, _camera_info),
    (_has("k", "image_width"), _ros_or_opencv),
)


def _pinhole(fx: float, fy: float, cx: float, cy: float) -> tuple[float, ...]:
    return fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0


def file_and_camera(path: Path) -> tuple[Path, str]:
    """File and camera of `FILE#NAME`; the camera is empty if none is given, or if "#" is part of the file's name."""
    if "#" not in path.name[1:] or path.exists():
        return path, ""
    name, _, camera = path.name.rpartition("#")
    return path.with_name(name), camera


def read_calibration_file(path: Path, image_size: tuple[int, int] | None = None) -> CameraCalibration:
    """Reads a calibration of ROS, OpenCV, Kalibr, EuRoC, KITTI, ORB-SLAM, VINS or COLMAP; see docs/calibration.md.

    Args:
        path: The file; `FILE#NAME` for one camera of several, such as `camchain.yaml#cam1`.
        image_size: (height, width) of the images in px, for a KITTI calib.txt, which does not contain it; None for that
            of the images in the folders beside it.

    Raises:
        CalibrationError: The file cannot be read, is of another kind, or is not a valid calibration; the text names
            the file.
    """
    path, camera = file_and_camera(path)
    with errors_name_the_file(path):
        text = read_small_text(path)
        if image_size is None and is_kitti(text):
            image_size = kitti_image_size(path, camera)
        return calibration_from_text(text, camera, image_size)
