"""Maps an exported database with COLMAP, writes the models, and compares them with the true poses."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from feature_frontend.errors import SettingsError
from feature_frontend.system.files import readable_name
from feature_frontend.system.text import listed
from feature_frontend_lab.evaluation.odometry.metrics import LEAST_POSES, ate_m
from feature_frontend_lab.evaluation.tracks.trajectory import FloatArray, align
from feature_frontend_lab.export.colmap_database import ColmapCamera
from feature_frontend_lab.export.mapper import (
    LOG,
    STARTS,
    MappedModel,
    command_lines,
    has_pycolmap,
    run_mapper,
)

__all__ = ["MODELS", "Exported", "check_new", "reconstruct"]

MODELS = "sparse"
"""Name of the folder of the models, beside the database."""


# Of a focal length as a multiple of the longer side, and of a radial coefficient (IncrementalMapperOptions).
_LEAST_FOCAL_LENGTH, _MOST_FOCAL_LENGTH, _MOST_COEFFICIENT = 0.1, 10.0, 1.0


@dataclass(frozen=True, eq=False)
class Exported:
    """What was exported.

    Attributes:
        database: Path of the database.
        cameras: Its cameras and their ids.
        poses: True poses (4, 4), camera-to-world, by the names of the images, in their order; None where unknown.
        images: Folder of the images, None if they are in no folder.
        truth: File of the true poses; None without one.
    """

    database: Path
    cameras: Mapping[ColmapCamera, int]
    poses: Mapping[str, FloatArray | None]
    images: Path | None
    truth: Path | None = None

    @property
    def models(self) -> Path:
        """The folder of the models."""
        return self.database.with_name(MODELS)


def check_new(database: Path) -> None:
    """Checks that the models of `database` overwrite nothing.

    Raises:
        SettingsError: There are models, or something else of that name.
    """
    models = database.with_name(MODELS)
    if os.path.lexists(models):
        raise SettingsError(f"{readable_name(models)} exists already; delete it, or choose another folder by --output")


def _commands(exported: Exported) -> str:
    """What `reconstruct` does, as command lines, one for each start."""
    has_guessed_camera = any(not camera.is_known for camera in exported.cameras)
    return "\n".join(
        command_lines(
            exported.database,
            exported.images,
            exported.models if not options else exported.models.with_name(f"{MODELS}_forward"),
            has_guessed_camera=has_guessed_camera,
            options=options,
        )
        for options in STARTS
    )


def reconstruct(exported: Exported) -> None:
    """Maps the database with each start, writes the better models to `sparse` beside it, prints what they are worth.

    The database stays as it is, as COLMAP works on a copy. `sparse` appears when it is complete.

    Raises:
        SettingsError: pycolmap is not installed (the commands to use instead are printed), or COLMAP finds no model.
        MapperError: COLMAP fails.
        OSError: The models cannot be written.
    """
    if not has_pycolmap():
        print(_commands(exported), flush=True)
        raise SettingsError(
            "--reconstruct needs the Python package pycolmap: pip install pycolmap, or the extra colmap of "
            f"feature_frontend_lab; {readable_name(exported.database)} is written, and the commands printed above do "
            "the same with COLMAP's own program"
        )
    constant = [number for camera, number in exported.cameras.items() if camera.is_known]
    with _folder_beside(exported.models) as working:
        starts = [_mapped(exported, constant, working / str(len(options)), options) for options in STARTS]
        best = max(starts, key=_Start.rank)
        if not best.models:
            raise SettingsError(
                f"COLMAP finds no two images to start a model from; expected images with parallax and many verified "
                f"matches; {readable_name(exported.database)} is written, no model is"
            )
        _complete(best.folder, exported.models)
    for start in starts:
        print(f"{start.text(len(exported.poses))}{': kept' if start is best else ''}")
    for line in _report(exported, best.models):
        print(line)


@dataclass(frozen=True, eq=False)
class _Start:
    """The models of one start, in `folder`."""

    options: Mapping[str, float]
    folder: Path
    models: list[MappedModel]

    def rank(self) -> tuple[int, int, float]:
        """Larger for better models: more images, in fewer models, with a smaller error.

        A start from a wrong motion may register all images in a wrong model; its error is larger then.
        """
        return len(self._registered()), -len(self.models), -self._error_px()

    def text(self, total: int) -> str:
        """What came of it."""
        changed = ", ".join(f"{name}={value:g}" for name, value in self.options.items())
        said = f"start with {changed or 'COLMAP defaults'}"
        if not self.models:
            return f"{said}: no initial pair"
        return f"{said}: {len(self._registered())} of {total} images, {self._error_px():.2f} px"

    def _registered(self) -> set[str]:
        return {name for model in self.models for name in model.positions}

    def _error_px(self) -> float:
        points = sum(model.points for model in self.models)
        return sum(model.points * model.error_px for model in self.models) / max(points, 1)


def _mapped(exported: Exported, constant: list[int], folder: Path, options: Mapping[str, float]) -> _Start:
    """The models of one start; `folder` is left with these alone."""
    folder.mkdir()
    database = Path(shutil.copyfile(exported.database, folder / "database.db"))
    with tqdm(unit=" images", desc="mapping", disable=None, leave=False) as progress:
        models = run_mapper(database, exported.images, folder, constant, options, progress.update)
    for name in ("database.db", LOG):
        (folder / name).unlink()
    return _Start(options, folder, models)


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent, ignore_cleanup_errors=True) as name:
        yield Path(name)


def _complete(folder: Path, target: Path) -> None:
    """Moves a finished folder to `target`, which does not exist."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    folder.rename(target)


def _report(exported: Exported, models: list[MappedModel]) -> Iterator[str]:
    for camera, number in exported.cameras.items():
        yield f"camera {number}: {_described(camera)}"
    total = len(exported.poses)
    for number, model in enumerate(models):
        yield (
            f"{readable_name(exported.models / str(number))}: {len(model.positions)} of {total} images, {model.points} "
            f"points, mean reprojection error {model.error_px:.2f} px{_accuracy(exported, model)}"
        )
        for camera, camera_id in exported.cameras.items():
            if not camera.is_known and str(camera_id) in model.cameras:
                refined = ", ".join(f"{value:.6g}" for value in model.cameras[str(camera_id)])
                yield f"  camera {camera_id} refined: {refined}{_doubt(camera, model.cameras[str(camera_id)])}"
    absent = [name for name in exported.poses if not any(name in model.positions for model in models)]
    if absent:
        yield f"{len(absent)} of {total} images are not registered: {listed(absent)}"


def _doubt(guessed: ColmapCamera, refined: Sequence[float]) -> str:
    """A warning about a refined `SIMPLE_RADIAL` camera beyond COLMAP's own limits of what is not bogus."""
    focal_length, coefficient = refined[0] / max(guessed.width, guessed.height), refined[3]
    if _LEAST_FOCAL_LENGTH <= focal_length <= _MOST_FOCAL_LENGTH and abs(coefficient) <= _MOST_COEFFICIENT:
        return ""
    return ": no lens is like that, do not trust this model; give the calibration by --camera-info"


def _described(camera: ColmapCamera) -> str:
    values = ", ".join(f"{value:.6g}" for value in camera.parameters)
    return f"{camera.model_name} {values}, " + ("calibrated: kept" if camera.is_known else "guessed: refined")


def _accuracy(exported: Exported, model: MappedModel) -> str:
    """ATE of a model, after alignment by a similarity transform, as text; empty without true poses."""
    if all(pose is None for pose in exported.poses.values()):
        if exported.truth is None:
            return ""
        return f"; no ATE: no image falls into the time of the poses in {readable_name(exported.truth)}"
    positions, truth = [], []
    for name, position in model.positions.items():
        pose = exported.poses.get(name)
        if pose is not None:
            positions.append(position)
            truth.append(pose[:3, 3])
    if len(truth) < LEAST_POSES:
        return f"; no ATE: the true poses of {len(truth)} of them are known, expected at least {LEAST_POSES}"
    reference = np.array(truth)
    return f"; ATE {ate_m(align(np.array(positions), reference), reference):.3f} m over {len(truth)} images"
