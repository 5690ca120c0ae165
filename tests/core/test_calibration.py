"""Undistortion against OpenCV's forward models: distort known rays, and get them back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from feature_frontend.calibration import CameraCalibration, normalize_points

_MATRIX = np.array([[420.0, 0.0, 322.0], [0.0, 418.0, 239.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        ("plumb_bob", ()),
        ("plumb_bob", (0.0,) * 5),
        ("plumb_bob", (-0.28, 0.07, 0.0002, 0.00002, 0.0)),
        ("rational_polynomial", (0.35, -0.08, 0.0001, -0.0002, 0.002, 0.68, -0.05, 0.001)),
        ("equidistant", (-0.013, 0.0008, -0.002, 0.0004)),
    ],
)
def test_rays_come_back_through_the_lens(model: str, coefficients: tuple[float, ...]) -> None:
    x, y = np.meshgrid(np.linspace(-0.75, 0.75, 13), np.linspace(-0.55, 0.55, 11))
    rays = np.stack([x.ravel(), y.ravel()], axis=1)
    points = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    distortion = np.array(coefficients or (0.0,) * 4)
    if model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), _MATRIX, distortion)
    else:
        pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), _MATRIX, distortion)
    calibration = CameraCalibration(
        height=480,
        width=640,
        camera_name="",
        distortion_model=model,
        camera_matrix=tuple(_MATRIX.ravel().tolist()),
        distortion_coefficients=coefficients,
    )
    normalized = normalize_points(calibration, pixels.reshape(-1, 2).astype(np.float32))
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, rays, atol=1e-4)
    assert normalize_points(calibration, np.zeros((0, 2), np.float32)).shape == (0, 2)
