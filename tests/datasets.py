"""Writes small sequences in the layouts of public datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend_lab.evaluation.tracks.ground_truth import quaternion_of

__all__ = ["BODY_FROM_CAMERA", "RIGHT_SHIFT_M", "Flight", "imu_rows", "noise_flight", "write_layout"]

Image = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

SECOND = 1_000_000_000
# As of a camera that looks forward and is turned and shifted in its body: not its own inverse.
BODY_FROM_CAMERA = np.array([[0, 0, 1, 0.1], [-1, 0, 0, -0.2], [0, -1, 0, 0.05], [0, 0, 0, 1.0]])
RIGHT_SHIFT_M = 0.54


@dataclass(frozen=True, eq=False)
class Flight:
    """Images of a pinhole camera with their stamps and poses.

    Attributes:
        images: (H, W) or (H, W, 3) RGB each.
        stamps_ns: One each.
        poses: (4, 4) camera-to-world each.
        pinhole: fx, fy, cx, cy in px.
    """

    images: Sequence[Image]
    stamps_ns: Sequence[int]
    poses: Sequence[FloatArray]
    pinhole: tuple[float, float, float, float] = (60.0, 61.0, 31.5, 23.5)


def noise_flight(count: int = 4) -> Flight:
    """Images of noise, 64x48 px, with stamps that no float holds."""
    images = [np.random.default_rng(index).integers(0, 256, (48, 64), np.uint8) for index in range(count)]
    stamps_ns = [1_403_636_579_763_555_584 + 50_000_001 * index for index in range(count)]
    poses = []
    for index in range(count):
        pose = np.eye(4)
        pose[:3, :3] = cv2.Rodrigues(np.array([0.1, 0.2 * index, -0.1]))[0]
        pose[:3, 3] = [0.1 * index, 1, 2]
        poses.append(pose)
    return Flight(images, stamps_ns, poses)


def write_layout(layout: str, root: Path, flight: Flight) -> Path:
    """Writes a flight in a layout by its name in `LAYOUTS`; returns the folder that a user would name."""
    return _WRITERS[layout](root, flight)


def imu_rows(flight: Flight) -> list[tuple[int, tuple[float, ...]]]:
    """Stamp and six values of each measurement at 200 Hz, from 20 ms before the first image to 20 ms after the last."""
    stamps_ns = range(flight.stamps_ns[0] - 20_000_000, flight.stamps_ns[-1] + 20_000_001, 5_000_000)
    values = np.random.default_rng(0).normal(size=(len(stamps_ns), 6))
    return [(stamp_ns, tuple(row.tolist())) for stamp_ns, row in zip(stamps_ns, values, strict=True)]


def _images(folder: Path, names: Sequence[str], images: Sequence[Image]) -> None:
    folder.mkdir(parents=True)
    for name, image in zip(names, images, strict=True):
        pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(str(folder / name), pixels)


def _euroc(root: Path, flight: Flight) -> Path:
    mav = root / "V1_01_easy" / "mav0"
    names = [f"{stamp_ns}.png" for stamp_ns in flight.stamps_ns]
    for camera in ("cam0", "cam1"):
        _images(mav / camera / "data", names, flight.images)
        rows = [f"{stamp_ns},{name}" for stamp_ns, name in zip(flight.stamps_ns, names, strict=True)]
        _lines(mav / camera / "data.csv", ["#timestamp [ns],filename", *rows])
        height, width = flight.images[0].shape[:2]
        _lines(
            mav / camera / "sensor.yaml",
            [
                "sensor_type: camera",
                f"T_BS: {{rows: 4, cols: 4, data: {_values(BODY_FROM_CAMERA)}}}",
                "rate_hz: 20",
                f"resolution: [{width}, {height}]",
                "camera_model: pinhole",
                f"intrinsics: {list(flight.pinhole)}",
                "distortion_model: radial-tangential",
                "distortion_coefficients: [0.0, 0.0, 0.0, 0.0]",
            ],
        )
    (mav / "imu0").mkdir()
    rows = [",".join(map(repr, (stamp_ns, *values))) for stamp_ns, values in imu_rows(flight)]
    _lines(mav / "imu0" / "data.csv", ["#timestamp [ns],w_RS_S_x [rad s^-1],...", *rows])
    _lines(
        mav / "imu0" / "sensor.yaml",
        [
            "#Default imu sensor yaml file",
            "sensor_type: imu",
            f"T_BS: {{rows: 4, cols: 4, data: {_values(np.eye(4))}}}",
            "gyroscope_noise_density: 2.0e-04",
            "gyroscope_random_walk: 3.0e-05",
            "accelerometer_noise_density: 4.0e-3",
            "accelerometer_random_walk: 5.0e-3",
        ],
    )
    truth = mav / "state_groundtruth_estimate0"
    truth.mkdir()
    rows = []
    for stamp_ns, pose in zip(flight.stamps_ns, flight.poses, strict=True):
        body = pose @ np.linalg.inv(BODY_FROM_CAMERA)
        x, y, z, w = quaternion_of(body[:3, :3])
        rows.append(",".join(map(repr, [stamp_ns, *body[:3, 3].tolist(), *map(float, (w, x, y, z)), *[0.0] * 9])))
    _lines(truth / "data.csv", ["#timestamp, p_RS_R_x [m], ...", *rows])
    _lines(truth / "sensor.yaml", [f"T_BS: {{rows: 4, cols: 4, data: {_values(np.eye(4))}}}"])
    return mav.parent


def _tum(root: Path, flight: Flight) -> Path:
    folder = root / "rgbd_dataset_freiburg2_desk"
    stamps = [f"{stamp_ns // SECOND}.{stamp_ns % SECOND:09d}" for stamp_ns in flight.stamps_ns]
    _images(folder / "rgb", [f"{stamp}.png" for stamp in stamps], flight.images)
    _lines(folder / "rgb.txt", ["# color images", "# file: 'x.bag'", *(f"{stamp} rgb/{stamp}.png" for stamp in stamps)])
    rows = []
    for stamp, pose in zip(stamps, flight.poses, strict=True):
        rows.append(f"{stamp} {_spaced([*pose[:3, 3], *quaternion_of(pose[:3, :3])])}")
    _lines(folder / "groundtruth.txt", ["# timestamp tx ty tz qx qy qz qw", *rows])
    height, width = flight.images[0].shape[:2]
    fx, fy, cx, cy = flight.pinhole
    _lines(
        folder / "camera.yaml",
        [
            f"image_width: {width}",
            f"image_height: {height}",
            f"camera_matrix: {{rows: 3, cols: 3, data: [{fx}, 0, {cx}, 0, {fy}, {cy}, 0, 0, 1]}}",
            "distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}",
        ],
    )
    return folder


def _kitti_odometry(root: Path, flight: Flight) -> Path:
    """The poses are those of image_0, and the images those of image_2, which is RIGHT_SHIFT_M to the right of it."""
    folder = root / "dataset" / "sequences" / "07"
    names = [f"{index:06d}.png" for index in range(len(flight.images))]
    _images(folder / "image_2", names, flight.images)
    first_ns = flight.stamps_ns[0]
    _lines(folder / "times.txt", [f"{(stamp_ns - first_ns) / 1e9:e}" for stamp_ns in flight.stamps_ns])
    matrices = {f"P{number}": _projection(flight, RIGHT_SHIFT_M * number / 2) for number in range(4)}
    _lines(folder / "calib.txt", [f"{name}: {_spaced(matrix.ravel())}" for name, matrix in matrices.items()])
    (root / "dataset" / "poses").mkdir()
    right = np.eye(4)
    right[0, 3] = RIGHT_SHIFT_M
    rows = [_spaced((pose @ np.linalg.inv(right))[:3].ravel()) for pose in flight.poses]
    _lines(root / "dataset" / "poses" / "07.txt", rows)
    return folder


def _kitti_raw(root: Path, flight: Flight) -> Path:
    date = root / "2011_09_26"
    folder = date / "2011_09_26_drive_0001_sync"
    names = [f"{index:010d}.png" for index in range(len(flight.images))]
    _images(folder / "image_00" / "data", names, flight.images)
    stamps = [f"{np.datetime64(stamp_ns, 'ns')}".replace("T", " ") for stamp_ns in flight.stamps_ns]
    _lines(folder / "image_00" / "timestamps.txt", stamps)
    height, width = flight.images[0].shape[:2]
    fx, fy, cx, cy = flight.pinhole
    _lines(
        date / "calib_cam_to_cam.txt",
        [
            "calib_time: 09-Jan-2012 13:57:47",
            "corner_dist: 9.950000e-02",
            f"S_00: {_spaced([width + 10, height + 10])}",
            f"K_00: {_spaced([fx + 1, 0, cx + 5, 0, fy + 1, cy + 5, 0, 0, 1])}",
            f"D_00: {_spaced([-0.37, 0.2, 0.001, 0.002, -0.07])}",
            f"S_rect_00: {_spaced([width, height])}",
            f"R_rect_00: {_spaced(np.eye(3).ravel())}",
            f"P_rect_00: {_spaced(_projection(flight, 0.0).ravel())}",
        ],
    )
    return folder


_WRITERS = {"EuRoC": _euroc, "TUM RGB-D": _tum, "KITTI odometry": _kitti_odometry, "KITTI raw": _kitti_raw}


def _projection(flight: Flight, shift_m: float) -> FloatArray:
    fx, fy, cx, cy = flight.pinhole
    return np.array([[fx, 0, cx, -fx * shift_m], [0, fy, cy, 0], [0, 0, 1, 0]])


def _values(matrix: FloatArray) -> list[float]:
    return [float(value) for value in matrix.ravel()]


def _spaced(values: Sequence[float] | FloatArray) -> str:
    return " ".join(f"{value:.12e}" for value in values)


def _lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
