"""The rendered sequence: a folder of images as from a camera, with its ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.errors import DemoError
from feature_frontend.geometry import relative_pose
from feature_frontend.image.image_file import encode_file
from feature_frontend_lab.rendering import (
    Camera,
    Scene,
    default_scene,
    default_trajectory,
    render,
    render_depth,
    reproject,
)

__all__ = ["CAMERA_FILE", "POSES_FILE", "RATE_HZ", "RenderedSequence", "render_sequence"]

FloatArray = npt.NDArray[np.float64]

RATE_HZ = 10
FIRST_STAMP_S = 1_700_000_000
CAMERA_FILE = "camera.yaml"
POSES_FILE = "poses.txt"
HEIGHT_PX, WIDTH_PX = 480, 640
FIELD_OF_VIEW_DEG = 70.0
# A keypoint on a silhouette belongs to the nearer surface, even if its centre falls on the adjacent pixel.
SILHOUETTE_KERNEL = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class RenderedSequence:
    """Rendered images on disk with their geometry.

    Attributes:
        folder: Where the images, `CAMERA_FILE` and `POSES_FILE` are.
        scene: The rendered scene.
        camera: The camera used for rendering.
        poses: Camera-to-world matrix (4, 4) of each image, by stamp in ns.
    """

    folder: Path
    scene: Scene
    camera: Camera
    poses: dict[int, FloatArray]

    def motion(self, stamp0_ns: int, stamp1_ns: int) -> FloatArray:
        """The motion (4, 4) from the camera frame of one image to that of the other.

        Raises:
            DemoError: No image has this stamp.
        """
        return relative_pose.relative_motion(self._pose(stamp0_ns), self._pose(stamp1_ns))

    def residuals_px(
        self,
        stamp0_ns: int,
        stamp1_ns: int,
        keypoints0: npt.NDArray[np.float32],
        keypoints1: npt.NDArray[np.float32],
    ) -> FloatArray:
        """(M,) px: distance of each match from its true position; infinite if there is none.

        Raises:
            DemoError: No image has this stamp.
        """
        pose0, pose1 = self._pose(stamp0_ns), self._pose(stamp1_ns)
        depth = render_depth(self.scene, self.camera, pose0)
        nearer = np.asarray(cv2.erode(depth, SILHOUETTE_KERNEL), np.float32)
        distances = [
            np.linalg.norm(reproject(keypoints0, surface, pose0, pose1, self.camera).points - keypoints1, axis=1)
            for surface in (depth, nearer)
        ]
        return np.asarray(np.nan_to_num(np.fmin(*distances), nan=np.inf), np.float64)

    def _pose(self, stamp_ns: int) -> FloatArray:
        if stamp_ns not in self.poses:
            raise DemoError(
                f"a message carries the stamp {stamp_ns} ns, which no rendered image has; expected one of {POSES_FILE}"
            )
        return self.poses[stamp_ns]


@lru_cache(maxsize=1)
def _scene(seed: int) -> Scene:
    return default_scene(seed)


def render_sequence(
    folder: Path, count: int, seed: int = 0, on_image: Callable[[], None] = lambda: None
) -> RenderedSequence:
    """Renders the default flight into a new folder.

    Args:
        folder: Must not exist.
        count: Number of images.
        seed: Seed of the scene's textures.
        on_image: Called after each image.

    Raises:
        DemoError: An image cannot be written.
    """
    folder.mkdir(parents=True)
    camera = Camera.with_field_of_view(FIELD_OF_VIEW_DEG, HEIGHT_PX, WIDTH_PX)
    scene = _scene(seed)
    poses: dict[int, FloatArray] = {}
    for number, pose in enumerate(default_trajectory(count)):
        nanoseconds = number * (1_000_000_000 // RATE_HZ)
        stamp_ns = FIRST_STAMP_S * 1_000_000_000 + nanoseconds
        path = folder / f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}.png"
        try:
            encode_file(path, render(scene, camera, pose).image, cv2.IMWRITE_PNG_COMPRESSION, 2)
        except OSError as error:
            raise DemoError(f"the image {path} cannot be written: {error.strerror or error}") from error
        poses[stamp_ns] = pose
        on_image()
    (folder / CAMERA_FILE).write_text(camera.as_yaml(), encoding="utf-8")
    (folder / POSES_FILE).write_text(_poses_text(poses), encoding="utf-8")
    return RenderedSequence(folder, scene, camera, poses)


def _poses_text(poses: dict[int, FloatArray]) -> str:
    lines = ["# stamp (s) and camera-to-world matrix, 3x4 row by row (m); camera: x right, y down, z forward"]
    for stamp_ns, pose in poses.items():
        values = " ".join(f"{value:.9g}" for value in pose[:3].ravel())
        lines.append(f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d} {values}")
    return "\n".join(lines) + "\n"
