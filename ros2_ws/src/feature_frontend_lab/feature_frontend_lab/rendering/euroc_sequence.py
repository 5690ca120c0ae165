"""Writes a flight in the layout of the EuRoC MAV dataset, which players and back-ends read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from feature_frontend.errors import SourceError
from feature_frontend.image.image_file import encode_file
from feature_frontend_lab.rendering.camera import FloatArray, quaternion
from feature_frontend_lab.rendering.flights import FRAME_RATE_HZ, IMU_RATE_HZ, Flight

__all__ = ["write_euroc"]

_IMU_COLUMNS = (
    "#timestamp [ns],w_RS_S_x [rad s^-1],w_RS_S_y [rad s^-1],w_RS_S_z [rad s^-1],"
    "a_RS_S_x [m s^-2],a_RS_S_y [m s^-2],a_RS_S_z [m s^-2]"
)
_TRUTH_COLUMNS = (
    "#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z [], "
    "v_RS_R_x [m s^-1], v_RS_R_y [m s^-1], v_RS_R_z [m s^-1], b_w_RS_S_x [rad s^-1], b_w_RS_S_y [rad s^-1], "
    "b_w_RS_S_z [rad s^-1], b_a_RS_S_x [m s^-2], b_a_RS_S_y [m s^-2], b_a_RS_S_z [m s^-2]"
)


def write_euroc(flown: Flight, folder: Path, on_image: Callable[[], None] = lambda: None) -> None:
    """Writes `mav0/` with `cam0`, `imu0` and `state_groundtruth_estimate0` (at the images), each with `sensor.yaml`.

    Args:
        flown: The flight; its images are rendered one after the other.
        folder: Output folder; created if it does not exist. It must not contain `mav0`.
        on_image: Called after each image.

    Raises:
        SourceError: `mav0` exists, or a file cannot be written.
    """
    base = folder / "mav0"
    try:
        (base / "cam0" / "data").mkdir(parents=True)
        for name in ("imu0", "state_groundtruth_estimate0"):
            (base / name).mkdir()
        _write_tables(flown, base)
        for stamp_ns, image in zip(flown.stamps_ns, flown.frames(), strict=True):
            encode_file(base / "cam0" / "data" / f"{stamp_ns}.png", image, cv2.IMWRITE_PNG_COMPRESSION, 1)
            on_image()
    except OSError as error:
        raise SourceError(
            f"{base} cannot be written: {error.strerror or error}; expected a folder without mav0, and space left"
        ) from error


def _write_tables(flown: Flight, base: Path) -> None:
    imu = flown.imu
    stamps = [int(stamp) for stamp in flown.stamps_ns]
    camera_rows = [f"{stamp},{stamp}.png" for stamp in stamps]
    _write(base / "cam0" / "data.csv", ["#timestamp [ns],filename", *camera_rows])
    measured = np.column_stack([imu.angular_velocity, imu.linear_acceleration])
    _write(base / "imu0" / "data.csv", [_IMU_COLUMNS, *_rows(imu.stamps_ns.tolist(), measured)])
    poses = flown.body_poses
    truth = np.column_stack(
        [
            poses[:, :3, 3],
            np.array([np.roll(quaternion(pose[:3, :3]), 1) for pose in poses]),  # w first
            flown.velocities,
            flown.gyroscope_biases,
            flown.accelerometer_biases,
        ]
    )
    _write(base / "state_groundtruth_estimate0" / "data.csv", [_TRUTH_COLUMNS, *_rows(stamps, truth)])

    (fx, _, cx), (_, fy, cy), _ = flown.camera.matrix.tolist()
    _write(
        base / "cam0" / "sensor.yaml",
        [
            "sensor_type: camera",
            f"comment: rendered, flight {flown.name}, seed {flown.seed}",
            *_extrinsics(imu.body_from_camera),
            f"rate_hz: {FRAME_RATE_HZ}",
            f"resolution: [{flown.camera.width}, {flown.camera.height}]",
            "camera_model: pinhole",
            f"intrinsics: [{fx!r}, {fy!r}, {cx!r}, {cy!r}] #fu, fv, cu, cv",
            "distortion_model: radial-tangential",
            "distortion_coefficients: [0.0, 0.0, 0.0, 0.0]",
        ],
    )
    noise = [] if imu.noise is None else [f"{name}: {value!r}" for name, value in vars(imu.noise).items()]
    _write(
        base / "imu0" / "sensor.yaml",
        [
            "sensor_type: imu",
            "comment: simulated ADIS16448",
            *_extrinsics(np.eye(4)),
            f"rate_hz: {IMU_RATE_HZ}",
            *noise,
        ],
    )
    _write(
        base / "state_groundtruth_estimate0" / "sensor.yaml",
        ["sensor_type: visual-inertial", "comment: exact states at the images", *_extrinsics(np.eye(4))],
    )


def _extrinsics(body_from_sensor: FloatArray) -> list[str]:
    values = ", ".join(repr(value) for value in body_from_sensor.ravel().tolist())
    return ["T_BS:", "  cols: 4", "  rows: 4", f"  data: [{values}]"]


def _rows(stamps_ns: list[int], values: FloatArray) -> list[str]:
    return [
        ",".join([str(stamp), *(repr(value) for value in row)])
        for stamp, row in zip(stamps_ns, values.tolist(), strict=True)
    ]


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
