"""Rendered stereo pairs with known depth: a rectified one, and one from two distorted and rotated cameras."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import CameraCalibration, undistorted_rays
from feature_frontend_lab.rendering import Camera, Scene, default_scene, default_trajectory, depth_at, render

__all__ = ["BASELINE_M", "StereoPair", "raw_pair", "rectified_pair"]

BASELINE_M = 0.12
HEIGHT, WIDTH = 480, 640
_CAMERA = Camera.with_field_of_view(70, HEIGHT, WIDTH)
# What the raw images are sampled from: wider than they see, and finer.
_SOURCE = Camera.with_field_of_view(95, 1125, 1500)
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StereoPair:
    """Two images and what is known of them.

    Attributes:
        left: (H, W, 3) uint8 RGB.
        right: The same, from `BASELINE_M` further right.
        calibrations: Of the left and the right camera.
        rectified: Whether the images are.
        camera: That rendered `depth`, at the left camera's place and turned as the rectified one.
        depth: m, of its image.
    """

    left: npt.NDArray[np.uint8]
    right: npt.NDArray[np.uint8]
    calibrations: tuple[CameraCalibration, CameraCalibration]
    rectified: bool
    camera: Camera
    depth: npt.NDArray[np.float32]

    def depth_errors(self, points: npt.NDArray[np.float32], keypoints: npt.NDArray[np.float32]) -> FloatArray:
        """Relative errors of the depths of points (M, 3), seen as left `keypoints` (M, 2), where a surface is known."""
        in_source = _turned_rays(self.calibrations[0], keypoints, rectified=self.rectified)
        truth = depth_at(self.camera.project(in_source), self.depth)
        rotation = np.eye(3) if self.rectified else _rotation(self.calibrations[0])
        found = (points @ rotation.T)[:, 2]
        seen = truth > 0
        assert seen.mean() > 0.99
        return np.abs(found[seen] / truth[seen] - 1)


def _projection(camera: Camera, baseline_m: float) -> tuple[float, ...]:
    projection = np.zeros((3, 4))
    projection[:, :3] = camera.matrix
    projection[0, 3] = -camera.matrix[0, 0] * baseline_m
    return tuple(projection.ravel().tolist())


def _rotation(calibration: CameraCalibration) -> FloatArray:
    return np.reshape(calibration.rectification_matrix, (3, 3))


def _turned_rays(calibration: CameraCalibration, points: npt.NDArray[np.floating], *, rectified: bool) -> FloatArray:
    """(N, 3) directions of pixels in the rectified camera's frame."""
    rays = undistorted_rays(calibration, points, rectified=rectified)
    rays = np.column_stack([rays, np.ones(len(rays))])
    return rays if rectified else rays @ _rotation(calibration).T


def _poses() -> tuple[FloatArray, FloatArray]:
    left = default_trajectory(60)[5]
    shift = np.eye(4)
    shift[0, 3] = BASELINE_M
    return left, left @ shift


@lru_cache(maxsize=1)
def _scene() -> Scene:
    return default_scene(0)


@lru_cache(maxsize=1)
def rectified_pair() -> StereoPair:
    """What two pinhole cameras side by side see of the default scene."""
    left, right = (render(_scene(), _CAMERA, pose) for pose in _poses())
    matrix = tuple(_CAMERA.matrix.ravel().tolist())
    first, second = (
        CameraCalibration(HEIGHT, WIDTH, "", "plumb_bob", matrix, (0.0,) * 5, projection_matrix=_projection(_CAMERA, b))
        for b in (0.0, BASELINE_M)
    )
    return StereoPair(left.image, right.image, (first, second), True, _CAMERA, left.depth)


@lru_cache(maxsize=1)
def raw_pair() -> StereoPair:
    """What two cameras with lenses of their own see that are turned by 2.5 degrees against each other.

    They differ as the two of EuRoC's sensor do: focal lengths by 0.3 %, principal points by some px.
    """
    frames = [render(_scene(), _SOURCE, pose) for pose in _poses()]
    left = CameraCalibration(
        height=HEIGHT,
        width=WIDTH,
        camera_name="",
        distortion_model="plumb_bob",
        camera_matrix=(440.0, 0.0, 322.0, 0.0, 438.0, 236.0, 0.0, 0.0, 1.0),
        distortion_coefficients=(-0.28, 0.07, 0.0006, -0.0004, 0.0),
        rectification_matrix=tuple(cv2.Rodrigues(np.array([0.012, -0.02, 0.008]))[0].ravel().tolist()),
        projection_matrix=_projection(_CAMERA, 0.0),
    )
    right = replace(
        left,
        camera_matrix=(438.9, 0.0, 315.0, 0.0, 437.2, 244.0, 0.0, 0.0, 1.0),
        distortion_coefficients=(-0.284, 0.075, -0.0001, 0.0001, 0.0),
        rectification_matrix=tuple(cv2.Rodrigues(np.array([-0.01, 0.015, -0.008]))[0].ravel().tolist()),
        projection_matrix=_projection(_CAMERA, BASELINE_M),
    )
    # Two samples a pixel along each axis, as `render` takes them.
    y, x = (np.mgrid[: 2 * HEIGHT, : 2 * WIDTH] - 0.5) / 2
    pixels = np.column_stack([x.ravel(), y.ravel()])
    images = []
    for frame, calibration in zip(frames, (left, right), strict=True):
        seen = _SOURCE.project(_turned_rays(calibration, pixels, rectified=False)).astype(np.float32)
        fine = cv2.remap(frame.image, seen.reshape(2 * HEIGHT, 2 * WIDTH, 2), None, cv2.INTER_CUBIC)
        images.append(np.asarray(cv2.resize(fine, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8))
    return StereoPair(images[0], images[1], (left, right), False, _SOURCE, frames[0].depth)
