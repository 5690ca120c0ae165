"""What a camera's sensor makes of a perfect image: motion blur, exposure, noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering.camera import Camera, FloatArray

__all__ = ["ImageSensor", "motion_blurred"]

FloatImage = npt.NDArray[np.float32]

_MOST_TAPS = 15
_LEAST_BLUR_PX = 0.75


@dataclass(frozen=True)
class ImageSensor:
    """A grey global-shutter sensor.

    Attributes:
        exposure_s: Exposure time; the stamp of an image is its middle.
        read_noise: Standard deviation of the noise in the dark, grey levels.
        shot_noise: Variance of the noise per grey level.
    """

    exposure_s: float
    read_noise: float = 1.0
    shot_noise: float = 0.02

    def expose(self, light: FloatImage, gain: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """(H, W) uint8 image of `light` (H, W), in grey levels before multiplication by `gain`."""
        signal = light * np.float32(gain)
        spread = np.sqrt(np.float32(self.read_noise**2) + np.float32(self.shot_noise) * signal)
        noisy = signal + spread * rng.standard_normal(signal.shape, np.float32)
        return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def motion_blurred(
    light: FloatImage,
    inverse_depth: FloatImage,
    camera: Camera,
    velocity: FloatArray,
    angular_velocity: FloatArray,
    exposure_s: float,
) -> FloatImage:
    """The mean over the exposure: each pixel averages the image along its own motion.

    At the edge of a near object the background is smeared with the object's motion, not with its own.

    Args:
        light: (H, W) image at the middle of the exposure.
        inverse_depth: (H, W) 1/m, 0 without a surface.
        camera: Camera of the image.
        velocity: (3,) of the camera, in its own frame, m/s.
        angular_velocity: (3,) of the camera, in its own frame, rad/s.
        exposure_s: Exposure time.
    """
    (fx, _, cx), (_, fy, cy), _ = camera.matrix
    columns = np.arange(camera.width, dtype=np.float32)
    rows = np.arange(camera.height, dtype=np.float32)[:, None]
    x, y = (columns - np.float32(cx)) / np.float32(fx), (rows - np.float32(cy)) / np.float32(fy)
    vx, vy, vz = velocity.astype(np.float32)
    wx, wy, wz = angular_velocity.astype(np.float32)
    flow_x = (x * vz - vx) * inverse_depth + x * y * wx - (1 + x**2) * wy + y * wz
    flow_y = (y * vz - vy) * inverse_depth + (1 + y**2) * wx - x * y * wy - x * wz
    flow_x *= np.float32(fx * exposure_s)
    flow_y *= np.float32(fy * exposure_s)
    longest_px = float(np.sqrt((flow_x**2 + flow_y**2).max()))
    if longest_px < _LEAST_BLUR_PX:
        return light
    taps = min(int(np.ceil(longest_px)) + 1, _MOST_TAPS)
    total = np.zeros_like(light)
    for part in (np.arange(taps, dtype=np.float32) + np.float32(0.5)) / taps - np.float32(0.5):
        total += cv2.remap(
            light, columns + part * flow_x, rows + part * flow_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return np.asarray(total / np.float32(taps), np.float32)
