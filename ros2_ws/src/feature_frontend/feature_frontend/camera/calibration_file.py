"""Reads calibration files of ROS, OpenCV, Kalibr, EuRoC, ORB-SLAM, VINS and COLMAP, identified by their keys."""

from __future__ import annotations

import logging
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from feature_frontend.camera.calibration import (
    IDENTITY,
    MATRIX_SIZE,
    PROJECTION_SIZE,
    CameraCalibration,
    check_length,
)
from feature_frontend.camera.distortion import EQUIDISTANT, PLUMB_BOB
from feature_frontend.errors import CalibrationError
from feature_frontend.system.text import listed, printable, quoted
from feature_frontend.system.yaml_text import YamlTextError, parse_yaml, read_small_text

__all__ = ["calibration_from_text", "file_and_camera", "read_calibration_file"]

_KNOWN = (
    "ROS (image_width, image_height, camera_matrix, ...), OpenCV's FileStorage, Kalibr (camchain.yaml), EuRoC "
    "(sensor.yaml), ORB-SLAM (Camera.fx, ...), VINS (projection_parameters), or COLMAP's cameras.txt"
)
_COLMAP_LINE = re.compile(r"\d+\s+[A-Z][A-Z0-9_]+\s+\d+\s+\d+(?:\s+\S+)+")
# Number of focal lengths and distortion model in a line of cameras.txt.
_COLMAP_MODELS = {
    "SIMPLE_PINHOLE": (1, "none"),
    "PINHOLE": (2, "none"),
    "SIMPLE_RADIAL": (1, PLUMB_BOB),
    "RADIAL": (1, PLUMB_BOB),
    "OPENCV": (2, PLUMB_BOB),
    "FULL_OPENCV": (2, PLUMB_BOB),
    "OPENCV_FISHEYE": (2, EQUIDISTANT),
}
_COLMAP_RADIAL = {"SIMPLE_RADIAL", "RADIAL"}
# COLMAP counts pixels from the corner of the image.
_COLMAP_PIXEL_CENTRE = 0.5
_SHOWN_CHARACTERS, _BRIEF_CHARACTERS = 60, 200

_logger = logging.getLogger(__name__)
_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 60
_brief.maxlist = _brief.maxdict = _brief.maxtuple = 6
# A few YAML aliases can create endlessly nested lists.
_brief.maxlevel = 3

Fields = Mapping[str, Any]


def calibration_from_text(text: str, camera: str = "") -> CameraCalibration:
    """Parses the text of a calibration file.

    Args:
        text: The file's text.
        camera: Which of several cameras: a key such as `cam1`, or COLMAP's number. Empty for the first; a warning then
            names it.

    Raises:
        CalibrationError: It is another kind of file, something is missing, or a value is invalid.
        YamlTextError: It is neither YAML nor another known kind of file.
    """
    _refuse_other_kinds(text)
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if lines and all(map(_COLMAP_LINE.fullmatch, lines)):
        return _colmap({line.split()[0]: line.split()[1:] for line in lines}, camera)
    if text.startswith("%YAML:"):
        # OpenCV's first line is not valid YAML.
        text = f"#{text}"
    # Output of `ros2 topic echo` ends with the start of the next CameraInfo.
    document = parse_yaml(text.rstrip().removesuffix("\n---"))
    if document is None:
        raise CalibrationError(f"is empty; expected a calibration of {_KNOWN}")
    if not isinstance(document, Mapping):
        raise CalibrationError(
            f"is {_briefly(document)}, no mapping of keys to values; expected a calibration of {_KNOWN}"
        )
    for is_one, read in _FORMATS:
        if is_one(document):
            if camera and read is not _kalibr:
                raise CalibrationError(f"holds one camera; expected no name of one, but got {quoted(camera)}")
            return read(document, camera)
    raise CalibrationError(f"holds the keys {_briefly(list(map(str, document)))}; expected a calibration of {_KNOWN}")


def _refuse_other_kinds(text: str) -> None:
    start = text.lstrip()
    if start.startswith("<"):
        what, advice = "an XML file", "save it as YAML; OpenCV's FileStorage does for a name that ends in .yml"
    elif re.search(r"^\[image\]\s*$", text, re.MULTILINE):
        what, advice = "an INI file of ROS's camera_calibration (ost.txt)", "take the ost.yaml that is saved beside it"
    elif re.search(r"^P[0-3]: ", text, re.MULTILINE) or re.search(r"^P_rect_0\d: ", text, re.MULTILINE):
        what, advice = "a calib.txt of KITTI", "write its P0 as a YAML file of ROS, with the size of the images"
    elif "camera_type" in text and "value0" in text:
        what, advice = "a calibration of Basalt", "write it as a camchain.yaml of Kalibr"
    elif re.search(r"^\s*[\"']?ros__parameters[\"']?\s*:", text, re.MULTILINE):
        what, advice = "a parameter file", "give it as --params-file, and a calibration here"
    else:
        return
    raise CalibrationError(f"is {what}; {advice}")


def _ros_or_opencv(document: Fields, _: str) -> CameraCalibration:
    """Files of ROS's `camera_calibration`, and files written by OpenCV's FileStorage, whose key names vary."""
    fields = _Fields(document, "a calibration of ROS or OpenCV")
    is_fisheye = fields.number("fisheye_model", 0.0) != 0
    return CameraCalibration(
        height=fields.integer("image_height"),
        width=fields.integer("image_width"),
        camera_name=str(document.get("camera_name", "")),
        distortion_model=EQUIDISTANT if is_fisheye else str(document.get("distortion_model", PLUMB_BOB)),
        camera_matrix=fields.matrix(("camera_matrix", "k"), MATRIX_SIZE),
        distortion_coefficients=fields.matrix(
            ("distortion_coefficients", "dist_coeffs", "dist_coeff", "distortion", "d"), None, ()
        ),
        rectification_matrix=fields.matrix(("rectification_matrix",), MATRIX_SIZE, IDENTITY),
        projection_matrix=fields.matrix(("projection_matrix",), PROJECTION_SIZE, ()),
    )


def _camera_info(document: Fields, _: str) -> CameraCalibration:
    """A `sensor_msgs/CameraInfo` as `ros2 topic echo` prints it."""
    fields = _Fields(document, "a CameraInfo as `ros2 topic echo` prints it")
    return CameraCalibration(
        height=fields.integer("height"),
        width=fields.integer("width"),
        camera_name="",
        distortion_model=str(document.get("distortion_model", "")),
        camera_matrix=fields.matrix(("k",), MATRIX_SIZE),
        distortion_coefficients=fields.matrix(("d",), None, ()),
        rectification_matrix=fields.matrix(("r",), MATRIX_SIZE, IDENTITY),
        projection_matrix=fields.matrix(("p",), PROJECTION_SIZE, ()),
    )


def _kalibr(document: Fields, camera: str) -> CameraCalibration:
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


def _euroc(document: Fields, _: str) -> CameraCalibration:
    return _intrinsics(document, "a sensor.yaml of EuRoC, or one camera of Kalibr", "")


def _intrinsics(document: Fields, what: str, name: str) -> CameraCalibration:
    """The common part of Kalibr and EuRoC: `intrinsics` and `resolution` as lists."""
    fields = _Fields(document, what)
    model = str(document.get("camera_model", "pinhole"))
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
        distortion_model=str(document.get("distortion_model", "none")),
        camera_matrix=_pinhole(fx, fy, cx, cy),
        distortion_coefficients=fields.matrix(("distortion_coeffs", "distortion_coefficients"), None, ()),
    )


def _orb_slam(document: Fields, _: str) -> CameraCalibration:
    prefix = "Camera1" if "Camera1.fx" in document else "Camera"
    fields = _Fields(document, "a settings file of ORB-SLAM")
    kind = str(document.get("Camera.type", "PinHole"))
    is_fisheye = kind.casefold().startswith("kannala")
    names = ("k1", "k2", "k3", "k4") if is_fisheye else ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
    fx, fy, cx, cy = (fields.number(f"{prefix}.{name}") for name in ("fx", "fy", "cx", "cy"))
    return CameraCalibration(
        height=fields.integer("Camera.height"),
        width=fields.integer("Camera.width"),
        camera_name=str(document.get("Camera.name", "")),
        distortion_model=EQUIDISTANT if is_fisheye else PLUMB_BOB,
        camera_matrix=_pinhole(fx, fy, cx, cy),
        distortion_coefficients=tuple(fields.number(f"{prefix}.{name}", 0.0) for name in names),
    )


def _vins(document: Fields, _: str) -> CameraCalibration:
    fields = _Fields(document, "a camera of VINS (camodocal)")
    kind = str(document.get("model_type", ""))
    inner = _Fields(fields.mapping("projection_parameters"), f"projection_parameters of {fields.what}")
    if kind == "KANNALA_BRANDT":
        fx, fy, cx, cy = (inner.number(name) for name in ("mu", "mv", "u0", "v0"))
        model, coefficients = EQUIDISTANT, tuple(inner.number(name) for name in ("k2", "k3", "k4", "k5"))
    elif kind == "PINHOLE":
        fx, fy, cx, cy = (inner.number(name) for name in ("fx", "fy", "cx", "cy"))
        lens = _Fields(fields.mapping("distortion_parameters"), f"distortion_parameters of {fields.what}")
        model, coefficients = PLUMB_BOB, tuple(lens.number(name) for name in ("k1", "k2", "p1", "p2"))
    else:
        raise CalibrationError(f"is {fields.what} with model_type {quoted(kind)}; expected PINHOLE or KANNALA_BRANDT")
    return CameraCalibration(
        height=fields.integer("image_height"),
        width=fields.integer("image_width"),
        camera_name=str(document.get("camera_name", "")),
        distortion_model=model,
        camera_matrix=_pinhole(fx, fy, cx, cy),
        distortion_coefficients=coefficients,
    )


def _colmap(cameras: dict[str, list[str]], camera: str) -> CameraCalibration:
    if camera and camera not in cameras:
        raise CalibrationError(
            f"is a cameras.txt of COLMAP with the cameras {_briefly(list(cameras))}; it has no {quoted(camera)}"
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
    focal_count, distortion_model = _COLMAP_MODELS[model]
    try:
        width, height, *values = int(texts[0]), int(texts[1]), *map(float, texts[2:])
    except ValueError as error:
        raise CalibrationError(
            f"is a cameras.txt of COLMAP; camera {_shown(chosen)} holds {_briefly(texts)}; expected numbers"
        ) from error
    if len(values) < focal_count + 2:
        raise CalibrationError(
            f"is a cameras.txt of COLMAP; {model} of camera {_shown(chosen)} has {len(values)} values; expected more"
        )
    cx, cy, *coefficients = values[focal_count:]
    if model in _COLMAP_RADIAL:
        coefficients = [*coefficients, 0.0, 0.0, 0.0][:4]
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


def _briefly(value: object) -> str:
    return printable(_brief.repr(value), _BRIEF_CHARACTERS)


def _listed(names: Iterable[str]) -> str:
    return listed(map(_shown, names))


def _has(*names: str) -> Callable[[Fields], bool]:
    return lambda document: bool({_key(name) for name in document} & {_key(name) for name in names})


# The first match wins.
_FORMATS: tuple[tuple[Callable[[Fields], bool], Callable[[Fields, str], CameraCalibration]], ...] = (
    (_has("camera_matrix"), _ros_or_opencv),
    (_has("projection_parameters"), _vins),
    (_has("Camera.fx", "Camera1.fx"), _orb_slam),
    (lambda document: any(map(_is_kalibr_camera, document.values())), _kalibr),
    (_has("intrinsics"), _euroc),
    (lambda document: _has("k")(document) and "width" in document, _camera_info),
    (_has("k", "image_width"), _ros_or_opencv),
)


def _key(name: object) -> str:
    """Normalises spellings such as Camera_Matrix, cameraMatrix, camera_matrix."""
    return str(name).replace("_", "").casefold()


def _pinhole(fx: float, fy: float, cx: float, cy: float) -> tuple[float, ...]:
    return fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0


class _Fields:
    """Checked access to the values of a mapping; errors name the key and the kind of file."""

    def __init__(self, document: Fields, what: str) -> None:
        self.document = {_key(name): value for name, value in document.items()} | dict(document)
        self.what = what

    def _get(self, names: tuple[str, ...], expected: str) -> Any:
        for name in names:
            value = self.document.get(name, self.document.get(_key(name)))
            if value is not None:
                return value
        raise CalibrationError(f"is {self.what}, in which {names[0]} is missing; expected {expected}")

    def mapping(self, name: str) -> Fields:
        value = self._get((name,), "a mapping")
        if not isinstance(value, Mapping):
            raise CalibrationError(f"{name} of {self.what} is {_briefly(value)}; expected a mapping")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        if default is not None and _key(name) not in self.document:
            return default
        value = self._get((name,), "a number")
        if not isinstance(value, (int, float)):
            raise CalibrationError(f"{name} of {self.what} is {_briefly(value)}; expected a number")
        return float(value)

    def integer(self, name: str) -> int:
        return self._whole(self._get((name,), "a whole number of px"), name)

    def size(self, name: str) -> tuple[int, int]:
        value = self._get((name,), "[width, height] in px")
        if not isinstance(value, list) or len(value) != 2:
            raise CalibrationError(f"{name} of {self.what} is {_briefly(value)}; expected [width, height] in px")
        return self._whole(value[0], name), self._whole(value[1], name)

    def matrix(
        self, names: tuple[str, ...], length: int | None, default: tuple[float, ...] | None = None
    ) -> tuple[float, ...]:
        """Numbers row by row: a list, a list of rows, or `{rows, cols, data}`."""
        if default is not None and not any(_key(name) in self.document for name in names):
            return default
        matrix = self._get(names, "a matrix such as {rows: 3, cols: 3, data: [...]}")
        data = matrix.get("data") if isinstance(matrix, Mapping) else matrix
        if isinstance(data, list) and data and all(isinstance(row, list) for row in data):
            data = [value for row in data for value in row]
        if not isinstance(data, list):
            raise CalibrationError(
                f"{names[0]} of {self.what} is {_briefly(matrix)}; expected a list of numbers, or a matrix such "
                "as {rows: 3, cols: 3, data: [...]}"
            )
        if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in data):
            raise CalibrationError(f"{names[0]} of {self.what} holds {_briefly(data)}; expected numbers")
        values = tuple(map(float, data))
        if length is not None:
            check_length(names[0], values, length)
        return values

    def _whole(self, value: object, name: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise CalibrationError(f"{name} of {self.what} is {_briefly(value)}; expected a whole number of px")
        return value


def file_and_camera(path: Path) -> tuple[Path, str]:
    """File and camera of `FILE#NAME`; the camera is empty if none is given, or if "#" is part of the file's name."""
    if "#" not in path.name[1:] or path.exists():
        return path, ""
    name, _, camera = path.name.rpartition("#")
    return path.with_name(name), camera


def read_calibration_file(path: Path) -> CameraCalibration:
    """Reads a calibration of ROS, OpenCV, Kalibr, EuRoC, ORB-SLAM, VINS or COLMAP; see docs/calibration.md.

    Args:
        path: The file; `FILE#NAME` for one camera of several, such as `camchain.yaml#cam1`.

    Raises:
        CalibrationError: The file cannot be read, is of another kind, or is not a valid calibration; the text names
            the file.
    """
    try:
        path, camera = file_and_camera(path)
        return calibration_from_text(read_small_text(path), camera)
    except FileNotFoundError as error:
        raise CalibrationError(f"there is no calibration file {path}") from error
    except OSError as error:
        raise CalibrationError(f"calibration file {path} cannot be read: {error.strerror or error}") from error
    except (CalibrationError, YamlTextError) as error:
        raise CalibrationError(f"calibration file {path}: {error}") from error
