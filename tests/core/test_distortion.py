"""Undistortion over whole images compared with OpenCV: real lenses of all models, beyond their valid region, fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.camera.calibration import CameraCalibration, normalize_points
from feature_frontend.camera.distortion import MAX_ANGLE_DEG, lens_of
from tests import tolerances

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Camera:
    """A camera with (width, height), fx, fy, cx, cy in px, as its makers or a dataset published it."""

    size: tuple[int, int]
    intrinsics: tuple[float, float, float, float]
    model: str
    coefficients: tuple[float, ...]

    @property
    def calibration(self) -> CameraCalibration:
        fx, fy, cx, cy = self.intrinsics
        return CameraCalibration(
            height=self.size[1],
            width=self.size[0],
            camera_name="",
            distortion_model=self.model,
            camera_matrix=(fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0),
            distortion_coefficients=self.coefficients,
        )

    @property
    def matrix(self) -> FloatArray:
        return np.array(self.calibration.camera_matrix).reshape(3, 3)

    @property
    def pixels(self) -> FloatArray:
        """(N, 2) points all over the image, its outermost edges at -0.5 and width - 0.5 included."""
        width, height = self.size
        x, y = np.meshgrid(np.linspace(-0.5, width - 0.5, 97), np.linspace(-0.5, height - 0.5, 73))
        return np.stack([x.ravel(), y.ravel()], axis=1)

    def project(self, rays: FloatArray) -> FloatArray:
        """OpenCV's forward model: (N, 2) px of rays (N, 2), x/z and y/z."""
        points = np.column_stack([rays, np.ones(len(rays))])
        coefficients = np.array(self.coefficients)
        if self.model in {"equidistant", "fisheye"}:
            pixels, _ = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), self.matrix, coefficients)
        else:
            pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), self.matrix, coefficients)
        return np.asarray(pixels, np.float64).reshape(-1, 2)

    def opencv(self, pixels: FloatArray) -> FloatArray:
        """OpenCV's own inverse, with as many iterations as help it."""
        criteria = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 1000, 1e-12)
        coefficients = np.array(self.coefficients)
        if self.model in {"equidistant", "fisheye"}:
            try:
                flat = cv2.fisheye.undistortPoints(pixels[:, None], self.matrix, coefficients, criteria=criteria)
            except cv2.error as error:
                if "criteria" not in str(error):
                    raise
                pytest.skip(f"the fisheye lens of OpenCV {cv2.__version__} takes no number of iterations")
        elif hasattr(cv2, "undistortPointsIter"):  # OpenCV 4; version 5 gave the criteria to undistortPoints
            flat = cv2.undistortPointsIter(pixels[:, None], self.matrix, coefficients, np.eye(3), np.eye(3), criteria)
        else:
            flat = cv2.undistortPoints(pixels[:, None], self.matrix, coefficients, criteria=criteria)
        return np.asarray(flat, np.float64).reshape(-1, 2)


CAMERAS = {
    # EuRoC MAV, cam0
    "plumb_bob, EuRoC": _Camera(
        (752, 480),
        (458.654, 457.296, 367.215, 248.375),
        "plumb_bob",
        (-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05, 0.0),
    ),
    # TUM RGB-D, freiburg1
    "plumb_bob, Kinect": _Camera(
        (640, 480), (517.3, 516.5, 318.6, 255.3), "plumb_bob", (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)
    ),
    # Fitted to an ideal equidistant lens of 104 degrees from corner to corner
    "plumb_bob, wide": _Camera(
        (1280, 960), (885.0, 886.0, 642.5, 478.1), "plumb_bob", (-0.318035, 0.131459, 0.0004, -0.0003, -0.028188)
    ),
    # Azure Kinect, colour camera
    "rational, Azure Kinect": _Camera(
        (1920, 1080),
        (913.5, 913.2, 956.6, 553.4),
        "rational_polynomial",
        (0.4453, -2.5197, 0.00088, -0.00017, 1.4609, 0.3234, -2.3481, 1.3904),
    ),
    # Fitted to an ideal equidistant lens of 124 degrees from corner to corner
    "rational, wide": _Camera(
        (1440, 1080),
        (840.0, 838.0, 721.0, 538.0),
        "rational_polynomial",
        (0.928347, 0.171508, 0.0001, -0.0002, 0.00328, 1.261655, 0.392266, 0.023873),
    ),
    # TUM VI, cam0: 195 degrees
    "equidistant, TUM VI": _Camera(
        (512, 512),
        (190.97847715, 190.97330705, 254.93170606, 256.89744300),
        "equidistant",
        (0.00348238940, 0.000715034845, -0.00205323614, 0.000202936736),
    ),
    # RealSense T265
    "fisheye, T265": _Camera((848, 800), (286.2, 286.1, 420.9, 399.2), "fisheye", (-0.0076, 0.0437, -0.0411, 0.0077)),
    # All zeros would be no distortion at all.
    "equidistant, ideal": _Camera((640, 480), (300.0, 300.0, 319.5, 239.5), "equidistant", (1e-12, 0.0, 0.0, 0.0)),
    # OpenCV's further coefficients
    "thin prism": _Camera(
        (640, 480),
        (420.0, 418.0, 322.0, 239.0),
        "thin_prism_fisheye",
        (-0.21, 0.05, 0.0003, -0.0002, 0.0, 0.0, 0.0, 0.0, 0.003, -0.0007, -0.002, 0.0004),
    ),
    "tilted sensor": _Camera(
        (640, 480),
        (420.0, 418.0, 322.0, 239.0),
        "tilted_thin_prism",
        (-0.21, 0.05, 0.0003, -0.0002, 0.0, 0.0, 0.0, 0.0, 0.003, -0.0007, -0.002, 0.0004, 0.03, -0.02),
    ),
}


@pytest.fixture(params=CAMERAS, ids=str)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_pixel_goes_through_opencvs_lens_and_comes_back(name: str, report_figure: Callable[[str], None]) -> None:
    camera = CAMERAS[name]
    pixels = camera.pixels
    rays = normalize_points(camera.calibration, pixels).astype(np.float64)
    is_there = np.isfinite(rays).all(axis=1)
    if camera.model in {"equidistant", "fisheye"}:
        distance = np.hypot(*((pixels - camera.intrinsics[2:]) / camera.intrinsics[:2]).T)
        assert is_there[distance < 1.4].all()
    else:
        assert is_there.all(), "these lenses see something in every pixel"
    again = camera.project(rays[is_there])
    # Back in the normalised units of the ray, by the local magnification of the lens.
    step = 1e-6
    moved = camera.project(rays[is_there] + [step, 0.0])
    magnification_px = np.linalg.norm(moved - again, axis=1) / step
    error = np.linalg.norm(again - pixels[is_there], axis=1) / magnification_px
    report_figure(
        f"undistortion, {name}: {is_there.mean():.0%} of the image has rays up to "
        f"{np.degrees(np.arctan(np.hypot(*rays[is_there].T).max())):.0f} degrees off the axis; worst round trip "
        f"{error.max():.1e}"
    )
    assert error.max() < tolerances.UNDISTORTION


def test_it_is_what_opencvs_own_inverse_says_where_that_converges(
    name: str, report_figure: Callable[[str], None]
) -> None:
    camera = CAMERAS[name]
    pixels = camera.pixels
    rays = normalize_points(camera.calibration, pixels).astype(np.float64)
    theirs = camera.opencv(pixels)
    converged = np.isfinite(rays).all(axis=1) & (np.linalg.norm(camera.project(theirs) - pixels, axis=1) < 1e-6)
    # A fisheye's corner beyond 90 degrees comes back from behind, in OpenCV's inverse too.
    assert converged.mean() > 0.5
    difference = np.abs(rays - theirs)[converged]
    report_figure(
        f"undistortion, {name}: OpenCV's inverse converges in {converged.mean():.0%} of the image; worst difference "
        f"there {difference.max():.1e}"
    )
    assert difference.max() < tolerances.UNDISTORTION


def test_known_rays_come_back(name: str) -> None:
    camera = CAMERAS[name]
    rng = np.random.default_rng(0)
    rays = normalize_points(camera.calibration, camera.pixels).astype(np.float64)
    reach = np.nanmax(np.abs(rays), axis=0)
    known = rng.uniform(-np.minimum(reach, 5), np.minimum(reach, 5), (5000, 2))
    width, height = camera.size
    pixels = camera.project(known)
    inside = ((pixels > -0.5) & (pixels < [width - 0.5, height - 0.5])).all(axis=1)
    # What a lens maps into its image from beyond its fold is another ray's pixel.
    calibration = camera.calibration
    limit = lens_of(calibration.distortion_model, calibration.distortion_coefficients).angles[-1]
    inside &= np.arctan(np.hypot(*known.T)) < 0.98 * limit
    assert inside.sum() > 1000
    found = normalize_points(camera.calibration, pixels[inside])
    assert np.abs(found - known[inside]).max() < tolerances.UNDISTORTION


def test_a_pixel_beyond_the_fold_has_no_ray() -> None:
    # k1 alone folds the image back at r = 1 / sqrt(-3 k1): 0.913 for -0.4, distorted 0.609.
    lens = lens_of("plumb_bob", (-0.4, 0.0, 0.0, 0.0, 0.0))
    assert lens.radii[-1] == pytest.approx(2 / 3 / np.sqrt(1.2), abs=1e-6)
    angle = np.linspace(0, 2 * np.pi, 16)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert np.isfinite(lens.undistort(0.60 * circle)).all()
    assert np.hypot(*lens.undistort(0.60 * circle).T).max() < 1 / np.sqrt(1.2)
    assert np.isnan(lens.undistort(0.62 * circle)).all()


def test_a_ray_from_the_side_or_behind_is_none() -> None:
    camera = CAMERAS["equidistant, ideal"].calibration
    radii_px = np.radians([0.0, 45.0, MAX_ANGLE_DEG - 0.1, MAX_ANGLE_DEG + 0.1, 100.0]) * 300.0
    rays = normalize_points(camera, np.column_stack([319.5 + radii_px, np.full(5, 239.5)]))
    np.testing.assert_allclose(rays[:3], [[0, 0], [1, 0], [np.tan(np.radians(MAX_ANGLE_DEG - 0.1)), 0]], atol=1e-4)
    assert np.isnan(rays[3:]).all()


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        ("plumb_bob", (1e308, -1e308, 1e308, 1e308, -1e308)),
        ("plumb_bob", (-1e9, 0.0, 0.0, 0.0, 0.0)),
        ("rational_polynomial", (0.0, 0.0, 0.0, 0.0, 0.0, -1e308, 1e308, 0.0)),
        ("equidistant", (-1e308, 1e308, 0.0, 0.0)),
    ],
)
def test_absurd_coefficients_give_numbers_or_nothing(model: str, coefficients: tuple[float, ...]) -> None:
    rays = lens_of(model, coefficients).undistort(np.random.default_rng(0).normal(size=(1000, 2)) * 1e3)
    assert rays.shape == (1000, 2)
    assert not np.isinf(rays).any()


def test_a_frames_keypoints_take_no_time(report_figure: Callable[[str], None]) -> None:
    camera = CAMERAS["rational, Azure Kinect"]
    pixels = np.random.default_rng(0).uniform(0, 1000, (1000, 2)).astype(np.float32)
    calibration = camera.calibration
    normalize_points(calibration, pixels)
    took_ms = []
    for _ in range(20):
        start_s = time.perf_counter()
        normalize_points(calibration, pixels)
        took_ms.append((time.perf_counter() - start_s) * 1e3)
    report_figure(f"undistortion of 1000 keypoints, rational model: {np.median(took_ms):.2f} ms (median of 20)")
    assert np.median(took_ms) < 10
