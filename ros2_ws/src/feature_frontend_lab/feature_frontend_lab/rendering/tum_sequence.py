"""Writes rendered frames as a sequence in the layout of the TUM RGB-D benchmark, for `train --rgbd`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from feature_frontend.errors import SourceError
from feature_frontend_lab.rendering.camera import Camera, FloatArray, quaternion
from feature_frontend_lab.rendering.renderer import RenderedFrame

__all__ = ["write_tum_sequence"]

_DEPTH_UNITS_PER_M = 5000
_FIRST_STAMP_S = 1000.0
_PERIOD_S = 0.1


def write_tum_sequence(
    folder: Path,
    frames: Iterable[tuple[RenderedFrame, FloatArray]],
    camera: Camera,
    *,
    depth_delay_s: float = 0.0,
    pose_delay_s: float = 0.0,
) -> None:
    """Writes rgb/, depth/ (16 bits, 5000 per metre), their lists, groundtruth.txt and camera.yaml, one frame per 0.1 s.

    Depths above 13.1 m, the most that 16 bits hold, are written as unknown.

    Args:
        folder: Output folder; created if it does not exist.
        frames: Frames with their poses (4, 4), camera to world, m.
        camera: Camera used for rendering.
        depth_delay_s: Offset of the stamps of depth images from those of the colour images.
        pose_delay_s: Offset of the stamps of poses, as the clocks of real sensors never agree.

    Raises:
        SourceError: A file cannot be written.
    """
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    (folder / "camera.yaml").write_text(camera.as_yaml(), encoding="utf-8")
    lines: dict[str, list[str]] = {"rgb.txt": ["# color images"], "depth.txt": ["# depth maps"], "groundtruth.txt": []}
    for number, (frame, pose) in enumerate(frames):
        time_s = _FIRST_STAMP_S + _PERIOD_S * number
        units = np.rint(frame.depth * _DEPTH_UNITS_PER_M)
        depth = np.where(units <= np.iinfo(np.uint16).max, units, 0).astype(np.uint16)
        for name, image in (("rgb", cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)), ("depth", depth)):
            path = folder / name / f"{number}.png"
            if not cv2.imwrite(str(path), image):
                raise SourceError(
                    f"the image {path} cannot be written; is there space left, and may the folder be written to?"
                )
        lines["rgb.txt"].append(f"{time_s:.6f} rgb/{number}.png")
        lines["depth.txt"].append(f"{time_s + depth_delay_s:.6f} depth/{number}.png")
        values = (time_s + pose_delay_s, *pose[:3, 3], *quaternion(pose[:3, :3]))
        lines["groundtruth.txt"].append(" ".join(f"{value:.9f}" for value in values))
    for name, rows in lines.items():
        (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
