"""Checked access to the values of YAML files of cameras and IMUs."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feature_frontend.camera.calibration import check_length
from feature_frontend.errors import CalibrationError
from feature_frontend.system.text import printable
from feature_frontend.system.yaml_text import YamlTextError, parse_yaml, read_small_text

__all__ = ["Document", "Fields", "briefly", "document_of", "errors_name_the_file", "normalized_key", "read_fields"]

_BRIEF_CHARACTERS = 200
# More than any matrix here has; rows that aliases repeat would grow without bound.
_MOST_VALUES = 1000
_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 60
_brief.maxlist = _brief.maxdict = _brief.maxtuple = 6
# A few YAML aliases can create endlessly nested lists.
_brief.maxlevel = 3

Document = Mapping[str, Any]


def document_of(text: str) -> Any:
    """Parses the text of a file that ROS, OpenCV or a dataset has written.

    Raises:
        YamlTextError: It is not YAML.
    """
    if text.startswith("%YAML:"):
        # OpenCV's first line is not valid YAML.
        text = f"#{text}"
    # Output of `ros2 topic echo` ends with the start of the next message.
    return parse_yaml(text.rstrip().removesuffix("\n---"))


def read_fields(path: Path, what: str) -> Fields:
    """The values of a file that is `what`.

    Raises:
        CalibrationError: The file cannot be read, or holds no mapping of keys to values; the text names the file.
    """
    with errors_name_the_file(path):
        document = document_of(read_small_text(path))
        if not isinstance(document, Mapping):
            raise CalibrationError(f"is {'empty' if document is None else briefly(document)}; expected {what}")
        return Fields(document, what)


@contextmanager
def errors_name_the_file(path: Path) -> Iterator[None]:
    """Turns errors of reading `path` into a `CalibrationError` that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise CalibrationError(f"there is no calibration file {path}") from error
    except OSError as error:
        raise CalibrationError(f"calibration file {path} cannot be read: {error.strerror or error}") from error
    except (CalibrationError, YamlTextError) as error:
        raise CalibrationError(f"calibration file {path}: {error}") from error


class Fields:
    """Checked access to the values of a mapping; a `CalibrationError` names the key and the kind of file."""

    def __init__(self, document: Document, what: str) -> None:
        self.document = {normalized_key(name): value for name, value in document.items()} | dict(document)
        self.what = what

    def _get(self, names: tuple[str, ...], expected: str) -> Any:
        for name in names:
            value = self.document.get(name, self.document.get(normalized_key(name)))
            if value is not None:
                return value
        raise CalibrationError(f"is {self.what}, in which {names[0]} is missing; expected {expected}")

    def mapping(self, name: str) -> Document:
        """The mapping under `name`."""
        value = self._get((name,), "a mapping")
        if not isinstance(value, Mapping):
            raise CalibrationError(f"{name} of {self.what} is {briefly(value)}; expected a mapping")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """The finite number under `name`; `default` if there is none."""
        if default is not None and normalized_key(name) not in self.document:
            return default
        value = self._get((name,), "a number")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise CalibrationError(f"{name} of {self.what} is {briefly(value)}; expected a finite number")
        return float(value)

    def text(self, name: str, default: str) -> str:
        """The text under `name`, such as the name of a model; `default` if there is none."""
        value = self.document.get(name, self.document.get(normalized_key(name)))
        if isinstance(value, (Mapping, list)):
            # Converted to text, lists that aliases repeat would grow without bound.
            raise CalibrationError(f"{name} of {self.what} is {briefly(value)}; expected a name")
        return default if value is None else str(value)

    def flag(self, name: str) -> bool:
        """Whether `name` is set, to true or a number but 0."""
        value = self.document.get(normalized_key(name), False)
        return value if isinstance(value, bool) else self.number(name) != 0

    def integer(self, name: str) -> int:
        """The whole number under `name`."""
        return self._whole(self._get((name,), "a whole number of px"), name)

    def size(self, name: str) -> tuple[int, int]:
        """The two whole numbers under `name`."""
        value = self._get((name,), "[width, height] in px")
        if not isinstance(value, list) or len(value) != 2:
            raise CalibrationError(f"{name} of {self.what} is {briefly(value)}; expected [width, height] in px")
        return self._whole(value[0], name), self._whole(value[1], name)

    def matrix(
        self, names: tuple[str, ...], length: int | None, default: tuple[float, ...] | None = None
    ) -> tuple[float, ...]:
        """Numbers row by row: a list, a list of rows, or `{rows, cols, data}`."""
        if default is not None and not any(normalized_key(name) in self.document for name in names):
            return default
        matrix = self._get(names, "a matrix such as {rows: 3, cols: 3, data: [...]}")
        data = matrix.get("data") if isinstance(matrix, Mapping) else matrix
        if isinstance(data, list) and data and all(isinstance(row, list) for row in data):
            count = sum(map(len, data))
            if count > _MOST_VALUES:
                raise CalibrationError(f"{names[0]} of {self.what} has {count} values; expected a matrix of a camera")
            data = [value for row in data for value in row]
        if not isinstance(data, list):
            raise CalibrationError(
                f"{names[0]} of {self.what} is {briefly(matrix)}; expected a list of numbers, or a matrix such "
                "as {rows: 3, cols: 3, data: [...]}"
            )
        if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in data):
            raise CalibrationError(f"{names[0]} of {self.what} holds {briefly(data)}; expected numbers")
        values = tuple(map(float, data))
        if length is not None:
            check_length(names[0], values, length)
        return values

    def _whole(self, value: object, name: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise CalibrationError(f"{name} of {self.what} is {briefly(value)}; expected a whole number of px")
        return value


def normalized_key(name: object) -> str:
    """The key without differences of spelling, such as Camera_Matrix, cameraMatrix, camera_matrix."""
    return str(name).replace("_", "").casefold()


def briefly(value: object) -> str:
    """A value from a file in Python notation, cut after 200 characters."""
    return printable(_brief.repr(value), _BRIEF_CHARACTERS)
