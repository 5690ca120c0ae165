"""Renders rooms papered with photographs, halls and streets as RGB-D sequences for `train --rgbd`.

    python -m feature_frontend_lab.training.rendered OUTPUT --photographs DIR --rooms 12 --halls 2 --streets 2

writes OUTPUT/room_0, OUTPUT/room_1, ..., OUTPUT/hall_0, ..., OUTPUT/street_0, ...; a sequence that is there is kept.
The same arguments give the same sequences.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.tools.common.arguments import Parser, natural
from feature_frontend_lab.rendering import Camera, Scene, default_scene, default_trajectory, render
from feature_frontend_lab.rendering.camera import FloatArray
from feature_frontend_lab.rendering.flights import flight
from feature_frontend_lab.rendering.photograph_scene import photograph_scene
from feature_frontend_lab.rendering.renderer import RenderedFrame
from feature_frontend_lab.rendering.tum_sequence import write_tum_sequence
from feature_frontend_lab.training.images import ColorImages, Images, images_in_folder

__all__ = ["main", "render_hall", "render_room", "render_street"]

_FRAMES = 60
_HEIGHT, _WIDTH, _FIELD_OF_VIEW_DEG = 336, 448, 70.0
# Streets have seeds of their own: those from 0 up are for `evaluate`.
_STREET_SEED = 1000
# The files hold depths up to 13 m. A street of an eighth of the size looks the same.
_STREET_SCALE = 1 / 8
_STREET_STEP = 2  # images; 1 m


def render_room(folder: Path, photographs: Images, seed: int, frames: int) -> None:
    """Writes a walk through a room papered with photographs; see `photograph_scene`.

    Raises:
        SourceError: A file cannot be written.
    """
    loaded = [image for index in range(len(photographs)) if (image := photographs.load(index)) is not None]
    _write_scene(folder, *photograph_scene(loaded, seed, frames))


def render_hall(folder: Path, seed: int, frames: int) -> None:
    """Writes the flight through the default hall with other textures.

    Raises:
        SourceError: A file cannot be written.
    """
    _write_scene(folder, default_scene(seed), default_trajectory(frames))


def render_street(folder: Path, seed: int, frames: int) -> None:
    """Writes a drive along a street, an image a metre, at an eighth of its size.

    Raises:
        SourceError: A file cannot be written.
    """
    driven = flight("street", _STREET_SEED + seed, count=(frames - 1) * _STREET_STEP + 1)

    def rendered() -> Iterator[tuple[RenderedFrame, FloatArray]]:
        for index in range(0, len(driven), _STREET_STEP):
            pose = driven.poses[index].copy()
            pose[:3, 3] *= _STREET_SCALE
            depth = np.asarray(_STREET_SCALE * driven.depth(index), np.float32)
            image = np.asarray(cv2.cvtColor(driven.image(index), cv2.COLOR_GRAY2RGB), np.uint8)
            yield RenderedFrame(image, depth), pose

    _write(folder, rendered(), driven.camera)


def _write_scene(folder: Path, scene: Scene, poses: Sequence[FloatArray]) -> None:
    camera = Camera.with_field_of_view(_FIELD_OF_VIEW_DEG, _HEIGHT, _WIDTH)
    _write(folder, ((render(scene, camera, pose), pose) for pose in poses), camera)


def _write(folder: Path, frames: Iterable[tuple[RenderedFrame, FloatArray]], camera: Camera) -> None:
    """Writes next to the folder and renames it: a sequence is complete or not there."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_tum_sequence(partial, frames, camera)
    partial.rename(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Renders what is missing; returns 0, or 1 after a one-line error."""
    parser = Parser(prog="rendered", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--photographs", type=Path, required=True, metavar="DIR", help="folder, with those below")
    parser.add_argument("--rooms", type=natural, default=12, metavar="N", help="(12)")
    parser.add_argument("--halls", type=natural, default=2, metavar="N", help="(2)")
    parser.add_argument("--streets", type=natural, default=2, metavar="N", help="(2)")
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    try:
        photographs = images_in_folder(options.photographs, ColorImages)
        options.output.mkdir(parents=True, exist_ok=True)
        for kind, count in (("room", options.rooms), ("hall", options.halls), ("street", options.streets)):
            for seed in range(count):
                folder = options.output / f"{kind}_{seed}"
                if folder.exists():
                    continue
                if kind == "room":
                    render_room(folder, photographs, seed, _FRAMES)
                elif kind == "hall":
                    render_hall(folder, seed, _FRAMES)
                else:
                    render_street(folder, seed, _FRAMES)
                print(folder, flush=True)
    except (FeatureFrontendError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
