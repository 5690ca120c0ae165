"""COLMAP's mapper with options that suit a moving camera: run in a process of its own, or as command lines.

pycolmap is optional: only `mapping_process.py` imports it.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.system.files import readable_name
from feature_frontend.system.text import short_text

__all__ = ["LOG", "STARTS", "MappedModel", "MapperError", "command_lines", "has_pycolmap", "run_mapper"]

LOG = "mapper.log"
"""Name of the file with what the mapper said, beside the models."""

STARTS: Sequence[Mapping[str, float]] = ({}, {"init_max_forward_motion": 1, "init_min_tri_angle": 2})
"""Options of the two ways to start a model: COLMAP's defaults, and from images between which the camera moves forward.

The defaults refuse such pairs (a direction of more than 0.95 along the axis, rays that meet at less than 16 degrees).
If the camera does nothing else, the mapper finds no pair, or one whose motion it has taken from a homography and wrong.
"""


class MapperError(FeatureFrontendError):
    """COLMAP's mapper failed."""


@dataclass(frozen=True)
class MappedModel:
    """A model of the mapper.

    Attributes:
        positions: (x, y, z) of the camera in the model's frame and scale, by the names of the registered images.
        points: Number of 3D points.
        error_px: Mean reprojection error.
        cameras: Parameters of the cameras, in the order of their COLMAP models, by their ids in the database.
    """

    positions: dict[str, list[float]]
    points: int
    error_px: float
    cameras: dict[str, list[float]]


def has_pycolmap() -> bool:
    """Whether pycolmap is installed; does not import it."""
    return importlib.util.find_spec("pycolmap") is not None


def run_mapper(
    database: Path,
    images: Path | None,
    output: Path,
    constant_cameras: Sequence[int],
    options: Mapping[str, float],
    on_images: Callable[[int], object] = lambda _: None,
) -> list[MappedModel]:
    """Maps a database; ends the mapper if it is interrupted.

    Args:
        database: COLMAP adds its further tables to it.
        images: Folder of the images, from which the points take their colours; None for points without.
        output: Existing folder, which receives the models as folders 0, 1, ...; also `LOG`.
        constant_cameras: Ids of the cameras that are not refined.
        options: Options that differ from COLMAP's defaults, by their names in `IncrementalMapperOptions`.
        on_images: Called with each number of newly registered images.

    Returns:
        The models; none if the mapper found no pair of images to start from.

    Raises:
        MapperError: The mapper cannot run or failed; the text says how.
    """
    request = {
        "database": str(database.absolute()),
        "images": None if images is None else str(images.absolute()),
        "output": str(output.absolute()),
        "constant_cameras": list(constant_cameras),
        "mapper": dict(options),
    }
    command = [sys.executable, "-m", f"{__package__}.mapping_process", json.dumps(request)]
    log = output / LOG
    result: dict[str, Any] = {}
    # The mapper holds the other end of the pipe: if this process ends in any way, so does that one.
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                result = json.loads(line)
                if "images" in result:
                    on_images(result["images"])
        except BaseException:
            process.kill()
            raise
    if "models" in result:
        return [MappedModel(**fields) for fields in result["models"]]
    lines = log.read_text("utf-8", "replace").split("\n")
    said = result.get("error") or next((line for line in lines if line), "nothing was said")
    raise MapperError(f"COLMAP's mapper ended with status {process.returncode}: {short_text(said)}")


def command_lines(
    database: Path, images: Path | None, output: Path, *, has_guessed_camera: bool, options: Mapping[str, float]
) -> str:
    """The commands that do the same with COLMAP's own program, for a shell.

    Args:
        database: As in `run_mapper`.
        images: As in `run_mapper`.
        output: As in `run_mapper`.
        has_guessed_camera: Whether a camera is refined; the program then refines all.
        options: As in `run_mapper`.
    """
    values: dict[str, float] = {} if has_guessed_camera else {"ba_refine_focal_length": 0, "ba_refine_extra_params": 0}
    if images is None:
        values["extract_colors"] = 0
    words = ["colmap", "mapper", "--database_path", readable_name(database)]
    words += ["--image_path", "." if images is None else readable_name(images), "--output_path", readable_name(output)]
    for name, value in (values | dict(options)).items():
        words += [f"--Mapper.{name}", f"{value:g}"]
    return shlex.join(["mkdir", "-p", readable_name(output)]) + " && " + shlex.join(words)
