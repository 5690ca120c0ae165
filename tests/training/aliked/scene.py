"""A small rendered scene with things that hide each other: exact depth and poses for perspective pairs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.rendering import Camera, RenderedFrame, Scene, look_at, render
from feature_frontend.training.aliked.posed import PosedPhotograph
from tests.core.test_rendering import facing, noisy, tilted

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
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    k = CAMERA.matrix.ravel().tolist()
    (folder / "camera.yaml").write_text(
        f"image_width: {CAMERA.width}\nimage_height: {CAMERA.height}\ncamera_matrix: {{rows: 3, cols: 3, data: {k}}}\n",
        encoding="utf-8",
    )
    rendered = frames(count)
    lines: dict[str, list[str]] = {"rgb.txt": ["# color images"], "depth.txt": ["# depth maps"], "groundtruth.txt": []}
    for number, (frame, pose) in enumerate(zip(rendered, poses(count), strict=True)):
        time = 1000 + 0.1 * number
        cv2.imwrite(str(folder / "rgb" / f"{number}.png"), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
        cv2.imwrite(str(folder / "depth" / f"{number}.png"), np.rint(frame.depth * 5000).astype(np.uint16))
        axis = cv2.Rodrigues(pose[:3, :3])[0].ravel()
        angle = max(float(np.linalg.norm(axis)), 1e-12)
        quaternion = [*(np.sin(angle / 2) * axis / angle), np.cos(angle / 2)]
        # The clocks of camera, depth sensor and tracking system never agree.
        lines["rgb.txt"].append(f"{time:.6f} rgb/{number}.png")
        lines["depth.txt"].append(f"{time + 0.012:.6f} depth/{number}.png")
        lines["groundtruth.txt"].append(" ".join(f"{v:.9f}" for v in (time - 0.004, *pose[:3, 3], *quaternion)))
    for name, rows in lines.items():
        (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return rendered
