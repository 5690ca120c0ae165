"""Calibrations: invalid ones, and rays of distorted, binned, cropped and rectified images."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from feature_frontend.camera.calibration import CameraCalibration, RegionOfInterest, normalize_points
from feature_frontend.errors import CalibrationError
from feature_frontend.stereo.rig import StereoRig

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


_CALIBRATION = CameraCalibration(
    height=480,
    width=640,
    camera_name="",
    distortion_model="plumb_bob",
    camera_matrix=tuple(_MATRIX.ravel().tolist()),
    distortion_coefficients=(-0.28, 0.07, 0.0002, 0.00002, 0.0),
)


def _binned(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """What a sensor delivers that adds up blocks of pixels; what does not fill a block is left out."""
    height, width = image.shape[0] // rows, image.shape[1] // columns
    return image[: height * rows, : width * columns].reshape(height, rows, width, columns).mean(axis=(1, 3))


@pytest.mark.parametrize("binning", [(0, 0), (1, 1), (2, 2), (4, 2), (3, 5)])
@pytest.mark.parametrize("region", [(0, 0, 0, 0), (64, 32, 400, 301), (101, 57, 240, 320)])
def test_convention_binning_and_region_of_interest(binning: tuple[int, int], region: tuple[int, int, int, int]) -> None:
    x_offset, y_offset, width, height = region
    calibration = replace(
        _CALIBRATION,
        binning_x=binning[0],
        binning_y=binning[1],
        region_of_interest=RegionOfInterest(x_offset, y_offset, height, width, do_rectify=bool(width)),
    )
    # The sensor shows its own coordinates: what a delivered pixel holds is where on the sensor its middle lies.
    y, x = np.mgrid[0:480, 0:640].astype(np.float64)
    window = np.s_[y_offset : y_offset + (height or 480), x_offset : x_offset + (width or 640)]
    delivered = np.stack([_binned(plane[window], max(binning[1], 1), max(binning[0], 1)) for plane in (x, y)], axis=-1)
    assert delivered.shape[:2] == calibration.image_size
    rows, columns = np.mgrid[0 : delivered.shape[0], 0 : delivered.shape[1]]
    points = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32)
    np.testing.assert_allclose(calibration.to_full_image(points), delivered.reshape(-1, 2), atol=1e-9)
    np.testing.assert_allclose(
        normalize_points(calibration, points), normalize_points(_CALIBRATION, delivered.reshape(-1, 2)), atol=1e-6
    )


def test_convention_rectified_images_have_the_rays_of_the_projection_matrix() -> None:
    rotation = cv2.Rodrigues(np.array([0.01, 0.03, -0.02]))[0]
    projection = np.array([[380.0, 0, 310, -45.6], [0, 381, 245, 0], [0, 0, 1, 0]])
    calibration = replace(
        _CALIBRATION,
        rectification_matrix=tuple(rotation.ravel().tolist()),
        projection_matrix=tuple(projection.ravel().tolist()),
    )
    # Where image_proc takes each pixel of the rectified image from.
    coefficients = np.array(calibration.distortion_coefficients)
    maps = cv2.initUndistortRectifyMap(_MATRIX, coefficients, rotation, projection[:, :3], (640, 480), cv2.CV_32FC1)
    raw = np.stack(maps, axis=-1)[::40, ::40].reshape(-1, 2)
    rectified = np.stack(np.meshgrid(np.arange(0, 640, 40), np.arange(0, 480, 40)), axis=-1).reshape(-1, 2)
    rays = normalize_points(calibration, rectified, rectified=True)
    np.testing.assert_allclose(rays[0], [-310 / 380, -245 / 381], atol=1e-6)
    in_camera = np.column_stack([rays, np.ones(len(rays))]) @ rotation
    own = normalize_points(calibration, raw)
    np.testing.assert_allclose(own, in_camera[:, :2] / in_camera[:, 2:], atol=1e-5)

    without = replace(_CALIBRATION, projection_matrix=(0.0,) * 12)
    assert np.isfinite(normalize_points(without, raw)).all()
    with pytest.raises(CalibrationError, match="P are 0 and 0 px"):
        normalize_points(without, raw, rectified=True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"camera_matrix": (0.0,) * 9, "projection_matrix": ()}, "K is 0"),
        ({"camera_matrix": (0.0,) * 9, "projection_matrix": (0.0,) * 12, "height": 0}, "K is 0"),
        ({"camera_matrix": (0.0, 0, 322, 0, 418, 239, 0, 0, 1)}, "focal lengths are 0 and 418 px"),
        ({"camera_matrix": (420.0, 0, 322, 0, float("nan"), 239, 0, 0, 1)}, "camera_matrix .* finite"),
        ({"camera_matrix": (420.0, 3.0, 322, 0, 418, 239, 0, 0, 1)}, "fx 0 cx, 0 fy cy, 0 0 1"),
        ({"camera_matrix": (420.0, 0, 322, 0, 418, 239, 0, 0, 0)}, "fx 0 cx"),
        ({"camera_matrix": (420.0,) * 3}, "camera_matrix .*3.*9"),
        ({"distortion_coefficients": (float("inf"), 0, 0, 0, 0)}, "distortion_coefficients .* finite"),
        (
            {"distortion_coefficients": (0.1,) * 3},
            r"'plumb_bob' .*3.* \(0.1, 0.1, 0.1\).* 4, 5, 8, 12 or 14",
        ),
        (
            {"distortion_model": "barrel"},
            "'barrel' with 5 .* plumb_bob or rational_polynomial",
        ),
        ({"projection_matrix": (float("nan"),) * 12}, "projection_matrix .* finite"),
        ({"region_of_interest": RegionOfInterest(300, 0, 480, 400)}, "400x480 px at \\(300, 0\\)"),
        ({"binning_x": 1000}, "binned by 1000x0"),
    ],
)
def test_an_inconsistent_calibration_is_refused(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(CalibrationError, match=expected):
        replace(_CALIBRATION, **changes)


def test_a_camera_of_which_only_p_is_known_has_rays_where_its_images_are_rectified() -> None:
    # As drivers of stereo cameras publish it beside images that they have rectified themselves.
    calibration = replace(
        _CALIBRATION,
        camera_matrix=(0.0,) * 9,
        distortion_model="rational_polynomial",
        distortion_coefficients=(0.0,) * 8,
        projection_matrix=(1000.0, 0, 673, 0, 0, 999, 340, 0, 0, 0, 1, 0),
    )
    np.testing.assert_allclose(normalize_points(calibration, np.array([[1673.0, 340.0]]), rectified=True), [[1, 0]])
    assert calibration.focal_px(rectified=True) == 999.5
    with pytest.raises(CalibrationError, match=r"K is 0.* P .*rectified"):
        normalize_points(calibration, np.array([[1673.0, 340.0]]))
    right = replace(calibration, projection_matrix=(1000.0, 0, 673, -100, 0, 1000, 340, 0, 0, 0, 1, 0))
    assert StereoRig(calibration, right, rectified=True)
    with pytest.raises(CalibrationError, match=r"left .*K is 0"):
        StereoRig(calibration, right, rectified=False)
