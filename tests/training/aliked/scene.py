"""A small rendered scene with occlusions: exact depth and poses for perspective pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering import Camera, RenderedFrame, Scene, look_at, render, tum_sequence
from feature_frontend_lab.training.aliked.posed import PosedPhotograph
from tests.rendering.test_rendering import facing, noisy, tilted

CAMERA = Camera.with_field_of_view(65, height=240, width=320)


def scene() -> Scene:
    """A tilted wall that fills the view, and two plates before it."""
    plates = (facing(2.6, -1.2, -0.7, 0.8, 0.9, noisy(5)), facing(3.2, 0.3, -0.2, 1.0, 0.7, noisy(6)))
    return Scene((tilted(), *plates))


def poses(count: int) -> list[npt.NDArray[np.float64]]:
    """`count` poses on a line past the scene."""
    return [
        look_at((0.5 * s - 0.3, 0.1 * s, 0.2 * s), (0.1 * s, 0.0, 4.0), up=(0, -1, 0)) for s in np.linspace(0, 1, count)
    ]


def frames(count: int) -> list[RenderedFrame]:
    """What the camera sees from `poses`."""
    return [render(scene(), CAMERA, pose) for pose in poses(count)]


def photograph(frame: RenderedFrame, pose: npt.NDArray[np.float64]) -> PosedPhotograph:
    return PosedPhotograph(frame.image, frame.depth, CAMERA.matrix, pose)


def write_tum_sequence(folder: Path, count: int = 5) -> list[RenderedFrame]:
    """The scene in the layout of the TUM RGB-D benchmark, a frame every 0.1 s."""
    rendered = frames(count)
    # The clocks of camera, depth sensor and tracking system never agree.
    tum_sequence.write_tum_sequence(
        folder, zip(rendered, poses(count), strict=True), CAMERA, depth_delay_s=0.012, pose_delay_s=-0.004
    )
    return rendered
