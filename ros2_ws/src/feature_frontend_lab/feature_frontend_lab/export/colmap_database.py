"""Writes COLMAP's database of cameras, keypoints and matches without COLMAP.

The tables follow COLMAP's documented SQLite format (https://colmap.github.io/database.html); 4.x adds its further
tables (rigs, frames) when it opens the file. COLMAP's pixel coordinates start at the image corner, so the centre of the
first pixel is (0.5, 0.5): half a pixel is added to keypoints and principal points. Descriptors are not written:
COLMAP's mapper does not need them, and its matchers expect SIFT descriptors.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.camera.distortion import EQUIDISTANT
from feature_frontend.errors import CalibrationError, SourceError

__all__ = ["ColmapCamera", "ColmapDatabase", "camera_from_calibration", "guessed_camera"]

# Numbers of COLMAP's camera models (src/colmap/sensor/models.h).
PINHOLE, SIMPLE_RADIAL, OPENCV, OPENCV_FISHEYE, FULL_OPENCV = 1, 2, 4, 5, 6
_MODEL_NAMES = {
    PINHOLE: "PINHOLE",
    SIMPLE_RADIAL: "SIMPLE_RADIAL",
    OPENCV: "OPENCV",
    OPENCV_FISHEYE: "OPENCV_FISHEYE",
    FULL_OPENCV: "FULL_OPENCV",
}
_OPENCV_COUNT, _FULL_OPENCV_COUNT = 4, 8
# Kinds of verified pairs (src/colmap/scene/two_view_geometry.h).
CALIBRATED, UNCALIBRATED = 2, 3
_MAX_IMAGES = 2147483647
# COLMAP's own assumption for an unknown camera.
_GUESSED_FOCAL_LENGTH = 1.2
_PIXEL_CENTRE = 0.5

_TABLES = """
CREATE TABLE cameras (
    camera_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, model INTEGER NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, params BLOB, prior_focal_length INTEGER NOT NULL);
CREATE TABLE images (
    image_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL UNIQUE, camera_id INTEGER NOT NULL,
    prior_qw REAL, prior_qx REAL, prior_qy REAL, prior_qz REAL, prior_tx REAL, prior_ty REAL, prior_tz REAL,
    CONSTRAINT image_id_check CHECK(image_id >= 0 and image_id < 2147483647),
    FOREIGN KEY(camera_id) REFERENCES cameras(camera_id));
CREATE TABLE keypoints (
    image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL, data BLOB,
    FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE descriptors (
    image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL, data BLOB,
    FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE matches (pair_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL, data BLOB);
CREATE TABLE two_view_geometries (
    pair_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL, data BLOB,
    config INTEGER NOT NULL, F BLOB, E BLOB, H BLOB, qvec BLOB, tvec BLOB);
CREATE UNIQUE INDEX index_name ON images(name);
"""


@dataclass(frozen=True)
class ColmapCamera:
    """A row of the table `cameras`.

    Attributes:
        model: Number of the model.
        height: px.
        width: px.
        parameters: Parameters in the model's order; lengths in px.
        is_known: Whether the focal length is calibrated; COLMAP refines an assumed one more freely.
    """

    model: int
    height: int
    width: int
    parameters: tuple[float, ...]
    is_known: bool

    @property
    def model_name(self) -> str:
        """COLMAP's name of the model."""
        return _MODEL_NAMES[self.model]


def camera_from_calibration(calibration: CameraCalibration, *, rectified: bool = False) -> ColmapCamera:
    """Converts a calibration to COLMAP's camera model.

    Args:
        calibration: Calibration of the camera; its region of interest and binning are taken into account.
        rectified: Whether the images are rectified, which gives a pinhole camera with the matrix P.

    Raises:
        CalibrationError: COLMAP has no such lens model, or the required matrix, K or P, is 0.
    """
    if rectified:
        calibration.check_rectified()
        fx, _, cx, _, _, fy, cy, *_ = calibration.projection_matrix
    else:
        calibration.check_raw()
        fx, _, cx, _, fy, cy, *_ = calibration.camera_matrix
    binning_x, binning_y = max(calibration.binning_x, 1), max(calibration.binning_y, 1)
    roi = calibration.region_of_interest
    pinhole = (
        fx / binning_x,
        fy / binning_y,
        (cx + _PIXEL_CENTRE - roi.x_offset) / binning_x,
        (cy + _PIXEL_CENTRE - roi.y_offset) / binning_y,
    )
    model, distortion = (PINHOLE, ()) if rectified else _lens(calibration)
    height, width = calibration.image_size
    return ColmapCamera(model, height, width, (*pinhole, *distortion), is_known=True)


def guessed_camera(height: int, width: int) -> ColmapCamera:
    """The camera assumed without a calibration: one radial coefficient, to be estimated by COLMAP."""
    parameters = (_GUESSED_FOCAL_LENGTH * max(height, width), width / 2, height / 2, 0.0)
    return ColmapCamera(SIMPLE_RADIAL, height, width, parameters, is_known=False)


def _lens(calibration: CameraCalibration) -> tuple[int, tuple[float, ...]]:
    coefficients = calibration.distortion_coefficients
    if not any(coefficients):
        return PINHOLE, ()
    if calibration.distortion_model == EQUIDISTANT:
        return OPENCV_FISHEYE, coefficients
    if len(coefficients) > _FULL_OPENCV_COUNT:
        raise CalibrationError(
            f"COLMAP has no lens model with OpenCV's thin prism and tilt ({len(coefficients)} coefficients, those from "
            f"the {_FULL_OPENCV_COUNT + 1}th on not 0); rectify the images (image_proc) and export those as rectified"
        )
    if any(coefficients[_OPENCV_COUNT:]):
        return FULL_OPENCV, (*coefficients, 0.0, 0.0, 0.0)[:_FULL_OPENCV_COUNT]
    return OPENCV, coefficients[:_OPENCV_COUNT]


class ColmapDatabase:
    """A new database. Leaving the context completes the file, or removes it after an error.

    Args:
        path: Path of the file, which must not exist.

    Raises:
        OSError: The file cannot be written, for lack of space or permission; raised here or by a method; its
            `filename` is the path.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self._partial.unlink(missing_ok=True)
        with self._writing():
            self._connection = sqlite3.connect(self._partial)
            with self._removed_if_it_fails():
                # The file is discarded on failure: a rollback journal would only take space.
                self._connection.execute("PRAGMA journal_mode = OFF")
                self._connection.executescript(_TABLES)

    def add_camera(self, camera: ColmapCamera) -> int:
        """Adds a camera and returns its id."""
        row = (camera.model, camera.width, camera.height, _blob(np.array(camera.parameters)), int(camera.is_known))
        return self._insert("INSERT INTO cameras VALUES (NULL, ?, ?, ?, ?, ?)", row)

    def add_image(self, name: str, camera_id: int, keypoints: npt.NDArray[np.floating]) -> int:
        """Adds an image and its keypoints, (N, 2) px with pixel centres at integers, and returns its id.

        Raises:
            SourceError: An image of that name exists already, or the name is not valid Unicode.
        """
        try:
            name.encode()
            image_id = self._insert("INSERT INTO images (name, camera_id) VALUES (?, ?)", (name, camera_id))
        except sqlite3.IntegrityError as error:
            raise SourceError(
                f"two images are called {name!r}; COLMAP expects names (of images in bags: stamps) that differ"
            ) from error
        except UnicodeEncodeError as error:
            raise SourceError(
                f"the image name {name!a} is no UTF-8, which COLMAP's database needs; rename the file"
            ) from error
        self._insert(
            "INSERT INTO keypoints VALUES (?, ?, ?, ?)",
            (image_id, len(keypoints), 2, _blob(np.asarray(keypoints, np.float32) + np.float32(_PIXEL_CENTRE))),
        )
        return image_id

    def add_pair(
        self,
        image_id0: int,
        image_id1: int,
        rows: npt.NDArray[np.integer],
        inlier: npt.NDArray[np.bool_],
        *,
        is_calibrated: bool,
    ) -> None:
        """Adds the matches of two images; those that fit one geometry are stored as verified.

        Args:
            image_id0: An image.
            image_id1: An image added later.
            rows: (M, 2) indices of the keypoints of the two images.
            inlier: (M,) which of the matches are verified; if none is, COLMAP has yet to verify the pair.
            is_calibrated: Whether they were verified by an essential matrix.
        """
        pair_id = image_id0 * _MAX_IMAGES + image_id1
        matches = rows.astype(np.uint32)
        self._insert("INSERT INTO matches VALUES (?, ?, 2, ?)", (pair_id, len(matches), _blob(matches)))
        verified = matches[inlier]
        if len(verified):
            config = CALIBRATED if is_calibrated else UNCALIBRATED
            self._insert(
                "INSERT INTO two_view_geometries (pair_id, rows, cols, data, config) VALUES (?, ?, 2, ?, ?)",
                (pair_id, len(verified), _blob(verified), config),
            )

    def _insert(self, statement: str, row: tuple[object, ...]) -> int:
        with self._writing():
            return int(self._connection.execute(statement, row).lastrowid or 0)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(errno.EIO, str(error), str(self._path)) from error

    @contextmanager
    def _removed_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._partial.unlink(missing_ok=True)
            raise

    def __enter__(self) -> Self:
        """Does nothing: the database is already open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Completes the file, or removes the incomplete one."""
        if kind is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._partial.unlink(missing_ok=True)
            return
        with self._removed_if_it_fails(), self._writing():
            self._connection.commit()
            self._connection.close()
            self._partial.replace(self._path)


def _blob(values: npt.NDArray[np.generic]) -> bytes:
    return np.ascontiguousarray(values).tobytes()
